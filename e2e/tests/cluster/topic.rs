//! Records into a topic of Kafka and out of it, by librdkafka alone.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_e2e::wait::{PATIENCE, until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

/// A topic with a reader at its beginning.
pub(crate) struct Topic {
    name: &'static str,
    producer: BaseProducer,
    consumer: BaseConsumer,
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
        for partition in partitions {
            from.add_partition_offset(name, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        Self { name, producer, consumer, read: Vec::new() }
    }

    /// Stores a record that was made so long ago.
    pub(crate) fn write(&self, key: &str, value: &str, age: Duration) {
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().saturating_sub(age);
        let timestamp = i64::try_from(made.as_millis()).unwrap();
        let record = BaseRecord::to(self.name).key(key).payload(value).timestamp(timestamp);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    /// The records for which this holds, once there are so many; all are kept for the next question.
    pub(crate) fn await_records(&mut self, count: usize, which: impl Fn(&Record) -> bool) -> Vec<Record> {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let found: Vec<_> = self.read.iter().filter(|record| which(record)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < deadline, "{count} records of {} are due: {:?}", self.name, self.read);
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) {
                let text =
                    |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
                let value = serde_json::from_str(&text(message.payload())).expect("JSON");
                self.read.push(Record { key: text(message.key()), value });
            }
        }
    }
}
