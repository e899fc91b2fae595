//! The gateway's configuration keys.
//!
//! Two steps: [`GatewayConfig`] is what stands in a file, an environment or a command line, key by key, with its defaults; whoever
//! merges those layers does it outside this crate. [`GatewayConfig::validate`] turns it into [`Settings`], in which nothing can be
//! wrong any more, or names the first key that is. Every key's meaning, unit, range and default stands in its field's comment.

mod drain;
mod error;
mod json;
mod limits;
mod link;
mod listeners;
mod log;
mod mqtt;
mod tcp;

use std::time::Duration;

use holdfast_engine::{EngineConfig, Limits};
use serde::{Deserialize, Serialize};

pub use drain::{DrainConfig, DrainPlan};
pub use error::ConfigError;
pub use json::JsonConfig;
pub use limits::LimitsConfig;
pub use link::{BridgeAddress, LinkConfig, secret_needed};
pub use listeners::{ListenAddresses, ListenersConfig};
pub use log::{LogConfig, LogFormat};
pub use mqtt::MqttConfig;
pub use tcp::{TcpConfig, TcpOptions};

use error::within;

/// All keys of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Threads that hold connections, 0 to 1,024; 0 takes one for each core. Default 0.
    pub shards: u16,
    /// Where devices and operators connect.
    pub listeners: ListenersConfig,
    /// What MQTT lets a server announce.
    pub mqtt: MqttConfig,
    /// Devices without an MQTT library.
    pub json: JsonConfig,
    /// Bounds of our own.
    pub limits: LimitsConfig,
    /// Client sockets.
    pub tcp: TcpConfig,
    /// Towards the bridges.
    pub link: LinkConfig,
    /// How to say goodbye.
    pub drain: DrainConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// A configuration in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that hold connections, at least 1.
    pub shards: u16,
    /// Where to listen.
    pub listen: ListenAddresses,
    /// What each shard's engine keeps to.
    pub engine: EngineConfig,
    /// How client sockets are set up.
    pub tcp: TcpOptions,
    /// What is shown to bridges; empty: none.
    pub link_secret: Vec<u8>,
    /// The bridges that are processes of their own.
    pub bridges: Vec<BridgeAddress>,
    /// How often names of bridges are looked up.
    pub resolve_every: Duration,
    /// How to say goodbye.
    pub drain: DrainPlan,
}

const SHARDS_MAX: u16 = 1_024;

impl GatewayConfig {
    /// Checks every key; the error names the first one that is wrong. Resolves host names of listeners.
    pub fn validate(&self) -> Result<Settings, ConfigError> {
        self.log.check()?;
        let tcp = self.tcp.check()?;
        Ok(Settings {
            shards: match within("shards", self.shards, 0..=SHARDS_MAX)? {
                0 => one_per_core(),
                shards => shards,
            },
            listen: self.listeners.resolve()?,
            engine: EngineConfig {
                mqtt: self.mqtt.check()?,
                json: self.json.check()?,
                // What one turn gives a connection fits into what may wait for it.
                limits: Limits { turn_bytes_max: tcp.unsent_bytes_max, ..self.limits.check()? },
                events: self.link.events,
            },
            tcp,
            link_secret: self.link.secret()?,
            bridges: self.link.bridges()?,
            resolve_every: self.link.resolve_every()?,
            drain: self.drain.check()?,
        })
    }
}

fn one_per_core() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(SHARDS_MAX.into()) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_the_engine_s_own() {
        let settings = GatewayConfig::default().validate().unwrap();
        assert_eq!(settings.engine, EngineConfig::default());
        assert!(settings.shards >= 1);
    }

    #[test]
    fn a_configuration_survives_its_file() {
        let mut config = GatewayConfig { shards: 3, ..GatewayConfig::default() };
        config.listeners.ws = "off".into();
        config.log.format = LogFormat::Json;
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<GatewayConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_file_names_only_what_differs_from_the_defaults() {
        let config: GatewayConfig = toml::from_str("[mqtt]\nmaximum_qos = 1").unwrap();
        assert_eq!(config.mqtt.maximum_qos, 1);
        assert_eq!(config.limits, LimitsConfig::default());
    }

    #[test]
    fn a_misspelt_key_is_refused_not_ignored() {
        let error = toml::from_str::<GatewayConfig>("[mqtt]\nrecieve_maximum = 5").unwrap_err();
        assert!(error.to_string().contains("recieve_maximum"), "{error}");
    }

    #[test]
    fn each_wrong_value_is_named_with_its_key_and_what_is_allowed() {
        let wrong = [
            ("shards = 2000", "shards = 2000: must be between 0 and 1024"),
            ("[mqtt]\nmaximum_qos = 3", "mqtt.maximum_qos = 3: must be 0, 1 or 2"),
            ("[mqtt]\nreceive_maximum = 0", "mqtt.receive_maximum = 0: must be between 1 and 65535"),
            (
                "[limits]\nconnect_timeout_ms = 5",
                "limits.connect_timeout_ms = 5: must be between 100 and 3600000",
            ),
            ("[json]\npush_topic = \"a/#\"", "json.push_topic = a/#: must be a topic name"),
            (
                "[json]\npush_topic = \"devices/{clientid}/x\"",
                "json.push_topic = devices/{clientid}/x: may hold {client_id}, and no other word in braces",
            ),
            ("[tcp]\nunsent_bytes_max = 1", "tcp.unsent_bytes_max = 1: must be between 4096 and 1073741824"),
            ("[log]\nlevel = \"loud=very\"", "log.level = loud=very: must be error, warn"),
        ];
        for (text, expected) in wrong {
            let line = toml::from_str::<GatewayConfig>(text).unwrap().validate().unwrap_err().to_string();
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
