//! Gateways and bridges as processes of their own, with a real Kafka and Redis, for one test.
//!
//! ```text
//!   gateways ──links──> bridges ──kafka_ways──> Kafka
//!       └── gateway_store ──> Redis <── bridge_store ──┘
//! ```
//!
//! In a cluster [behind proxies](ClusterSetup::behind_proxies) each of the four ways leads through [`Proxy`]s, so that a test makes its weather.

use std::net::SocketAddr;

use crate::{Kafka, Proxy, Redis, Role, RoleSetup};

/// Partitions of the topic of frames.
const PARTITIONS: u32 = 6;

/// What a cluster is to consist of.
#[derive(Debug, Clone)]
pub struct ClusterSetup {
    gateways: usize,
    bridges: usize,
    brokers: usize,
    behind_proxies: bool,
    bridge_settings: Vec<(String, String)>,
    gateway_settings: Vec<(String, String)>,
}

/// A cluster that serves. Everything in it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    // In the order of their ends: who is served before who serves, so that nobody complains.
    /// Each knows every bridge.
    pub gateways: Vec<Role>,
    /// Each has a data directory of its own.
    pub bridges: Vec<Role>,
    /// Where they send frames.
    pub kafka: Kafka,
    /// The session store.
    pub redis: Redis,
    /// What lies in between, if it was asked for.
    pub ways: Option<Ways>,
}

/// The proxies of a cluster.
#[derive(Debug)]
pub struct Ways {
    /// From all gateways to each bridge.
    pub links: Vec<Proxy>,
    /// From all bridges to each broker.
    pub kafka: Vec<Proxy>,
    /// From all gateways to Redis.
    pub gateway_store: Proxy,
    /// From all bridges to Redis.
    pub bridge_store: Proxy,
}

impl Default for ClusterSetup {
    fn default() -> Self {
        Self {
            gateways: 1,
            bridges: 1,
            brokers: 1,
            behind_proxies: false,
            bridge_settings: Vec::new(),
            gateway_settings: Vec::new(),
        }
    }
}

impl ClusterSetup {
    /// One of each.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many gateways.
    #[must_use]
    pub fn gateways(self, gateways: usize) -> Self {
        Self { gateways, ..self }
    }

    /// So many bridges.
    #[must_use]
    pub fn bridges(self, bridges: usize) -> Self {
        Self { bridges, ..self }
    }

    /// 1 or 3 brokers; with three every record is acknowledged by two.
    #[must_use]
    pub fn brokers(self, brokers: usize) -> Self {
        Self { brokers, ..self }
    }

    /// Proxies in all ways.
    #[must_use]
    pub fn behind_proxies(self) -> Self {
        Self { behind_proxies: true, ..self }
    }

    /// `--set key=value` for each bridge.
    #[must_use]
    pub fn set_bridges(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.bridge_settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// `--set key=value` for each gateway.
    #[must_use]
    pub fn set_gateways(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.gateway_settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Starts everything, and waits until each is ready.
    ///
    /// # Panics
    /// When something does not come up, with what it said.
    pub fn start(self) -> Cluster {
        let redis = Redis::start();
        let (kafka, mut ways) = if self.behind_proxies {
            let proxies: Vec<_> = (0..self.brokers).map(|_| Proxy::open()).collect();
            let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
            let kafka = Kafka::start_behind(&addresses);
            for (proxy, broker) in proxies.iter().zip(kafka.behind()) {
                proxy.lead_to(*broker);
            }
            let store = || Proxy::to(redis.address());
            let ways =
                Ways { links: Vec::new(), kafka: proxies, gateway_store: store(), bridge_store: store() };
            (kafka, Some(ways))
        } else {
            (Kafka::start(self.brokers), None)
        };
        let bridges: Vec<_> =
            (0..self.bridges).map(|_| self.start_bridge(&kafka, &redis, ways.as_ref())).collect();
        if let Some(ways) = &mut ways {
            ways.links = bridges.iter().map(|bridge| Proxy::to(bridge.address("link"))).collect();
        }
        let gateways =
            (0..self.gateways).map(|_| self.start_gateway(&bridges, &redis, ways.as_ref())).collect();
        Cluster { gateways, bridges, kafka, redis, ways }
    }

    fn start_bridge(&self, kafka: &Kafka, redis: &Redis, ways: Option<&Ways>) -> Role {
        let brokers =
            ways.map_or_else(|| kafka.brokers(), |ways| list(ways.kafka.iter().map(Proxy::address)));
        let store = ways.map_or_else(|| redis.address(), |ways| ways.bridge_store.address());
        let setup = RoleSetup::bridge()
            .argument("--kafka", brokers)
            .argument("--store", format!("redis://{store}"))
            .set("kafka.create_topics", true)
            .set("kafka.partitions", PARTITIONS)
            .set("kafka.replication", self.brokers);
        with(setup, &self.bridge_settings).start()
    }

    fn start_gateway(&self, bridges: &[Role], redis: &Redis, ways: Option<&Ways>) -> Role {
        let store = ways.map_or_else(|| redis.address(), |ways| ways.gateway_store.address());
        let mut setup = RoleSetup::gateway().argument("--store", format!("redis://{store}"));
        let links: Vec<_> = match ways {
            Some(ways) => ways.links.iter().map(Proxy::address).collect(),
            None => bridges.iter().map(|bridge| bridge.address("link")).collect(),
        };
        for link in links {
            setup = setup.argument("--bridge", link);
        }
        with(setup, &self.gateway_settings).start()
    }
}

impl Cluster {
    /// The proxies.
    ///
    /// # Panics
    /// When the cluster has none.
    pub fn ways(&self) -> &Ways {
        self.ways.as_ref().expect("the cluster was started behind proxies")
    }
}

fn with(setup: RoleSetup, settings: &[(String, String)]) -> RoleSetup {
    settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value))
}

fn list(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}
