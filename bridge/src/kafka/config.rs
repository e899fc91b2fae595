//! What an operator can set about Kafka, and what becomes of it in librdkafka's words.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::error::KafkaStartError;
use crate::uplink::topic_map::TopicRule;

/// Settings of the Kafka sink.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port,…` of brokers to begin with.
    pub brokers: String,
    /// Topic of frames that no rule sends elsewhere.
    pub topic: String,
    /// The bridge's rules; those that name Kafka topics matter here.
    pub topic_map: Vec<TopicRule>,
    /// Whether topics that do not exist are made.
    pub create_topics: bool,
    /// Partitions of a topic that is made.
    pub partitions: i32,
    /// Replicas of a topic that is made; -1: the brokers' default.
    pub replicas: i32,
    /// Most topics that come into being by templates; when there are as many, frames for further ones are refused (0x97).
    pub topics_max: usize,
    /// Topic of frames that their own topic refuses for good; they are acknowledged once they are there. Without it their devices hear of the
    /// refusal.
    pub dead_letter: Option<String>,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long a record may wait for others that go to the same partition.
    pub linger: Duration,
    /// How long a bridge that is woken often for little waits for more frames and reports to come before it looks again; zero: it never waits.
    pub batch: Duration,
    /// Most bytes of records that leave together for one partition; fewer if one of the topics takes less.
    pub batch_bytes_max: u32,
    /// Bytes of records that wait for their delivery reports, at most; a record beside them waits in its lane, and its link is not read from.
    pub queue_bytes_max: u64,
    /// The same as a number of records: each costs about 1 KB beside its bytes.
    pub queue_records_max: u32,
    /// The brokers must answer within this time at the start.
    pub start_within: Duration,
    /// Settings of librdkafka by its own names, such as `security.protocol`. Those that our promises stand on are refused.
    pub settings: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic: "holdfast.frames".into(),
            topic_map: Vec::new(),
            create_topics: false,
            partitions: 12,
            replicas: -1,
            topics_max: 256,
            dead_letter: None,
            compression: "lz4".into(),
            linger: Duration::from_millis(1),
            batch: Duration::from_micros(400),
            batch_bytes_max: 512 << 10,
            queue_bytes_max: 128 << 20,
            queue_records_max: 200_000,
            start_within: Duration::from_secs(10),
            settings: BTreeMap::new(),
        }
    }
}

/// Settings of librdkafka that are not the operator's, each with the reason.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "a frame is acknowledged only once all in-sync replicas have it"),
    ("request.required.acks", "a frame is acknowledged only once all in-sync replicas have it"),
    ("enable.idempotence", "without it frames could be doubled or change places"),
    ("transactional.id", "frames are acknowledged one by one"),
    (
        "message.timeout.ms",
        "a frame is never given up; on_outage says what becomes of those that Kafka does not take",
    ),
    (
        "delivery.timeout.ms",
        "a frame is never given up; on_outage says what becomes of those that Kafka does not take",
    ),
    ("retries", "a frame is never given up; on_outage says what becomes of those that Kafka does not take"),
    (
        "message.send.max.retries",
        "a frame is never given up; on_outage says what becomes of those that Kafka does not take",
    ),
    (
        "partitioner",
        "frames of one device stay in order only in one partition, which other clients find by the same rule",
    ),
    ("delivery.report.only.error", "every frame waits for its report"),
    (
        "enable.gapless.guarantee",
        "one frame that is refused for good would end the producer, for all others too",
    ),
    ("test.mock.num.brokers", "frames would be acknowledged that nobody keeps"),
    ("bootstrap.servers", "it is kafka.brokers"),
    ("metadata.broker.list", "it is kafka.brokers"),
    ("compression.type", "it is kafka.compression"),
    ("compression.codec", "it is kafka.compression"),
    ("linger.ms", "it is kafka.linger_ms"),
    ("queue.buffering.max.ms", "it is kafka.linger_ms"),
    ("batch.size", "it is kafka.batch_bytes_max"),
    ("queue.buffering.max.kbytes", "it is kafka.queue_bytes_max"),
    ("queue.buffering.max.messages", "it is kafka.queue_records_max"),
];

/// What librdkafka bears.
const LIBRDKAFKA_RECORD_BYTES_MAX: usize = 1_000_000_000;

impl KafkaConfig {
    /// For a producer of frames. Its records have up to `record_bytes_max`: none is too large for librdkafka that its topic takes. Its batches have
    /// up to `batch_bytes_max`, if those that are configured are larger: no topic is sent a batch of small records that is larger than it takes.
    pub(super) fn native_for(
        &self,
        record_bytes_max: Option<usize>,
        batch_bytes_max: usize,
    ) -> Result<ClientConfig, KafkaStartError> {
        let mut native = self.native(Some(record_bytes_max.unwrap_or(LIBRDKAFKA_RECORD_BYTES_MAX)))?;
        native.set("batch.size", self.batch_bytes(batch_bytes_max).to_string());
        Ok(native)
    }

    /// Bytes of a batch, where some topic takes up to `batch_bytes_max`.
    pub(super) fn batch_bytes(&self, batch_bytes_max: usize) -> usize {
        (self.batch_bytes_max as usize).min(batch_bytes_max).max(1)
    }

    /// For librdkafka, with `record_bytes_max` as the most that any of the topics takes.
    pub(super) fn native(&self, record_bytes_max: Option<usize>) -> Result<ClientConfig, KafkaStartError> {
        for name in self.settings.keys() {
            if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                return Err(KafkaStartError::Reserved { name: name.clone(), reason });
            }
        }
        let mut native = ClientConfig::new();
        native
            .set_log_level(RDKafkaLogLevel::Info)
            .set("client.id", "holdfast-bridge")
            .set("bootstrap.servers", &self.brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            // What Java's producer does as well, so that a record of another client with the same key lies in the same partition.
            .set("partitioner", "murmur2_random")
            .set("compression.type", &self.compression)
            .set("linger.ms", format!("{}", self.linger.as_secs_f64() * 1000.0))
            .set("batch.size", self.batch_bytes_max.to_string())
            .set("queue.buffering.max.kbytes", (self.queue_bytes_max >> 10).clamp(1, 0x7fff_ffff).to_string())
            .set("queue.buffering.max.messages", self.queue_records_max.max(1).to_string())
            // So long frames wait for a topic that is not there: that was deleted, or that we are making.
            .set("topic.metadata.propagation.max.ms", if self.create_topics { "30000" } else { "5000" })
            .set("socket.keepalive.enable", "true")
            // A broker that hangs is left for another leader, or seen as an outage, long before the default of a minute.
            .set("request.timeout.ms", "10000")
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.max.ms", "1000");
        if let Some(bytes) = record_bytes_max {
            native.set("message.max.bytes", bytes.to_string());
        }
        for (name, value) in &self.settings {
            native.set(name, value);
        }
        Ok(native)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_a_promise_stands_on_is_refused_with_the_reason() {
        let settings = BTreeMap::from([("acks".to_owned(), "1".to_owned())]);
        let error = KafkaConfig { settings, ..KafkaConfig::default() }.native(None).unwrap_err().to_string();
        assert!(
            error.starts_with("kafka.settings.acks cannot be set: a frame is acknowledged only"),
            "{error}"
        );
    }

    #[test]
    fn a_batch_is_no_larger_than_the_narrowest_topic_takes() {
        let native = KafkaConfig::default().native_for(Some(1 << 20), 256 << 10).unwrap();
        assert_eq!(native.get("batch.size"), Some("262144"));
        assert_eq!(native.get("message.max.bytes"), Some("1048576"));
        let native = KafkaConfig::default().native_for(None, 1 << 20).unwrap();
        assert_eq!(native.get("batch.size"), Some("524288"), "nor than the operator wants");
        assert_eq!(native.get("message.max.bytes"), Some("1000000000"), "templates may lead to any topic");
    }

    #[test]
    fn a_kafka_that_keeps_nothing_cannot_be_asked_for() {
        let settings = BTreeMap::from([("test.mock.num.brokers".to_owned(), "3".to_owned())]);
        assert!(KafkaConfig { settings, ..KafkaConfig::default() }.native(None).is_err());
    }

    #[test]
    fn any_other_setting_goes_through_and_wins() {
        let settings = BTreeMap::from([
            ("security.protocol".to_owned(), "sasl_ssl".to_owned()),
            ("message.max.bytes".to_owned(), "2000".to_owned()),
        ]);
        let native = KafkaConfig { settings, ..KafkaConfig::default() }.native(Some(1000)).unwrap();
        assert_eq!(native.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(native.get("message.max.bytes"), Some("2000"));
        assert_eq!(native.get("linger.ms"), Some("1"));
        assert_eq!(native.get("acks"), Some("all"));
    }
}
