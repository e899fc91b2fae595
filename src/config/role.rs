//! What a process is, and what only that asks of the configuration.

use clap::ValueEnum;
use holdfast_gateway::config::{BridgeAddress, ConfigError, secret_needed};

use super::values::refuse;

/// One for each command that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Gateway and bridge in one process.
    #[default]
    Dev,
    /// Holds devices' connections.
    Gateway,
    /// Takes frames to where they rest, and pushes to devices.
    Bridge,
}

impl Role {
    /// Whether a process of this role asks for the key at all; one file may serve several.
    pub(crate) fn heeds(self, key: &str) -> bool {
        const GATEWAY: [&str; 6] = ["listeners", "mqtt", "json", "limits", "tcp", "shards"];
        const BRIDGE: [&str; 7] = ["sink", "dedupe", "push", "topic_map", "data_dir", "bridge", "pushes"];
        const BRIDGE_OF_ITS_OWN: [&str; 5] = ["kafka", "spool", "on_outage", "outage_after_ms", "events"];
        let table = key.split('.').next().unwrap_or(key);
        match self {
            Self::Gateway => !BRIDGE.contains(&table) && !BRIDGE_OF_ITS_OWN.contains(&table),
            Self::Bridge => !GATEWAY.contains(&table),
            Self::Dev => !BRIDGE_OF_ITS_OWN.contains(&table) && table != "pushes",
        }
    }

    /// Whether it goes on with another value of the key when it is told to read its configuration again.
    pub(crate) fn takes_up(self, key: &str) -> bool {
        let table = key.split('.').next().unwrap_or(key);
        self != Self::Bridge && ["mqtt", "json", "limits"].contains(&table)
    }
}

/// A gateway has bridges, and reaches them safely. `given` is how they were written.
pub(super) fn check_bridges(
    bridges: &[BridgeAddress],
    given: &[String],
    has_secret: bool,
) -> Result<(), ConfigError> {
    if bridges.is_empty() {
        return Err(refuse("link.bridges", "[]", "must name at least one bridge (--bridge HOST:PORT)"));
    }
    let beyond = bridges.iter().zip(given).find(|(bridge, _)| !has_secret && !bridge.is_loopback());
    beyond.map_or(Ok(()), |(_, given)| Err(secret_needed("link.bridges", given)))
}

#[cfg(test)]
mod tests {
    use crate::config::{LayerFlags, Role, load};

    fn refusal(role: Role, pairs: &[&str]) -> Option<String> {
        let flags =
            LayerFlags { set: pairs.iter().map(|&pair| pair.to_owned()).collect(), ..LayerFlags::default() };
        load(&flags, []).unwrap().validate(role).err().map(|error| error.to_string())
    }

    #[test]
    fn a_gateway_needs_a_bridge_and_a_secret_for_one_elsewhere() {
        let store = "store.url=redis://127.0.0.1";
        let line = refusal(Role::Gateway, &[store]).unwrap();
        assert_eq!(line, "link.bridges = []: must name at least one bridge (--bridge HOST:PORT)");
        let line = refusal(Role::Gateway, &[store, "link.bridges=['10.0.0.1:7883']"]).unwrap();
        assert!(line.starts_with("link.bridges = 10.0.0.1:7883: must be on this machine"), "{line}");
        assert!(line.ends_with("(from --set)"), "{line}");
        let elsewhere = [store, "link.bridges=['10.0.0.1:7883']", "link.secret=s"];
        assert_eq!(refusal(Role::Gateway, &elsewhere), None);
        assert_eq!(refusal(Role::Gateway, &[store, "link.bridges=['localhost:7883']"]), None);
    }

    #[test]
    fn a_role_resolves_no_listeners_but_its_own() {
        let (theirs, ours) =
            ("listeners.mqtt=no-such-host.invalid:1883", "bridge.listen=no-such-host.invalid:7883");
        let bridge = ["store.url=redis://127.0.0.1", "sink.kind=log"];
        assert_eq!(refusal(Role::Bridge, &[bridge[0], bridge[1], theirs]), None);
        assert!(
            refusal(Role::Bridge, &[bridge[0], bridge[1], ours]).unwrap().starts_with("bridge.listen = ")
        );
        assert_eq!(refusal(Role::Dev, &[ours, "push.listen=no-such-host.invalid:1"]), None);
        assert!(refusal(Role::Dev, &[theirs]).unwrap().starts_with("listeners.mqtt = "));
    }

    #[test]
    fn what_a_bridge_would_refuse_by_its_keys_alone_is_found_without_a_server() {
        let line = |pairs: &[&str]| {
            let bridge = ["store.url=redis://127.0.0.1", "kafka.brokers=127.0.0.1:9092"];
            refusal(Role::Bridge, &[&bridge[..], pairs].concat()).unwrap_or_default()
        };
        assert_eq!(line(&[]), "");
        for (pair, expected) in [
            ("kafka.settings.acks=1", "kafka.settings.acks = \"1\": cannot be set: a frame is acknowledged"),
            ("kafka.settings.nonsense=1", "kafka.settings.nonsense = \"1\": "),
            ("kafka.settings.ssl.ca.location=/nowhere/ca.pem", ""),
            ("kafka.brokers=foo bar", "kafka.brokers = foo bar: must be HOST:PORT"),
            ("kafka.topic=a/b", "kafka.topic = a/b: must be the name of a Kafka topic"),
            ("events.topic=a b", "events.topic = a b: must be the name of a Kafka topic"),
            ("pushes.topic=a b", "pushes.topic = a b: must be the name of a Kafka topic"),
            (
                "topic_map=[{ filter = 'a/#', sink = 'kafka:x.{9}' }]",
                "topic_map.sink = kafka:x.{9}: {9} may be",
            ),
            ("topic_map=[{ filter = 'a', sink = 'log' }]", "topic_map.sink = log: frames go to Kafka here"),
        ] {
            let line = line(&[pair]);
            assert!(line.starts_with(expected), "{line}");
            assert!(expected.is_empty() || line.ends_with("(from --set)"), "{line}");
        }
        let tls = ["kafka.settings.security.protocol=ssl", "kafka.settings.ssl.ca.location=/nowhere/ca.pem"];
        assert!(line(&tls).starts_with("kafka.settings = {…}: "), "{}", line(&tls));
        let line = line(&["kafka.settings.sasl.password=hunter2", "kafka.settings.sasl.mechanism=hunter"]);
        assert!(!line.contains("hunter2"), "{line}");
        let log = ["store.url=redis://127.0.0.1", "sink.kind=log", "events.topic=e"];
        let line = refusal(Role::Bridge, &log).unwrap();
        assert!(line.starts_with("kafka.brokers = \"\": must name brokers for events.topic"), "{line}");
    }

    #[test]
    fn a_bridge_has_to_be_told_where_frames_go() {
        let store = "store.url=redis://127.0.0.1";
        assert!(refusal(Role::Bridge, &[store]).unwrap().starts_with("sink.kind = "));
        assert_eq!(refusal(Role::Bridge, &[store, "sink.kind=log"]), None);
        assert_eq!(refusal(Role::Dev, &[]), None);
    }
}
