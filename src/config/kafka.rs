//! Keys of Kafka as the sink, and of what happens while it is away.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use holdfast_bridge::TopicRule;
use holdfast_bridge::kafka::{KafkaConfig, KafkaStartError};
use holdfast_bridge::spool::{OnOutage, OutageConfig};
use holdfast_gateway::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::bridge::SinkKind;
use super::layers::shown;
use super::values::{TOPIC_NAME, check_topic_name, refuse, within};

/// `[kafka]`: the defaults are the bridge's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KafkaKeys {
    /// `HOST:PORT,…` of brokers to begin with. Default empty: no Kafka.
    pub(crate) brokers: String,
    /// Topic of frames that no rule of `topic_map` sends elsewhere.
    pub(crate) topic: String,
    /// Whether topics that do not exist are made.
    pub(crate) create_topics: bool,
    /// Partitions of a topic that is made. 1 to 10,000.
    pub(crate) partitions: i32,
    /// Replicas of a topic that is made; -1: the brokers' default.
    pub(crate) replication: i32,
    /// Most topics that come into being by templates of `topic_map`. Full: frames for further ones are refused.
    pub(crate) topics_max: u32,
    /// Topic of frames that their own topic refuses for good. Default empty: their devices hear of the refusal.
    pub(crate) dead_letter: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub(crate) compression: String,
    /// How long a record waits for company, in ms. 0 to 1,000.
    pub(crate) linger_ms: u32,
    /// How long a bridge that is woken often for little waits for more to come, in us. 0 to 10,000.
    pub(crate) batch_us: u32,
    /// Most bytes of records that leave together for one partition.
    pub(crate) batch_bytes_max: u32,
    /// Bytes of records that wait for their delivery reports. Full: devices are held back. 1 MiB to 1 TiB.
    pub(crate) queue_bytes_max: u64,
    /// The same as a number of records.
    pub(crate) queue_records_max: u32,
    /// The brokers must answer within this time at the start, in seconds. 1 to 600.
    pub(crate) start_within_s: u32,
    /// Settings of librdkafka by its own names. They are no keys of ours: any name is passed on as it stands.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Default for KafkaKeys {
    fn default() -> Self {
        let kafka = KafkaConfig::default();
        Self {
            brokers: kafka.brokers,
            topic: kafka.topic,
            create_topics: kafka.create_topics,
            partitions: kafka.partitions,
            replication: kafka.replicas,
            topics_max: kafka.topics_max as u32,
            dead_letter: kafka.dead_letter.unwrap_or_default(),
            compression: kafka.compression,
            linger_ms: kafka.linger.as_millis() as u32,
            batch_us: kafka.batch.as_micros() as u32,
            batch_bytes_max: kafka.batch_bytes_max,
            queue_bytes_max: kafka.queue_bytes_max,
            queue_records_max: kafka.queue_records_max,
            start_within_s: kafka.start_within.as_secs() as u32,
            settings: kafka.settings,
        }
    }
}

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

impl KafkaKeys {
    pub(super) fn check(&self, topic_map: Vec<TopicRule>) -> Result<KafkaConfig, ConfigError> {
        if self.topic.is_empty() {
            return Err(refuse("kafka.topic", "\"\"", "must name a topic"));
        }
        check_topic_name("kafka.topic", &self.topic)?;
        check_topic_name("kafka.dead_letter", &self.dead_letter)?;
        if !COMPRESSIONS.contains(&&*self.compression) {
            let allowed = format!("must be one of {}", COMPRESSIONS.join(", "));
            return Err(refuse("kafka.compression", &self.compression, allowed));
        }
        if self.replication != -1 {
            within("kafka.replication", self.replication, 1..=100)?;
        }
        let config = KafkaConfig {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            topic_map,
            create_topics: self.create_topics,
            partitions: within("kafka.partitions", self.partitions, 1..=10_000)?,
            replicas: self.replication,
            topics_max: within("kafka.topics_max", self.topics_max, 0..=100_000)? as usize,
            dead_letter: Some(self.dead_letter.clone()).filter(|topic| !topic.is_empty()),
            compression: self.compression.clone(),
            linger: Duration::from_millis(within("kafka.linger_ms", self.linger_ms, 0..=1_000)?.into()),
            batch: Duration::from_micros(within("kafka.batch_us", self.batch_us, 0..=10_000)?.into()),
            batch_bytes_max: within("kafka.batch_bytes_max", self.batch_bytes_max, 1_024..=1 << 28)?,
            queue_bytes_max: within("kafka.queue_bytes_max", self.queue_bytes_max, 1 << 20..=1 << 40)?,
            queue_records_max: within("kafka.queue_records_max", self.queue_records_max, 1..=10_000_000)?,
            start_within: Duration::from_secs(
                within("kafka.start_within_s", self.start_within_s, 1..=600)?.into(),
            ),
            settings: self.settings.clone(),
        };
        config.check_settings().map_err(|error| refused(&config, error))?;
        Ok(config)
    }
}

/// What a bridge asks of it besides, whose frames go to `sink`, and for which the key `beside` asks for Kafka as well. Asks nobody.
pub(super) fn check_as_a_bridge(
    config: &KafkaConfig,
    sink: SinkKind,
    beside: Option<&'static str>,
) -> Result<(), ConfigError> {
    match beside {
        Some(key) if config.brokers.trim().is_empty() => {
            let allowed = format!("must name brokers for {key}: HOST:PORT,… (--kafka)");
            Err(refuse("kafka.brokers", "\"\"", allowed))
        }
        None if sink == SinkKind::Log => Ok(()),
        _ => config.check().map_err(|error| refused(config, error)),
    }
}

/// The bridge's refusal, by key and value.
fn refused(config: &KafkaConfig, error: KafkaStartError) -> ConfigError {
    let setting = |name: &str, allowed: String| {
        let (key, value) = (format!("kafka.settings.{name}"), config.settings.get(name));
        let value = value.map(|value| shown(&key, &value.clone().into())).unwrap_or_default();
        refuse(key, value, allowed)
    };
    match error {
        KafkaStartError::Reserved { name, reason } => setting(&name, format!("cannot be set: {reason}")),
        KafkaStartError::NotASetting { name, reason } => setting(&name, reason),
        KafkaStartError::Setting(reason) => refuse("kafka.settings", "{…}", reason),
        KafkaStartError::Broker(_) => {
            refuse("kafka.brokers", &config.brokers, "must be HOST:PORT,… of brokers (--kafka)")
        }
        KafkaStartError::TopicName { key, name } => refuse(key, name, TOPIC_NAME),
        other => refuse("kafka.brokers", &config.brokers, other.to_string()),
    }
}

/// `[spool]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SpoolKeys {
    /// Bytes that the spool may hold. Full: QoS 0 is dropped and counted, other devices are held back. 1 MiB to 1 PiB. Default 4 GiB.
    pub(crate) bytes_max: u64,
}

impl Default for SpoolKeys {
    fn default() -> Self {
        Self { bytes_max: OutageConfig::in_directory(Path::new("")).bytes_max }
    }
}

/// What becomes of frames while Kafka is away. `on_outage` and `outage_after_ms` stand at the top of the configuration.
pub(super) fn check_outage(
    on_outage: &str,
    outage_after_ms: u32,
    spool: &SpoolKeys,
    data_dir: &Path,
) -> Result<OutageConfig, ConfigError> {
    Ok(OutageConfig {
        on_outage: match on_outage {
            "spool" => OnOutage::Spool,
            "hold" => OnOutage::Hold,
            other => return Err(refuse("on_outage", other, "must be \"spool\" or \"hold\"")),
        },
        outage_after: Duration::from_millis(
            within("outage_after_ms", outage_after_ms, 100..=3_600_000)?.into(),
        ),
        directory: data_dir.join("spool"),
        bytes_max: within("spool.bytes_max", spool.bytes_max, OutageConfig::BYTES_MIN..=1 << 50)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_bridge_s_own() {
        let kafka = KafkaKeys::default().check(Vec::new()).unwrap();
        assert_eq!(
            (kafka.topic, kafka.partitions),
            (KafkaConfig::default().topic, KafkaConfig::default().partitions)
        );
        let outage = check_outage("spool", 2_000, &SpoolKeys::default(), Path::new("data")).unwrap();
        assert_eq!(outage, OutageConfig::in_directory(Path::new("data/spool")));
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_key() {
        let keys = KafkaKeys { compression: "brotli".into(), ..KafkaKeys::default() };
        let line = keys.check(Vec::new()).unwrap_err().to_string();
        assert_eq!(line, "kafka.compression = brotli: must be one of none, gzip, snappy, lz4, zstd");
        for (topic, dead_letter) in [("a b", ""), ("a", "b/c")] {
            let keys =
                KafkaKeys { topic: topic.into(), dead_letter: dead_letter.into(), ..KafkaKeys::default() };
            let line = keys.check(Vec::new()).unwrap_err().to_string();
            assert!(line.contains(": must be the name of a Kafka topic"), "{line}");
        }
        let line =
            check_outage("drop", 2_000, &SpoolKeys::default(), Path::new("data")).unwrap_err().to_string();
        assert_eq!(line, "on_outage = drop: must be \"spool\" or \"hold\"");
    }
}
