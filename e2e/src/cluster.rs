//! Gateways and bridges as processes of their own, with a real Kafka and Redis, for one test.
//!
//! ```text
//!   devices ──devices──> gateways ──links──> bridges ──kafka──> Kafka
//!                            └── gateway_store ──> Redis <── bridge_store ──┘
//! ```
//!
//! In a cluster [behind proxies](ClusterSetup::behind_proxies) each of the ways between processes leads through [`Proxy`]s, so that a test makes its
//! weather; that of devices if it is [asked for](ClusterSetup::devices_behind_proxies).

use std::net::{IpAddr, SocketAddr};

use crate::ports::free_address;
use crate::{Kafka, Names, Proxy, Redis, RedisForm, Role, RoleSetup, Weather};

/// Partitions of the topic of frames.
const PARTITIONS: u32 = 6;

/// What a cluster is to consist of.
#[derive(Debug, Clone)]
pub struct ClusterSetup {
    gateways: usize,
    bridges: usize,
    brokers: usize,
    replication: Option<usize>,
    redis: RedisForm,
    behind_proxies: bool,
    devices_behind_proxies: bool,
    by_name: bool,
    any_services: bool,
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
    setup: ClusterSetup,
    name: Option<SharedName>,
}

/// What all bridges are known by, each at an address of its own with the same port.
#[derive(Debug)]
struct SharedName {
    names: Names,
    port: u16,
}

/// It ends in what is set aside for tests.
const NAME: &str = "bridges.test";
/// What a name that may lead beyond this machine needs.
const SECRET: &str = "in this cluster alone";

/// The proxies of a cluster.
#[derive(Debug)]
pub struct Ways {
    /// From devices to each gateway, if that was asked for.
    pub devices: Vec<DeviceWay>,
    /// From all gateways to each bridge.
    pub links: Vec<Proxy>,
    /// From all bridges to each broker.
    pub kafka: Vec<Proxy>,
    /// From all gateways to Redis.
    pub gateway_store: Proxy,
    /// From all bridges to Redis.
    pub bridge_store: Proxy,
}

/// From all devices to one gateway.
#[derive(Debug)]
pub struct DeviceWay {
    /// To its port for MQTT.
    pub mqtt: Proxy,
    /// To its port for WebSocket.
    pub ws: Proxy,
}

impl DeviceWay {
    /// In front of this gateway.
    ///
    /// # Panics
    /// As [`Proxy::open`], or when it is no gateway.
    pub fn to(gateway: &Role) -> Self {
        Self { mqtt: Proxy::to(gateway.address("mqtt")), ws: Proxy::to(gateway.address("ws")) }
    }

    /// Changes the weather of both.
    pub fn set(&self, weather: Weather) {
        self.mqtt.set(weather);
        self.ws.set(weather);
    }

    /// Cuts every connection once.
    pub fn cut(&self) {
        self.mqtt.cut();
        self.ws.cut();
    }
}

impl Default for ClusterSetup {
    fn default() -> Self {
        Self {
            gateways: 1,
            bridges: 1,
            brokers: 1,
            replication: None,
            redis: RedisForm::Alone,
            behind_proxies: false,
            devices_behind_proxies: false,
            by_name: false,
            any_services: false,
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

    /// Another Redis than one server. Behind proxies it must be that one.
    #[must_use]
    pub fn redis(self, redis: RedisForm) -> Self {
        Self { redis, ..self }
    }

    /// So many replicas of each topic that a bridge makes, in place of one for each broker: with one, a broker that dies takes partitions along.
    #[must_use]
    pub fn replication(self, replicas: usize) -> Self {
        Self { replication: Some(replicas), ..self }
    }

    /// The Kafka and the Redis that `KAFKA_BROKERS` and `REDIS_URL` name, where they name some: for tests that neither kill nor stop them, have names
    /// that nobody else has, and count nothing of others. Not behind proxies.
    #[must_use]
    pub fn any_services(self) -> Self {
        Self { any_services: true, ..self }
    }

    /// Proxies in all ways between processes.
    #[must_use]
    pub fn behind_proxies(self) -> Self {
        Self { behind_proxies: true, ..self }
    }

    /// Proxies in all ways, from devices to gateways too. They have several threads for each device: for dozens of these.
    #[must_use]
    pub fn devices_behind_proxies(self) -> Self {
        Self { behind_proxies: true, devices_behind_proxies: true, ..self }
    }

    /// Gateways find the bridges by one name, to which more can [come](Cluster::join). Not behind proxies.
    #[must_use]
    pub fn by_name(self) -> Self {
        Self { by_name: true, ..self }
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
        let redis = if self.any_services { Redis::any() } else { Redis::start_as(self.redis) };
        let (kafka, mut ways) = if self.behind_proxies {
            let proxies: Vec<_> = (0..self.brokers).map(|_| Proxy::open()).collect();
            let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
            let kafka = Kafka::start_behind(&addresses);
            for (proxy, broker) in proxies.iter().zip(kafka.behind()) {
                proxy.lead_to(*broker);
            }
            let store = || Proxy::to(redis.address());
            let ways = Ways {
                devices: Vec::new(),
                links: Vec::new(),
                kafka: proxies,
                gateway_store: store(),
                bridge_store: store(),
            };
            (kafka, Some(ways))
        } else if self.any_services && self.brokers == 1 {
            (Kafka::any(), None)
        } else {
            (Kafka::start(self.brokers), None)
        };
        let name = self.by_name.then(SharedName::new);
        let bridges: Vec<_> = (0..self.bridges)
            .map(|index| self.start_bridge(index, &kafka, &redis, ways.as_ref(), name.as_ref()))
            .collect();
        if let Some(ways) = &mut ways {
            ways.links = bridges.iter().map(|bridge| Proxy::to(bridge.address("link"))).collect();
        }
        let gateways: Vec<_> = (0..self.gateways)
            .map(|_| self.start_gateway(&bridges, &redis, ways.as_ref(), name.as_ref()))
            .collect();
        if let Some(ways) = ways.as_mut().filter(|_| self.devices_behind_proxies) {
            ways.devices = gateways.iter().map(DeviceWay::to).collect();
        }
        Cluster { gateways, bridges, kafka, redis, ways, setup: self, name }
    }

    fn start_bridge(
        &self,
        index: usize,
        kafka: &Kafka,
        redis: &Redis,
        ways: Option<&Ways>,
        name: Option<&SharedName>,
    ) -> Role {
        let brokers =
            ways.map_or_else(|| kafka.brokers(), |ways| list(ways.kafka.iter().map(Proxy::address)));
        let store = ways.map_or_else(|| redis.url(), |ways| url(&ways.bridge_store));
        let mut setup = RoleSetup::bridge();
        if let Some(name) = name {
            setup = setup.listen("link", name.address(index)).environment("HOLDFAST_LINK_SECRET", SECRET);
        }
        let setup = setup
            .argument("--kafka", brokers)
            .argument("--store", store)
            .set("kafka.create_topics", true)
            .set("kafka.partitions", PARTITIONS)
            .set("kafka.replication", self.replication.unwrap_or(self.brokers));
        with(setup, &self.bridge_settings).start()
    }

    fn start_gateway(
        &self,
        bridges: &[Role],
        redis: &Redis,
        ways: Option<&Ways>,
        name: Option<&SharedName>,
    ) -> Role {
        let store = ways.map_or_else(|| redis.url(), |ways| url(&ways.gateway_store));
        let mut setup = RoleSetup::gateway().argument("--store", store);
        if let Some(SharedName { names, port }) = name {
            names.set(NAME, &addresses(bridges));
            setup = setup.names(names).environment("HOLDFAST_LINK_SECRET", SECRET);
            setup = setup.argument("--bridge", format!("{NAME}:{port}")).set("link.resolve_every_s", 1);
            return with(setup, &self.gateway_settings).start();
        }
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

impl SharedName {
    /// # Panics
    /// Where names cannot be given.
    fn new() -> Self {
        Self {
            names: Names::new().unwrap_or_else(|missing| panic!("{missing}")),
            port: free_address().port(),
        }
    }

    /// Loopback is a whole network.
    fn address(&self, index: usize) -> SocketAddr {
        let last = u8::try_from(index + 1).expect("few bridges");
        SocketAddr::from(([127, 0, 0, last], self.port))
    }
}

impl Cluster {
    /// Starts one more bridge, and gives it the name of the others.
    ///
    /// # Panics
    /// When it does not come up, or bridges of this cluster have no name.
    pub fn join(&mut self) {
        let name = self.name.as_ref().expect("the cluster's bridges have a name");
        let index = self.bridges.len();
        let (kafka, redis, ways) = (&self.kafka, &self.redis, self.ways.as_ref());
        self.bridges.push(self.setup.start_bridge(index, kafka, redis, ways, Some(name)));
        name.names.set(NAME, &addresses(&self.bridges));
    }

    /// Takes a bridge's address from the name, and does nothing else to it.
    ///
    /// # Panics
    /// When bridges of this cluster have no name.
    pub fn forget(&self, bridge: usize) {
        let name = self.name.as_ref().expect("the cluster's bridges have a name");
        let mut addresses = addresses(&self.bridges);
        addresses.remove(bridge);
        name.names.set(NAME, &addresses);
    }

    /// Where devices reach a gateway over MQTT and over WebSocket.
    ///
    /// # Panics
    /// When there is no such gateway.
    pub fn doors(&self, gateway: usize) -> [SocketAddr; 2] {
        match self.ways.as_ref().and_then(|ways| ways.devices.get(gateway)) {
            Some(way) => [way.mqtt.address(), way.ws.address()],
            None => ["mqtt", "ws"].map(|door| self.gateways[gateway].address(door)),
        }
    }

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

fn addresses(bridges: &[Role]) -> Vec<IpAddr> {
    bridges.iter().map(|bridge| bridge.address("link").ip()).collect()
}

/// Of the one Redis behind it.
fn url(proxy: &Proxy) -> String {
    format!("redis://{}", proxy.address())
}

fn list(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}
