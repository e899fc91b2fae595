//! The options that every command with a configuration takes, as they stand on the command line.

use std::path::PathBuf;

use clap::Args;
use toml::Value;

use super::ConfigError;

/// Each but `--config` and `--set` is a shorter name for one key.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConfigFlags {
    /// Reads configuration keys from a TOML file
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Sets one configuration key, for example mqtt.receive_maximum=64; wins over the options below
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Takes MQTT at HOST:PORT; port 0 takes a free one, "off" none [key: listeners.mqtt]
    #[arg(long, value_name = "ADDR")]
    pub(super) mqtt: Option<String>,
    /// Takes WebSocket at HOST:PORT [key: listeners.ws]
    #[arg(long, value_name = "ADDR")]
    pub(super) ws: Option<String>,
    /// Serves metrics, health, device lookup and pushes at HOST:PORT [key: listeners.admin]
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<String>,
    /// Keeps everything that must survive in DIR [key: data_dir]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Threads that hold connections; 0 for one per core [key: shards]
    #[arg(long, value_name = "N")]
    pub(super) shards: Option<u16>,
    /// Writes the addresses really taken to FILE, once devices are admitted [key: ready_file]
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
}

impl ConfigFlags {
    /// The shorter names that were given: option, key, value.
    pub(super) fn shorthands(&self) -> Result<Vec<(&'static str, &'static str, Value)>, ConfigError> {
        let text = |value: &String| Ok(Value::from(value.as_str()));
        let path = |flag: &str, value: &PathBuf| match value.to_str() {
            Some(text) => Ok(Value::from(text)),
            None => Err(ConfigError::NotUtf8(flag.to_owned())),
        };
        let given = [
            ("--mqtt", "listeners.mqtt", self.mqtt.as_ref().map(text)),
            ("--ws", "listeners.ws", self.ws.as_ref().map(text)),
            ("--admin", "listeners.admin", self.admin.as_ref().map(text)),
            ("--data-dir", "data_dir", self.data_dir.as_ref().map(|value| path("--data-dir", value))),
            ("--shards", "shards", self.shards.map(|value| Ok(Value::from(i64::from(value))))),
            ("--ready-file", "ready_file", self.ready_file.as_ref().map(|value| path("--ready-file", value))),
        ];
        given
            .into_iter()
            .filter_map(|(flag, key, value)| Some(value?.map(|value| (flag, key, value))))
            .collect()
    }
}
