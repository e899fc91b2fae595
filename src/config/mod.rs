//! Every configuration key of the process, from its four sources to working objects.
//!
//! [`load`] merges defaults, file, environment and command line key by key and remembers where each value came from; [`Config`] is
//! the result; [`Config::validate`] turns it into [`Settings`], in which nothing can be wrong any more. Nothing is opened
//! before that. The gateway's keys belong to the gateway; those of the bridge, its log and the store stand here.
//!
//! Start with [`load`], then `layers.rs`.

mod bridge;
mod error;
mod flags;
mod kafka;
mod keys;
mod layers;
mod print;
mod pushes;
mod role;
mod store;
mod values;

use std::path::PathBuf;

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::config::{DedupeConfig, EventsConfig, PushConfig, PushTopicConfig};
use holdfast_bridge::kafka::KafkaConfig;
use holdfast_bridge::log::LogConfig;
use holdfast_bridge::spool::OutageConfig;
use holdfast_gateway::config::{GatewayConfig, ListenersConfig, Settings as GatewaySettings};
use holdfast_store::Options as StoreOptions;
use serde::{Deserialize, Serialize};

pub(crate) use bridge::{BridgeListen, SinkKind};
pub(crate) use error::ConfigError;
#[cfg(test)]
pub(crate) use flags::LayerFlags;
pub(crate) use flags::{BridgeFlags, DevFlags, Flags, GatewayFlags};
pub(crate) use layers::{Loaded, changed, load};
pub(crate) use role::Role;
pub(crate) use values::without_password;

use bridge::{BridgeKeys, DedupeKeys, PushKeys, SinkKeys, TopicRuleKeys};
use kafka::{KafkaKeys, SpoolKeys, check_outage};
use pushes::{EventsKeys, PushesKeys};
use store::StoreKeys;

/// All keys of all roles; each role passes over those that are not for it. Unknown keys are refused by [`load`], not here: a flattened struct cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Directory of everything that must survive a restart: `log/` holds the frames, `store/` the sessions. Made if it
    /// is not there. Default `holdfast-data`, below the working directory.
    pub(crate) data_dir: PathBuf,
    /// File that gets the addresses really taken, as JSON, once devices are admitted. Default empty: none.
    pub(crate) ready_file: PathBuf,
    /// What becomes of frames while Kafka is away: `spool` keeps them in `data_dir` until it is back, `hold` holds devices back. Default
    /// `spool`.
    pub(crate) on_outage: String,
    /// Kafka is away when it has stored nothing for so long although something is owed, in ms. 100 to 3,600,000. Default 2,000.
    pub(crate) outage_after_ms: u32,
    /// The gateway's keys.
    #[serde(flatten)]
    pub(crate) gateway: GatewayConfig,
    /// The local log.
    pub(crate) sink: SinkKeys,
    /// Kafka, where a bridge sends frames.
    pub(crate) kafka: KafkaKeys,
    /// The spool of an outage.
    pub(crate) spool: SpoolKeys,
    /// Which frames go where; the first rule that matches decides, and what none matches goes to the sink's own place: the log, or
    /// `kafka.topic`. Default: none.
    pub(crate) topic_map: Vec<TopicRuleKeys>,
    /// The bridge.
    pub(crate) bridge: BridgeKeys,
    /// What the bridge remembers to recognise frames that are sent again.
    pub(crate) dedupe: DedupeKeys,
    /// Pushes.
    pub(crate) push: PushKeys,
    /// Pushes that come by Kafka, and receipts.
    pub(crate) pushes: PushesKeys,
    /// The book of events.
    pub(crate) events: EventsKeys,
    /// The session store.
    pub(crate) store: StoreKeys,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "holdfast-data".into(),
            ready_file: PathBuf::new(),
            on_outage: "spool".into(),
            outage_after_ms: 2_000,
            gateway: GatewayConfig::default(),
            sink: SinkKeys::default(),
            kafka: KafkaKeys::default(),
            spool: SpoolKeys::default(),
            topic_map: Vec::new(),
            bridge: BridgeKeys::default(),
            dedupe: DedupeKeys::default(),
            push: PushKeys::default(),
            pushes: PushesKeys::default(),
            events: EventsKeys::default(),
            store: StoreKeys::default(),
        }
    }
}

/// A configuration in which nothing is wrong, sorted by who needs it.
pub(crate) struct Settings {
    /// Directory of everything that must survive.
    pub(crate) data_dir: PathBuf,
    /// Where the ready file goes.
    pub(crate) ready_file: Option<PathBuf>,
    /// What is logged, and how.
    pub(crate) log: holdfast_gateway::config::LogConfig,
    /// For the node.
    pub(crate) gateway: GatewaySettings,
    /// Where frames go.
    pub(crate) sink_kind: SinkKind,
    /// For the local log.
    pub(crate) sink: LogConfig,
    /// For Kafka.
    pub(crate) kafka: KafkaConfig,
    /// For the outages of Kafka.
    pub(crate) outage: OutageConfig,
    /// Where a bridge of its own listens.
    pub(crate) bridge_listen: BridgeListen,
    /// For the bridge.
    pub(crate) bridge: BridgeConfig,
    /// For the bridge's pushes by Kafka, and receipts.
    pub(crate) pushes: PushTopicConfig,
    /// For the bridge's book of events.
    pub(crate) events: EventsConfig,
    /// Which session store; none: the one in the data directory.
    pub(crate) store_url: Option<String>,
    /// For the session store.
    pub(crate) store: StoreOptions,
}

impl Config {
    /// Checks every key but the listeners of other roles, and what `role` asks of them; the error names the first one that is wrong. Opens nothing
    /// but resolves host names of its listeners.
    pub(crate) fn validate(mut self, role: Role) -> Result<Settings, holdfast_gateway::config::ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(values::refuse("data_dir", "\"\"", "must name a directory"));
        }
        if role == Role::Bridge {
            self.gateway.listeners = ListenersConfig::default();
        } else {
            let BridgeKeys { listen, admin, .. } = BridgeKeys::default();
            (self.bridge.listen, self.bridge.admin) = (listen, admin);
            self.push.listen.clear();
        }
        let gateway = self.gateway.validate()?;
        let has_secret = !gateway.link_secret.is_empty();
        if role == Role::Gateway {
            role::check_bridges(&gateway.bridges, &self.gateway.link.bridges, has_secret)?;
        }
        let bridge_listen = self.bridge.listen(&self.push, has_secret)?;
        let dedupe: DedupeConfig = self.dedupe.check()?;
        let store = self.store.check()?;
        let push: PushConfig = self.push.check(&store.bounds)?;
        let sink_kind = self.sink.kind(role, &self.kafka.brokers)?;
        let topic_map = bridge::check_topic_map(&self.topic_map, role, sink_kind)?;
        let (pushes, events) = (self.pushes.check()?, self.events.check()?);
        let kafka = self.kafka.check(topic_map.clone())?;
        if role == Role::Bridge {
            let beside = pushes::needs_brokers(&pushes, &push, &events);
            kafka::check_as_a_bridge(&kafka, sink_kind, beside)?;
        }
        Ok(Settings {
            kafka,
            outage: check_outage(&self.on_outage, self.outage_after_ms, &self.spool, &self.data_dir)?,
            data_dir: self.data_dir,
            ready_file: Some(self.ready_file).filter(|file| !file.as_os_str().is_empty()),
            log: self.gateway.log,
            sink_kind,
            sink: self.sink.check()?,
            bridge_listen,
            bridge: self.bridge.check(gateway.link_secret.clone(), topic_map, dedupe, push)?,
            pushes,
            events,
            store_url: self.store.url(role)?,
            store,
            gateway,
        })
    }
}

/// Every key with its default, as it stands in TOML.
#[cfg(test)]
pub(crate) fn default_values() -> Vec<(String, String)> {
    keys::defaults().into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_the_parts_own() {
        let settings = Config::default().validate(Role::Dev).unwrap();
        assert_eq!(settings.sink, LogConfig::default());
        assert_eq!(settings.bridge.push, PushConfig::default());
        assert_eq!(settings.bridge.dedupe, DedupeConfig::default());
        assert_eq!(settings.bridge.window_bytes, BridgeConfig::default().window_bytes);
        assert_eq!(settings.store.bounds, holdfast_store::Bounds::default());
        assert_eq!(settings.ready_file, None);
    }
}
