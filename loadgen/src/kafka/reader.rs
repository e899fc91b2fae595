//! The contents of a Kafka topic as records for the ledger, read back with a consumer of our own: from the first record of each partition to the
//! last, in their order.
//!
//! Nothing of the gateway is asked and no offset is committed. What the headers mean is written in `docs/records.md`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::fleet::FleetResult;
use crate::ledger::ObservedRecord;

/// For the brokers to answer what partitions there are.
const METADATA_WITHIN: Duration = Duration::from_secs(10);
/// How often it is seen whether the patience is over while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// Where the records are.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// `HOST:PORT`, several with commas.
    pub brokers: String,
    /// One topic; the order of a device is the order of one partition of it.
    pub topic: String,
    /// Further settings of librdkafka, for TLS and SASL.
    pub settings: Vec<(String, String)>,
    /// How long to wait for acknowledged frames that are not there yet (a spool that still drains), and for brokers that do not answer, counted
    /// from the last record that came.
    pub patience: Duration,
}

/// Why a topic could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum KafkaReadError {
    /// librdkafka does not take the settings.
    #[error("{0}")]
    Settings(KafkaError),
    /// Nobody answers.
    #[error("no answer from {brokers}: {error}")]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// What came instead.
        error: KafkaError,
    },
    /// There is no such topic.
    #[error("topic {0} does not exist")]
    NoTopic(String),
    /// The end of some partitions was not reached.
    #[error("partitions {partitions:?} of {topic} could not be read to their end: {error}")]
    Unfinished {
        /// The topic.
        topic: String,
        /// Which of them.
        partitions: Vec<i32>,
        /// The last error, if there was one.
        error: String,
    },
}

/// Hands every record of the topic to `result`; returns how many there were. Blocks.
pub fn read(source: &KafkaSource, result: &mut FleetResult) -> Result<u64, KafkaReadError> {
    let consumer = consumer(source)?;
    let mut at_end: HashMap<i32, bool> = partitions(source, &consumer)?;
    let mut count = 0;
    let mut last_error = None;
    let mut deadline = Instant::now() + source.patience;
    loop {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => {
                at_end.insert(message.partition(), false);
                observe(&message, result);
                count += 1;
                deadline = Instant::now() + source.patience;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition, true);
            }
            // A broker that is away may come back.
            Some(Err(error)) => last_error = Some(error),
            None => {}
        }
        let finished = at_end.values().all(|at_end| *at_end);
        let over = Instant::now() >= deadline;
        if finished && (over || result.ledger.lost_count() == 0) {
            return Ok(count);
        }
        if over {
            let mut partitions: Vec<i32> =
                at_end.into_iter().filter_map(|(partition, at_end)| (!at_end).then_some(partition)).collect();
            partitions.sort_unstable();
            let error = last_error.map_or_else(|| "nothing comes".to_owned(), |error| error.to_string());
            return Err(KafkaReadError::Unfinished { topic: source.topic.clone(), partitions, error });
        }
    }
}

fn consumer(source: &KafkaSource) -> Result<BaseConsumer, KafkaReadError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &source.brokers)
        // librdkafka wants one even of those that never join a group.
        .set("group.id", "holdfast-loadgen")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error");
    for (key, value) in &source.settings {
        config.set(key, value);
    }
    config.create().map_err(KafkaReadError::Settings)
}

/// Has every partition read from its first record; none is at its end yet.
fn partitions(source: &KafkaSource, consumer: &BaseConsumer) -> Result<HashMap<i32, bool>, KafkaReadError> {
    let unreachable = |error| KafkaReadError::Unreachable { brokers: source.brokers.clone(), error };
    let metadata = consumer.fetch_metadata(Some(&source.topic), METADATA_WITHIN).map_err(unreachable)?;
    let found = metadata.topics().iter().find(|topic| topic.name() == source.topic);
    let ids: Vec<i32> = found
        .map(|topic| topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
        .unwrap_or_default();
    if ids.is_empty() {
        return Err(KafkaReadError::NoTopic(source.topic.clone()));
    }
    let mut list = TopicPartitionList::new();
    for id in &ids {
        list.add_partition_offset(&source.topic, *id, Offset::Beginning).map_err(KafkaReadError::Settings)?;
    }
    consumer.assign(&list).map_err(KafkaReadError::Settings)?;
    Ok(ids.into_iter().map(|id| (id, false)).collect())
}

fn observe(message: &BorrowedMessage<'_>, result: &mut FleetResult) {
    // What has no key or no text there is not ours, and the ledger says so.
    let client_id = String::from_utf8_lossy(message.key().unwrap_or_default());
    result.observe(ObservedRecord {
        client_id: &client_id,
        payload: message.payload().unwrap_or_default(),
        resent: has(message, "dup") || has(message, "resent"),
        partition: message.partition().cast_unsigned(),
        offset: message.offset().cast_unsigned(),
    });
}

/// A flag is there or not, whatever its value.
fn has(message: &BorrowedMessage<'_>, name: &str) -> bool {
    message.headers().is_some_and(|headers| headers.iter().any(|header| header.key == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::verdict::Latencies;

    fn source(patience: Duration) -> KafkaSource {
        KafkaSource {
            // A port that nobody listens on.
            brokers: "127.0.0.1:1".to_owned(),
            topic: "frames".to_owned(),
            settings: Vec::new(),
            patience,
        }
    }

    fn nothing() -> FleetResult {
        FleetResult::new(Ledger::new(1, "device-", Vec::new()), Latencies::default(), true)
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused_by_name() {
        let settings = vec![("no.such.setting".to_owned(), "1".to_owned())];
        let error = read(&KafkaSource { settings, ..source(LOOK) }, &mut nothing()).unwrap_err();
        assert!(error.to_string().contains("no.such.setting"), "{error}");
    }
}
