//! Holdfast as processes of their own, with the Redis and Kafka that they need: started for one measurement, ended with it.
//!
//! The load tool knows them from outside only: command line, ready file, sockets, process ids. Start with [`ClusterPlan::start`].

mod role;
mod services;

use std::path::{Path, PathBuf};

pub use self::role::Role;
pub use self::services::{Kafka, Redis};

/// Partitions of the topic, where Kafka is the sink.
pub const PARTITIONS: u32 = 12;

/// What is to be started.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// Holdfast's binary.
    pub program: PathBuf,
    /// The folder of `kafka.sh` (`e2e/services` of the sources).
    pub services: PathBuf,
    /// Gateways; each knows every bridge.
    pub gateways: usize,
    /// Bridges; each has a data directory of its own.
    pub bridges: usize,
    /// Where bridges put frames.
    pub sink: SinkPlan,
    /// `redis://…` of one that runs; none: one is started.
    pub redis: Option<String>,
    /// `KEY=VALUE` of each gateway's configuration.
    pub gateway_settings: Vec<String>,
    /// ... of each bridge's.
    pub bridge_settings: Vec<String>,
}

/// Where frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkPlan {
    /// A log in each bridge's data directory, fsynced.
    Log,
    /// Kafka.
    Kafka {
        /// `HOST:PORT,…` of brokers that run; none: one is started.
        brokers: Option<String>,
    },
}

/// Why something does not run.
#[derive(Debug, thiserror::Error)]
#[error("{name} did not start: {why}")]
pub struct StartError {
    name: String,
    why: String,
}

/// Everything that was started. It ends with this value: who is served before who serves.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of their start.
    pub gateways: Vec<Role>,
    /// In the order of their start.
    pub bridges: Vec<Role>,
    /// Kafka, if it is the sink.
    pub kafka: Option<Kafka>,
    /// The session store.
    pub redis: Redis,
    program: PathBuf,
}

impl ClusterPlan {
    /// Starts everything and waits until each is ready. Blocks; call it from the main thread, since Redis ends with the thread that started it.
    pub fn start(&self) -> Result<Cluster, StartError> {
        let redis = match &self.redis {
            Some(url) => Redis::given(url),
            None => Redis::start()?,
        };
        let kafka = match &self.sink {
            SinkPlan::Log => None,
            SinkPlan::Kafka { brokers: Some(brokers) } => Some(Kafka::given(brokers)),
            SinkPlan::Kafka { brokers: None } => Some(Kafka::start(&self.services)?),
        };
        let bridges = (0..self.bridges)
            .map(|_| self.start_bridge(kafka.as_ref(), &redis))
            .collect::<Result<Vec<_>, _>>()?;
        let gateways =
            (0..self.gateways).map(|_| self.start_gateway(&bridges, &redis)).collect::<Result<_, _>>()?;
        Ok(Cluster { gateways, bridges, kafka, redis, program: self.program.clone() })
    }

    fn start_bridge(&self, kafka: Option<&Kafka>, redis: &Redis) -> Result<Role, StartError> {
        let mut arguments = vec!["--link", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--push", "127.0.0.1:0"];
        arguments.extend(["--store", redis.url()]);
        match kafka {
            Some(kafka) => arguments.extend(["--kafka", kafka.brokers()]),
            None => arguments.extend(["--sink", "log"]),
        }
        let partitions = format!("kafka.partitions={PARTITIONS}");
        let made = ["kafka.create_topics=true", &partitions];
        let made = made.into_iter().filter(|_| kafka.is_some());
        let settings = made.chain(self.bridge_settings.iter().map(String::as_str));
        arguments.extend(settings.flat_map(|setting| ["--set", setting]));
        Role::start(&self.program, "bridge", &arguments)
    }

    fn start_gateway(&self, bridges: &[Role], redis: &Redis) -> Result<Role, StartError> {
        let mut arguments = vec!["--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        arguments.extend(["--store", redis.url()]);
        let links: Vec<String> =
            bridges.iter().filter_map(Role::link).map(|address| address.to_string()).collect();
        arguments.extend(links.iter().flat_map(|link| ["--bridge", link.as_str()]));
        arguments.extend(self.gateway_settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
        Role::start(&self.program, "gateway", &arguments)
    }
}

impl Cluster {
    /// Holdfast's binary.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl StartError {
    fn new(name: &str, why: impl std::fmt::Display) -> Self {
        Self { name: name.to_owned(), why: why.to_string() }
    }
}
