//! The whole shell over real loopback sockets: a node with two shards, the store in memory, and a bridge that does what the test
//! says. Nothing here sleeps for a time: each step waits for a state, with a deadline.
//!
//! Start with [`World`].

mod admin;
mod bad_input;
mod bridge;
mod client;
mod connecting;
mod delivering;
mod devices;
mod ending;
mod few_files;
mod http;
mod linking;
mod publishing;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use holdfast_gateway::config::{GatewayConfig, ListenersConfig};
use holdfast_gateway::metrics::install_recorder;
use holdfast_gateway::{LinkTarget, Node, NodeConfig, NodeHandle};
use holdfast_store::{MemoryStore, Store};
use metrics_exporter_prometheus::PrometheusHandle;

use bridge::Bridge;
use client::Client;

/// After this time a state that was waited for counts as never reached.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node and its bridge.
struct World {
    node: NodeHandle,
    bridge: Bridge,
}

const SHARDS: u16 = 2;

impl World {
    /// With the default configuration, on free ports.
    fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// With a changed configuration.
    fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::start_as(|node| node, change)
    }

    /// ... and a node that is made of something else besides.
    fn start_as(
        adapt: impl FnOnce(NodeConfig) -> NodeConfig,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        Self::start_on(memory(), adapt, change)
    }

    /// ... and a store of the test's own.
    fn start_on(
        store: Arc<dyn Store>,
        adapt: impl FnOnce(NodeConfig) -> NodeConfig,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let mut config = config();
        change(&mut config);
        let (bridge, ends) = Bridge::new(config.shards);
        let node = start_node_on(store, &config, vec![LinkTarget::Pair(ends)], adapt);
        let world = Self { node, bridge };
        wait_until("the links are up", || http::get(world.admin(), "/readyz").status == 200);
        world
    }

    fn mqtt(&self) -> SocketAddr {
        self.node.addresses().mqtt.expect("it listens")
    }

    fn admin(&self) -> SocketAddr {
        self.node.addresses().admin.expect("it listens")
    }

    fn connect(&self, client_id: &str) -> Client {
        Client::connect(self.mqtt(), client_id)
    }

    /// How many connections the node says it holds.
    fn connections(&self) -> u64 {
        http::get(self.admin(), "/readyz").json()["connections"].as_u64().expect("a number")
    }
}

fn config() -> GatewayConfig {
    let free = || "127.0.0.1:0".to_owned();
    let listeners = ListenersConfig { mqtt: free(), ws: free(), admin: free() };
    GatewayConfig { shards: SHARDS, listeners, ..GatewayConfig::default() }
}

fn start_node(config: &GatewayConfig, links: Vec<LinkTarget>) -> NodeHandle {
    start_node_as(config, links, |node| node)
}

fn start_node_as(
    config: &GatewayConfig,
    links: Vec<LinkTarget>,
    adapt: impl FnOnce(NodeConfig) -> NodeConfig,
) -> NodeHandle {
    start_node_on(memory(), config, links, adapt)
}

fn memory() -> Arc<MemoryStore> {
    let options = holdfast_store::Options::default();
    Arc::new(MemoryStore::new(options.clock, options.bounds))
}

fn start_node_on(
    store: Arc<dyn Store>,
    config: &GatewayConfig,
    links: Vec<LinkTarget>,
    adapt: impl FnOnce(NodeConfig) -> NodeConfig,
) -> NodeHandle {
    let settings = config.validate().expect("the configuration is valid");
    let config = adapt(NodeConfig { metrics: Some(recorder()), ..NodeConfig::new(settings) });
    let mut node = Node::start(config, store, links).expect("the node starts");
    node.admit().expect("the listeners open");
    node
}

/// The process's one recorder, which the nodes of all tests share.
fn recorder() -> PrometheusHandle {
    static RECORDER: LazyLock<PrometheusHandle> =
        LazyLock::new(|| install_recorder().expect("nobody else installs one"));
    RECORDER.clone()
}

/// Asks again and again until `state` holds.
fn wait_until(what: &str, mut state: impl FnMut() -> bool) {
    let started = Instant::now();
    while !state() {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}
