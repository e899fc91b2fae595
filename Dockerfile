# The one binary on a small Debian.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake libssl-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /holdfast
COPY . .
# What `holdfast --version` names; git is not among what was copied. --build-arg SOURCE_COMMIT="$(git rev-parse --short=12 HEAD)"
ARG SOURCE_COMMIT
RUN cargo build --release --locked --bin holdfast

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 && rm -rf /var/lib/apt/lists/*
COPY --from=build /holdfast/target/release/holdfast /usr/local/bin/holdfast
RUN useradd --system --uid 7883 holdfast && install -d -o holdfast /var/lib/holdfast
USER holdfast
WORKDIR /var/lib/holdfast
ENTRYPOINT ["holdfast"]
