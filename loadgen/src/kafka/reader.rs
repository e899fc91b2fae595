//! The contents of a Kafka topic as records for the ledger, read back with a consumer of our own: from the first record of each partition to the
//! last, in their order.
//!
//! Nothing of the gateway is asked and no offset is committed. What the headers mean is written in `docs/records.md`. What retention or compaction has
//! taken away cannot be judged: an acknowledged frame among it counts as lost, a second copy is not seen. `ending` says when it is enough.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};

use super::ending::{Ending, Next};
use crate::fleet::FleetResult;
use crate::ledger::ObservedRecord;

/// For the brokers to answer what partitions there are.
const METADATA_WITHIN: Duration = Duration::from_secs(10);
/// How often it is seen whether the patience is over while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// Without a record, before the end of a topic counts as its end. Longer than a bridge waits before it asks a broker again, and than a broker that was
/// stopped takes to write what it still held.
const QUIET: Duration = Duration::from_secs(5);

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
    /// from the last record that came; at least five seconds.
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

/// Hands every record of the topic to `result`, and those that come until nothing came for five seconds; returns how many there were. Blocks.
pub fn read(source: &KafkaSource, result: &mut FleetResult) -> Result<u64, KafkaReadError> {
    let consumer = consumer(source)?;
    let partitions = assign_all(source, &consumer)?;
    // Where reading goes on in each.
    let mut next = BTreeMap::new();
    let mut ending = Ending::new(partitions, source.patience, QUIET, Instant::now());
    let mut count = 0;
    let mut last_error = None;
    loop {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => {
                observe(&message, result);
                next.insert(message.partition(), message.offset() + 1);
                count += 1;
                ending.handle_record(message.partition(), Instant::now());
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => ending.handle_end(partition),
            // A broker that is away may come back.
            Some(Err(error)) => last_error = Some(error.to_string()),
            None => {}
        }
        let unread = match ending.poll_next(Instant::now(), || result.ledger.lost_count() > 0) {
            Next::Read => continue,
            Next::GiveUp(partitions) => partitions,
            Next::Ask => match unanswered(source, &consumer, &ending.partitions(), &next) {
                Ok(()) => return Ok(count),
                Err((partitions, error)) => {
                    last_error = Some(error);
                    if ending.is_patient(Instant::now()) {
                        continue;
                    }
                    partitions
                }
            },
        };
        let error = last_error.unwrap_or_else(|| "nothing comes".to_owned());
        return Err(KafkaReadError::Unfinished { topic: source.topic.clone(), partitions: unread, error });
    }
}

/// Records ever written to the topic, by the ends of its partitions. Blocks.
pub(crate) fn written(source: &KafkaSource) -> Result<u64, KafkaReadError> {
    let unreachable = |error| KafkaReadError::Unreachable { brokers: source.brokers.clone(), error };
    let consumer = consumer(source)?;
    let mut sum = 0;
    for partition in partitions(source, &consumer).map_err(unreachable)? {
        let (_, end) =
            consumer.fetch_watermarks(&source.topic, partition, METADATA_WITHIN).map_err(unreachable)?;
        sum += end.cast_unsigned();
    }
    Ok(sum)
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

/// Has every partition read from its first record.
fn assign_all(source: &KafkaSource, consumer: &BaseConsumer) -> Result<Vec<i32>, KafkaReadError> {
    let unreachable = |error| KafkaReadError::Unreachable { brokers: source.brokers.clone(), error };
    let partitions = partitions(source, consumer).map_err(unreachable)?;
    if partitions.is_empty() {
        return Err(KafkaReadError::NoTopic(source.topic.clone()));
    }
    let mut list = TopicPartitionList::new();
    for id in &partitions {
        list.add_partition_offset(&source.topic, *id, Offset::Beginning).map_err(KafkaReadError::Settings)?;
    }
    consumer.assign(&list).map_err(KafkaReadError::Settings)?;
    Ok(partitions)
}

/// Those that the topic has now.
fn partitions(source: &KafkaSource, consumer: &BaseConsumer) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(&source.topic), METADATA_WITHIN)?;
    let found = metadata.topics().iter().find(|topic| topic.name() == source.topic);
    Ok(found.map_or_else(Vec::new, |topic| topic.partitions().iter().map(MetadataPartition::id).collect()))
}

/// Partitions whose leader does not answer in the end, or has more than was read, and those that were not read because they are new. Silence of a broker that
/// is gone is no end, and neither is that of one that has not been dialled again.
fn unanswered(
    source: &KafkaSource,
    consumer: &BaseConsumer,
    read: &[i32],
    next: &BTreeMap<i32, i64>,
) -> Result<(), (Vec<i32>, String)> {
    let now = partitions(source, consumer).map_err(|error| (read.to_vec(), error.to_string()))?;
    let new: Vec<i32> = now.into_iter().filter(|partition| !read.contains(partition)).collect();
    if !new.is_empty() {
        return Err((new, "the topic got them while it was read".to_owned()));
    }
    for partition in read {
        let (begin, end) = consumer
            .fetch_watermarks(&source.topic, *partition, METADATA_WITHIN)
            .map_err(|error| (vec![*partition], error.to_string()))?;
        if end > *next.get(partition).unwrap_or(&begin) {
            return Err((vec![*partition], "it has more than was read".to_owned()));
        }
    }
    Ok(())
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
    use super::super::mock::MockKafka;
    use super::*;
    use crate::ledger::{DeviceRecord, Ledger};
    use crate::payload::{Direction, Form, Stamp};
    use crate::verdict::{Latencies, Planned};

    const PATIENCE: Duration = Duration::from_mins(1);

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
        FleetResult::new(Ledger::new(1, "device-", Vec::new()), Latencies::default(), Planned::default())
    }

    /// With the frames of `device-0` that these sequence numbers name.
    fn broker(sequences: &[u64]) -> MockKafka {
        let kafka = MockKafka::start("frames", 2);
        let frame = |sequence: &u64| {
            let stamp = Stamp {
                direction: Direction::Up,
                run: 1,
                device: 0,
                sequence: *sequence,
                intended_ns: 1,
                sent_ns: 2,
            };
            let mut payload = Vec::new();
            stamp.encode(Form::Binary, 100, &mut payload);
            payload
        };
        kafka.produce("frames", "device-0", sequences.iter().map(frame));
        kafka
    }

    #[test]
    fn a_topic_is_read_to_its_end_with_every_copy() {
        let kafka = broker(&[0, 1, 0]);
        let mut device = DeviceRecord::default();
        for sequence in [0, 1] {
            device.frames.sent(sequence);
            device.frames.acked(sequence);
        }
        let mut result = FleetResult::new(
            Ledger::new(1, "device-", vec![device]),
            Latencies::default(),
            Planned::default(),
        );
        let source = KafkaSource { brokers: kafka.brokers(), ..source(PATIENCE) };
        assert_eq!(written(&source).unwrap(), 3);
        assert_eq!(read(&source, &mut result).unwrap(), 3);
        let frames = result.verdict().frames;
        assert_eq!((frames.found, frames.lost, frames.duplicated), (2, 0, 1));
    }

    #[test]
    fn a_partition_that_was_not_there_at_the_beginning_is_no_end() {
        let kafka = broker(&[]);
        let source = KafkaSource { brokers: kafka.brokers(), ..source(PATIENCE) };
        let consumer = consumer(&source).unwrap();
        let next = BTreeMap::new();
        assert_eq!(unanswered(&source, &consumer, &[0, 1], &next), Ok(()));
        assert_eq!(unanswered(&source, &consumer, &[0], &next).unwrap_err().0, [1]);
    }

    #[test]
    fn a_partition_that_has_more_than_was_read_is_no_end() {
        let kafka = broker(&[1, 2]);
        let source = KafkaSource { brokers: kafka.brokers(), ..source(PATIENCE) };
        let consumer = consumer(&source).unwrap();
        let ends = [0, 1].map(|partition| {
            let (_, end) = consumer.fetch_watermarks(&source.topic, partition, METADATA_WITHIN).unwrap();
            (partition, end)
        });
        assert_eq!(unanswered(&source, &consumer, &[0, 1], &ends.into()), Ok(()));
        let behind = ends.map(|(partition, end)| (partition, (end - 1).max(0)));
        assert!(unanswered(&source, &consumer, &[0, 1], &behind.into()).is_err());
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused_by_name() {
        let settings = vec![("no.such.setting".to_owned(), "1".to_owned())];
        let error = read(&KafkaSource { settings, ..source(LOOK) }, &mut nothing()).unwrap_err();
        assert!(error.to_string().contains("no.such.setting"), "{error}");
    }
}
