//! Keys of the bridge: its local log, its topic map, its links, pushes.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_bridge::config::{DedupeConfig, PushConfig};
use holdfast_bridge::log::LogConfig;
use holdfast_bridge::{BridgeConfig, SinkName, TopicMapError, TopicRule};
use holdfast_gateway::config::{ConfigError, secret_needed};
use holdfast_store::Bounds;
use serde::{Deserialize, Serialize};

use super::role::Role;
use super::values::{address, refuse, within};

/// `[sink]`: the local log that frames go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SinkKeys {
    /// Where a bridge of its own puts frames: `kafka`, or `log` for the log in `data_dir`. Default empty: Kafka if `kafka.brokers` names
    /// it; `dev` always takes the log.
    pub(crate) kind: String,
    /// A segment is closed before it grows beyond this many bytes. 64 KiB to 1 TiB. Default 64 MiB.
    pub(crate) segment_bytes_max: u64,
    /// Closed segments go, oldest first, while all together hold more than this many bytes. Default 4 GiB.
    pub(crate) retention_bytes_max: u64,
    /// Closed segments go once their last write is older than this, in seconds. Default 604,800 (7 days).
    pub(crate) retention_age_s_max: u64,
    /// Bytes of frames that wait for the disk. Full: acknowledgements wait, and devices are held back. 1 MiB to 1 GiB.
    /// Default 32 MiB.
    pub(crate) queue_bytes_max: u32,
    /// How long a batch waits for company before it is written, in ms: fewer syncs for more latency. 0 to 1,000. Default 1.
    pub(crate) linger_ms: u32,
}

impl Default for SinkKeys {
    fn default() -> Self {
        let log = LogConfig::default();
        Self {
            kind: String::new(),
            segment_bytes_max: log.segment_bytes_max,
            retention_bytes_max: log.retention_bytes_max,
            retention_age_s_max: log.retention_age_max.as_secs(),
            queue_bytes_max: log.queue_bytes_max,
            linger_ms: log.linger.as_millis() as u32,
        }
    }
}

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkKind {
    /// The log in the data directory.
    Log,
    /// Kafka, with a spool in the data directory.
    Kafka,
}

impl SinkKeys {
    /// `brokers` are those of Kafka.
    pub(super) fn kind(&self, role: Role, brokers: &str) -> Result<SinkKind, ConfigError> {
        match &*self.kind {
            "kafka" | "log" | "" if role != Role::Bridge => Ok(SinkKind::Log),
            "log" => Ok(SinkKind::Log),
            "kafka" | "" if !brokers.is_empty() => Ok(SinkKind::Kafka),
            "kafka" => Err(refuse("kafka.brokers", "\"\"", "must name brokers: HOST:PORT,… (--kafka)")),
            "" => {
                let allowed = "must say where frames go: to Kafka (--kafka HOST:PORT,…), or log (--sink log)";
                Err(refuse("sink.kind", "\"\"", allowed))
            }
            other => Err(refuse("sink.kind", other, "must be \"kafka\" or \"log\"")),
        }
    }

    pub(super) fn check(&self) -> Result<LogConfig, ConfigError> {
        Ok(LogConfig {
            segment_bytes_max: within("sink.segment_bytes_max", self.segment_bytes_max, 64 << 10..=1 << 40)?,
            retention_bytes_max: within(
                "sink.retention_bytes_max",
                self.retention_bytes_max,
                64 << 10..=1 << 50,
            )?,
            retention_age_max: Duration::from_secs(within(
                "sink.retention_age_s_max",
                self.retention_age_s_max,
                1..=100 * 366 * 86_400,
            )?),
            queue_bytes_max: within("sink.queue_bytes_max", self.queue_bytes_max, 1 << 20..=1 << 30)?,
            linger: Duration::from_millis(within("sink.linger_ms", self.linger_ms, 0..=1_000)?.into()),
        })
    }
}

/// One rule of `topic_map`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicRuleKeys {
    /// An MQTT topic filter.
    pub(crate) filter: String,
    /// `default` for the place of frames that no rule speaks of, `none` for traffic that is only between devices, or `kafka:TOPIC`, in which
    /// `{2}` stands for the second level of the frame's topic. Where frames go to the log, `log` says the same as `default`.
    pub(crate) sink: String,
}

/// For a process of this role, whose frames go there.
pub(super) fn check_topic_map(
    rules: &[TopicRuleKeys],
    role: Role,
    kind: SinkKind,
) -> Result<Vec<TopicRule>, ConfigError> {
    let check = |keys: &TopicRuleKeys| {
        let rule = check_topic_rule(keys)?;
        // A file may serve `dev` as well, which has its log for everything.
        if role == Role::Bridge {
            check_place(keys, &rule, kind)?;
        }
        Ok(rule)
    };
    rules.iter().map(check).collect()
}

fn check_topic_rule(keys: &TopicRuleKeys) -> Result<TopicRule, ConfigError> {
    let TopicRuleKeys { filter, sink } = keys;
    let refused = |error| match error {
        TopicMapError::Filter { error, .. } => {
            refuse("topic_map.filter", filter, format!("must be an MQTT topic filter ({error})"))
        }
        TopicMapError::Shared(_) => {
            refuse("topic_map.filter", filter, "must not be shared: write what follows the group")
        }
        TopicMapError::Template { error, .. } => refuse("topic_map.sink", sink, error.to_string()),
        TopicMapError::Sink(_) => {
            refuse("topic_map.sink", sink, "must be \"default\", \"none\" or \"kafka:TOPIC\"")
        }
    };
    let rule = TopicRule { filter: filter.clone(), sink: sink.parse().map_err(refused)? };
    rule.check().map_err(refused)?;
    Ok(rule)
}

/// Whether frames can go where a rule of a bridge sends them.
fn check_place(keys: &TopicRuleKeys, rule: &TopicRule, kind: SinkKind) -> Result<(), ConfigError> {
    let allowed = match (kind, &rule.sink) {
        (SinkKind::Kafka, SinkName::Default) if keys.sink == "log" => {
            "frames go to Kafka here: write \"default\" for kafka.topic, or \"kafka:TOPIC\""
        }
        (SinkKind::Log, SinkName::Kafka(_)) => {
            "frames go to the log here: write \"default\", or name brokers of Kafka (--kafka) and not sink.kind = \"log\""
        }
        _ => return Ok(()),
    };
    Err(refuse("topic_map.sink", &keys.sink, allowed))
}

/// `[bridge]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BridgeKeys {
    /// Where a bridge of its own takes links of gateways. Beyond this machine it needs `link.secret`. Default `127.0.0.1:7883`.
    pub(crate) listen: String,
    /// Its metrics and health; not the gateway's `listeners.admin`, so that one file serves both. Default `127.0.0.1:9091`.
    pub(crate) admin: String,
    /// Threads of the bridge, 1 to 64. Default 1.
    pub(crate) worker_threads: u16,
    /// Bytes of unsettled frames that one shard may have outstanding. Full: its devices are held back. 1 MiB to 1 GiB.
    /// Default 8 MiB.
    pub(crate) window_bytes: u32,
    /// Deliveries to shared groups whose report is awaited. Full: the one awaited longest is no more. Default 10,000.
    pub(crate) group_deliveries_max: u32,
    /// How often the filters of persistent sessions are compared with the store, in seconds. 1 to 86,400. Default 60.
    pub(crate) durable_filters_every_s: u32,
    /// A shard that takes nothing for so long, in seconds, is given up: its link is closed. 1 to 3,600. Default 10.
    pub(crate) stuck_after_s: u32,
}

impl Default for BridgeKeys {
    fn default() -> Self {
        let bridge = BridgeConfig::default();
        Self {
            listen: "127.0.0.1:7883".into(),
            admin: "127.0.0.1:9091".into(),
            worker_threads: bridge.worker_threads as u16,
            window_bytes: bridge.window_bytes,
            group_deliveries_max: bridge.group_deliveries_max,
            durable_filters_every_s: bridge.durable_filters_every.as_secs() as u32,
            stuck_after_s: bridge.stuck_after.as_secs() as u32,
        }
    }
}

/// Where a bridge of its own listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BridgeListen {
    /// Links of gateways.
    pub(crate) link: SocketAddr,
    /// Metrics and health.
    pub(crate) admin: SocketAddr,
    /// Pushes; none: on the admin address.
    pub(crate) push: Option<SocketAddr>,
}

impl BridgeKeys {
    pub(super) fn listen(&self, push: &PushKeys, has_secret: bool) -> Result<BridgeListen, ConfigError> {
        let link = address("bridge.listen", &self.listen)?;
        if !has_secret && !link.ip().is_loopback() {
            return Err(secret_needed("bridge.listen", &self.listen));
        }
        let admin = address("bridge.admin", &self.admin)?;
        let push = Some(&*push.listen).filter(|listen| !listen.is_empty());
        Ok(BridgeListen { link, admin, push: push.map(|listen| address("push.listen", listen)).transpose()? })
    }

    pub(super) fn check(
        &self,
        link_secret: Vec<u8>,
        topic_map: Vec<TopicRule>,
        dedupe: DedupeConfig,
        push: PushConfig,
    ) -> Result<BridgeConfig, ConfigError> {
        Ok(BridgeConfig {
            worker_threads: within("bridge.worker_threads", self.worker_threads, 1..=64)?.into(),
            link_secret,
            window_bytes: within("bridge.window_bytes", self.window_bytes, 1 << 20..=1 << 30)?,
            topic_map,
            dedupe,
            push,
            group_deliveries_max: within(
                "bridge.group_deliveries_max",
                self.group_deliveries_max,
                1..=1 << 24,
            )?,
            durable_filters_every: Duration::from_secs(
                within("bridge.durable_filters_every_s", self.durable_filters_every_s, 1..=86_400)?.into(),
            ),
            stuck_after: Duration::from_secs(
                within("bridge.stuck_after_s", self.stuck_after_s, 1..=3_600)?.into(),
            ),
            ..BridgeConfig::default()
        })
    }
}

/// `[dedupe]`: at most `clients_max` times (150 bytes, the client id, and 16 bytes for each frame remembered).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DedupeKeys {
    /// Acknowledged frames remembered for each client; more if its gateway says that it may send more again. 1 to 65,535.
    pub(crate) entries_per_client_max: u16,
    /// Clients remembered. Full: one that has been quiet for long is forgotten. Default 262,144.
    pub(crate) clients_max: u32,
}

impl Default for DedupeKeys {
    fn default() -> Self {
        let DedupeConfig { entries_per_client_max, clients_max } = DedupeConfig::default();
        Self { entries_per_client_max, clients_max }
    }
}

impl DedupeKeys {
    pub(super) fn check(&self) -> Result<DedupeConfig, ConfigError> {
        Ok(DedupeConfig {
            entries_per_client_max: within(
                "dedupe.entries_per_client_max",
                self.entries_per_client_max,
                1..=u16::MAX,
            )?,
            clients_max: within("dedupe.clients_max", self.clients_max, 1..=1 << 26)?,
        })
    }
}

/// `[push]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PushKeys {
    /// Where a bridge of its own takes pushes. Default empty: on its admin address, as `dev` does.
    pub(crate) listen: String,
    /// Topic of a push that names only its device; `{client_id}` stands for that. Default `devices/{client_id}/push`.
    pub(crate) topic: String,
    /// Pushes whose outcome is awaited. Full: 503 with Retry-After. Default 10,000.
    pub(crate) in_flight_max: u32,
    /// Pushes of one batch, or to members of one group, whose outcome is awaited. Full: no more lines or members are read. Default 1,000.
    pub(crate) stream_in_flight_max: u32,
    /// How long a connected device may take to acknowledge a push of a batch or to a group, in seconds; then that has expired. 1 to 86,400. Default 60.
    pub(crate) acknowledged_within_s: u32,
    /// Outcomes remembered by their idempotency key. Full: the oldest goes. Default 100,000.
    pub(crate) outcomes_max: u32,
    /// How long an outcome is remembered, in seconds. Default 600.
    pub(crate) outcome_age_s_max: u32,
    /// Longest time that a request may wait for its outcome, and the default, in ms. 1 to 300,000. Default 10,000.
    pub(crate) wait_ms_max: u32,
    /// Largest request body, in bytes. Default 2 MiB.
    pub(crate) body_bytes_max: u32,
    /// Whether receipts are written for pushes that come by HTTP as well. Default false.
    pub(crate) receipts: bool,
}

impl Default for PushKeys {
    fn default() -> Self {
        let push = PushConfig::default();
        Self {
            listen: String::new(),
            topic: push.topic,
            in_flight_max: push.in_flight_max as u32,
            stream_in_flight_max: push.stream_in_flight_max as u32,
            acknowledged_within_s: push.acknowledged_within.as_secs() as u32,
            outcomes_max: push.outcomes_max as u32,
            outcome_age_s_max: push.outcome_age_max.as_secs() as u32,
            wait_ms_max: push.wait_max.as_millis() as u32,
            body_bytes_max: push.body_bytes_max as u32,
            receipts: push.receipts,
        }
    }
}

impl PushKeys {
    pub(super) fn check(&self, store: &Bounds) -> Result<PushConfig, ConfigError> {
        if self.topic.is_empty() || self.topic.len() > 1_024 || self.topic.contains(['+', '#', '\0']) {
            let allowed = "must be a topic name of 1 to 1024 bytes without wildcards";
            return Err(refuse("push.topic", &self.topic, allowed));
        }
        let around = self.topic.replace("{client_id}", "");
        if around == self.topic || around.contains(['{', '}']) {
            let allowed =
                "must hold {client_id}, and no other word in braces: else all devices share one topic";
            return Err(refuse("push.topic", &self.topic, allowed));
        }
        Ok(PushConfig {
            topic: self.topic.clone(),
            in_flight_max: within("push.in_flight_max", self.in_flight_max, 1..=1 << 24)? as usize,
            stream_in_flight_max: within(
                "push.stream_in_flight_max",
                self.stream_in_flight_max,
                1..=1_000_000,
            )? as usize,
            acknowledged_within: Duration::from_secs(
                within("push.acknowledged_within_s", self.acknowledged_within_s, 1..=86_400)?.into(),
            ),
            outcomes_max: within("push.outcomes_max", self.outcomes_max, 1..=1 << 26)? as usize,
            outcome_age_max: Duration::from_secs(
                within("push.outcome_age_s_max", self.outcome_age_s_max, 1..=7 * 86_400)?.into(),
            ),
            wait_max: Duration::from_millis(
                within("push.wait_ms_max", self.wait_ms_max, 1..=300_000)?.into(),
            ),
            body_bytes_max: within("push.body_bytes_max", self.body_bytes_max, 1_024..=1 << 28)? as usize,
            stream_bytes_max: store.stream.bytes_max.min(store.message_bytes_max),
            receipts: self.receipts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: &str, sink: &str) -> TopicRuleKeys {
        TopicRuleKeys { filter: filter.into(), sink: sink.into() }
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_by_key_value_and_what_is_allowed() {
        let line = |filter, sink| {
            check_topic_map(&[rule(filter, sink)], Role::Dev, SinkKind::Log).unwrap_err().to_string()
        };
        assert!(line("a/#/b", "log").starts_with("topic_map.filter = a/#/b: must be an MQTT topic filter"));
        assert!(line("$share/g/a", "log").starts_with("topic_map.filter = $share/g/a: must not be shared"));
        assert_eq!(
            line("a/#", "kafka"),
            "topic_map.sink = kafka: must be \"default\", \"none\" or \"kafka:TOPIC\""
        );
        let line = line("a/+", "kafka:x.{9}");
        assert!(line.starts_with("topic_map.sink = kafka:x.{9}: {9} may be missing"), "{line}");
    }

    #[test]
    fn a_bridge_is_not_told_to_put_frames_where_it_puts_none() {
        let check = |sink, role, kind| {
            check_topic_map(&[rule("a/#", sink)], role, kind).map_err(|error| error.to_string())
        };
        let line = check("log", Role::Bridge, SinkKind::Kafka).unwrap_err();
        assert!(line.starts_with("topic_map.sink = log: frames go to Kafka here"), "{line}");
        let line = check("kafka:x", Role::Bridge, SinkKind::Log).unwrap_err();
        assert!(line.starts_with("topic_map.sink = kafka:x: frames go to the log here"), "{line}");
        for sink in ["default", "none"] {
            check(sink, Role::Bridge, SinkKind::Kafka).unwrap();
            check(sink, Role::Bridge, SinkKind::Log).unwrap();
        }
        // The same file may serve the others.
        for sink in ["log", "kafka:x"] {
            check(sink, Role::Dev, SinkKind::Log).unwrap();
            check(sink, Role::Gateway, SinkKind::Log).unwrap();
        }
    }

    #[test]
    fn a_bridge_beyond_this_machine_needs_a_secret() {
        let keys = BridgeKeys { listen: "0.0.0.0:7883".into(), ..BridgeKeys::default() };
        let line = keys.listen(&PushKeys::default(), false).unwrap_err().to_string();
        assert!(line.starts_with("bridge.listen = 0.0.0.0:7883: must be on this machine"), "{line}");
        assert!(line.contains("HOLDFAST_LINK_SECRET"), "{line}");
        assert!(keys.listen(&PushKeys::default(), true).is_ok());
        assert_eq!(BridgeKeys::default().listen(&PushKeys::default(), false).unwrap().push, None);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let sink = SinkKeys { queue_bytes_max: 1, ..SinkKeys::default() };
        let allowed = "sink.queue_bytes_max = 1: must be between 1048576 and 1073741824";
        assert_eq!(sink.check().unwrap_err().to_string(), allowed);
        let push = PushKeys { topic: "a/+".into(), ..PushKeys::default() };
        assert!(
            push.check(&Bounds::default())
                .unwrap_err()
                .to_string()
                .starts_with("push.topic = a/+: must be a topic name")
        );
        for topic in ["pushes", "devices/{clientid}/push", "{client_id}/{x}"] {
            let push = PushKeys { topic: topic.into(), ..PushKeys::default() };
            let line = push.check(&Bounds::default()).unwrap_err().to_string();
            assert!(line.starts_with(&format!("push.topic = {topic}: must hold {{client_id}}")), "{line}");
        }
    }
}
