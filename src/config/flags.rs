//! The options that every command with a configuration takes, as they stand on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// What a role's command line says about its configuration.
pub(crate) trait Flags {
    /// The file, and single keys.
    fn layers(&self) -> &LayerFlags;

    /// The shorter names that were given.
    fn shorthands(&self) -> Vec<Shorthand>;
}

/// An option that is a shorter name for a key; its value is read as that key's.
#[derive(Clone, Debug)]
pub(crate) struct Shorthand {
    pub(super) option: &'static str,
    pub(super) key: &'static str,
    pub(super) value: OsString,
}

/// The options of every role.
#[expect(clippy::doc_markdown, reason = "the command line's help prints these comments as they stand")]
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LayerFlags {
    /// Reads configuration keys from a TOML file
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Sets one configuration key, for example mqtt.receive_maximum=64; wins over the options below
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl Flags for LayerFlags {
    fn layers(&self) -> &LayerFlags {
        self
    }

    fn shorthands(&self) -> Vec<Shorthand> {
        Vec::new()
    }
}

/// Those of `holdfast dev`. Each but `--config` and `--set` is a shorter name for one key.
#[expect(clippy::doc_markdown, reason = "the command line's help prints these comments as they stand")]
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DevFlags {
    #[command(flatten)]
    layers: LayerFlags,
    /// Takes MQTT at HOST:PORT; port 0 takes a free one, "off" none [key: listeners.mqtt]
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<OsString>,
    /// Takes WebSocket at HOST:PORT [key: listeners.ws]
    #[arg(long, value_name = "ADDR")]
    ws: Option<OsString>,
    /// Serves metrics, health, device lookup and pushes at HOST:PORT [key: listeners.admin]
    #[arg(long, value_name = "ADDR")]
    admin: Option<OsString>,
    /// Keeps everything that must survive in DIR [key: data_dir]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Threads that hold connections; 0 for one per core [key: shards]
    #[arg(long, value_name = "N")]
    shards: Option<OsString>,
    /// Writes the addresses really taken to FILE, once devices are admitted [key: ready_file]
    #[arg(long, value_name = "FILE")]
    ready_file: Option<OsString>,
}

impl Flags for DevFlags {
    fn layers(&self) -> &LayerFlags {
        &self.layers
    }

    fn shorthands(&self) -> Vec<Shorthand> {
        given([
            ("--mqtt", "listeners.mqtt", &self.mqtt),
            ("--ws", "listeners.ws", &self.ws),
            ("--admin", "listeners.admin", &self.admin),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--shards", "shards", &self.shards),
            ("--ready-file", "ready_file", &self.ready_file),
        ])
    }
}

/// Those of `holdfast gateway`.
#[expect(clippy::doc_markdown, reason = "the command line's help prints these comments as they stand")]
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GatewayFlags {
    #[command(flatten)]
    layers: LayerFlags,
    /// Takes MQTT at HOST:PORT; port 0 takes a free one, "off" none [key: listeners.mqtt]
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<OsString>,
    /// Takes WebSocket at HOST:PORT [key: listeners.ws]
    #[arg(long, value_name = "ADDR")]
    ws: Option<OsString>,
    /// Serves metrics, health and device lookup at HOST:PORT [key: listeners.admin]
    #[arg(long, value_name = "ADDR")]
    admin: Option<OsString>,
    /// Sends frames to the bridge at HOST:PORT; may be given several times, and a name may stand for several [key: link.bridges]
    #[arg(long, value_name = "HOST:PORT")]
    bridge: Vec<String>,
    /// Keeps sessions in this store, the same as the bridges' [key: store.url]
    #[arg(long, value_name = "URL")]
    store: Option<OsString>,
    /// Threads that hold connections; 0 for one per core [key: shards]
    #[arg(long, value_name = "N")]
    shards: Option<OsString>,
    /// Writes the addresses really taken to FILE, once devices are admitted [key: ready_file]
    #[arg(long, value_name = "FILE")]
    ready_file: Option<OsString>,
}

impl Flags for GatewayFlags {
    fn layers(&self) -> &LayerFlags {
        &self.layers
    }

    fn shorthands(&self) -> Vec<Shorthand> {
        let mut all = given([
            ("--mqtt", "listeners.mqtt", &self.mqtt),
            ("--ws", "listeners.ws", &self.ws),
            ("--admin", "listeners.admin", &self.admin),
            ("--store", "store.url", &self.store),
            ("--shards", "shards", &self.shards),
            ("--ready-file", "ready_file", &self.ready_file),
        ]);
        if !self.bridge.is_empty() {
            let value = toml::Value::from(self.bridge.clone()).to_string().into();
            all.push(Shorthand { option: "--bridge", key: "link.bridges", value });
        }
        all
    }
}

/// Those of `holdfast bridge`.
#[expect(clippy::doc_markdown, reason = "the command line's help prints these comments as they stand")]
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BridgeFlags {
    #[command(flatten)]
    layers: LayerFlags,
    /// Takes links of gateways at HOST:PORT; port 0 takes a free one [key: bridge.listen]
    #[arg(long, value_name = "ADDR")]
    link: Option<OsString>,
    /// Serves metrics and health at HOST:PORT [key: bridge.admin]
    #[arg(long, value_name = "ADDR")]
    admin: Option<OsString>,
    /// Takes pushes at HOST:PORT instead of the admin address [key: push.listen]
    #[arg(long, value_name = "ADDR")]
    push: Option<OsString>,
    /// Sends frames to Kafka through these brokers, HOST:PORT,... [key: kafka.brokers]
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<OsString>,
    /// Puts frames elsewhere than to Kafka: "log" is the log in the data directory [key: sink.kind]
    #[arg(long, value_name = "KIND")]
    sink: Option<OsString>,
    /// Keeps sessions in this store, the same as the gateways' [key: store.url]
    #[arg(long, value_name = "URL")]
    store: Option<OsString>,
    /// Keeps everything that must survive in DIR [key: data_dir]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Writes the addresses really taken to FILE, once links are taken [key: ready_file]
    #[arg(long, value_name = "FILE")]
    ready_file: Option<OsString>,
}

impl Flags for BridgeFlags {
    fn layers(&self) -> &LayerFlags {
        &self.layers
    }

    fn shorthands(&self) -> Vec<Shorthand> {
        given([
            ("--link", "bridge.listen", &self.link),
            ("--admin", "bridge.admin", &self.admin),
            ("--push", "push.listen", &self.push),
            ("--kafka", "kafka.brokers", &self.kafka),
            ("--sink", "sink.kind", &self.sink),
            ("--store", "store.url", &self.store),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--ready-file", "ready_file", &self.ready_file),
        ])
    }
}

fn given<const N: usize>(options: [(&'static str, &'static str, &Option<OsString>); N]) -> Vec<Shorthand> {
    let given = |(option, key, value): (_, _, &Option<OsString>)| {
        Some(Shorthand { option, key, value: value.clone()? })
    };
    options.into_iter().filter_map(given).collect()
}
