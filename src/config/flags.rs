//! The options that every command with a configuration takes, as they stand on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::Args;

/// Each but `--config` and `--set` is a shorter name for one key, and its value is read as that key's.
#[expect(clippy::doc_markdown, reason = "the command line's help prints these comments as they stand")]
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
    pub(super) mqtt: Option<OsString>,
    /// Takes WebSocket at HOST:PORT [key: listeners.ws]
    #[arg(long, value_name = "ADDR")]
    pub(super) ws: Option<OsString>,
    /// Serves metrics, health, device lookup and pushes at HOST:PORT [key: listeners.admin]
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<OsString>,
    /// Keeps everything that must survive in DIR [key: data_dir]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<OsString>,
    /// Threads that hold connections; 0 for one per core [key: shards]
    #[arg(long, value_name = "N")]
    pub(super) shards: Option<OsString>,
    /// Writes the addresses really taken to FILE, once devices are admitted [key: ready_file]
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<OsString>,
}

impl ConfigFlags {
    /// The shorter names that were given: option, key, value.
    pub(super) fn shorthands(&self) -> impl Iterator<Item = (&'static str, &'static str, &OsStr)> {
        [
            ("--mqtt", "listeners.mqtt", &self.mqtt),
            ("--ws", "listeners.ws", &self.ws),
            ("--admin", "listeners.admin", &self.admin),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--shards", "shards", &self.shards),
            ("--ready-file", "ready_file", &self.ready_file),
        ]
        .into_iter()
        .filter_map(|(option, key, value)| Some((option, key, value.as_deref()?)))
    }
}
