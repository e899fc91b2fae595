//! Records into a topic of Kafka and out of it, by librdkafka alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_e2e::wait::{PATIENCE, until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

/// How long nothing comes behind the end of a topic before that is taken for its last: a copy is written behind its original.
const QUIET: Duration = Duration::from_secs(5);

/// A topic with a reader at its beginning.
pub(crate) struct Topic {
    name: &'static str,
    producer: BaseProducer,
    consumer: BaseConsumer,
    /// The offset behind what was read of each partition.
    read_to: BTreeMap<i32, i64>,
    read: Vec<Record>,
}

/// A record with JSON in it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: Value,
}

impl Topic {
    /// One that is there.
    pub(crate) fn open(brokers: &str, name: &'static str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let producer: BaseProducer = config.create().unwrap();
        config.set("group.id", "tests").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let partitions = until("the topic to have leaders", PATIENCE, || {
            let metadata = consumer.fetch_metadata(Some(name), PATIENCE).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            let all = partitions.iter().all(|partition| partition.leader() >= 0) && !partitions.is_empty();
            all.then(|| partitions.iter().map(rdkafka::metadata::MetadataPartition::id).collect::<Vec<_>>())
        });
        let mut from = TopicPartitionList::new();
        for &partition in &partitions {
            from.add_partition_offset(name, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        let read_to = partitions.into_iter().map(|partition| (partition, 0)).collect();
        Self { name, producer, consumer, read_to, read: Vec::new() }
    }

    /// Stores a record that was made so long ago.
    pub(crate) fn write(&self, key: &str, value: &str, age: Duration) {
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().saturating_sub(age);
        let timestamp = i64::try_from(made.as_millis()).unwrap();
        let record = BaseRecord::to(self.name).key(key).payload(value).timestamp(timestamp);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    /// The records for which this holds, once there are so many; all are kept for the next question. That there are no more is not said before
    /// [`Topic::read_to_end`].
    pub(crate) fn await_records(&mut self, count: usize, which: impl Fn(&Record) -> bool) -> Vec<Record> {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let found: Vec<_> = self.read.iter().filter(|record| which(record)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < deadline, "{count} records of {} are due: {:?}", self.name, self.read);
            self.poll();
        }
    }

    /// All records, once nothing more comes.
    pub(crate) fn read_to_end(&mut self) -> &[Record] {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET || !self.is_at_end() {
            assert!(Instant::now() < deadline, "{} has no end: {:?}", self.name, self.read);
            if self.poll() {
                quiet_since = Instant::now();
            }
        }
        &self.read
    }

    /// By the word of the brokers: one that stands still gives nothing to read either.
    fn is_at_end(&self) -> bool {
        self.read_to.iter().all(|(&partition, &read_to)| {
            let marks = self.consumer.fetch_watermarks(self.name, partition, PATIENCE);
            marks.is_ok_and(|(_, end)| end == read_to)
        })
    }

    /// Takes in what comes next, if anything does soon.
    fn poll(&mut self) -> bool {
        let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) else { return false };
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        let value = serde_json::from_str(&text(message.payload())).expect("JSON");
        self.read_to.insert(message.partition(), message.offset() + 1);
        self.read.push(Record { key: text(message.key()), value });
        true
    }
}
