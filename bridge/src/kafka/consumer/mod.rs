//! Pushes that come as records of a Kafka topic, each with one outcome, in any order of their ends.
//!
//! ```text
//! poll ──> take ──> ledger (open) ──> carry: push, then receipt ──> settle ──> ledger ──> commit
//!            └ the partition is full ──> paused until half of it is settled
//! ```
//!
//! A thread of its own polls, since librdkafka's calls may block; the pushes run on the bridge's runtime. An offset is committed once the outcome of
//! its record, and of all before it in its partition, is known and its receipt stored. So a bridge that dies leaves nothing behind: the next one
//! reads again from there, and what was delivered meanwhile may be delivered once more. docs/pushes.md says what a sender sees.
//!
//! Start with [`KafkaPushes::start`], then `reader`.

mod assignment;
mod carrier;
mod ledger;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::book::Book;
use super::config::KafkaConfig;
use super::error::KafkaStartError;
use super::receipts;
use super::start::check_topics;
use crate::bridge::BridgeHandle;
use crate::config::PushTopicConfig;
use assignment::Assignment;
use carrier::Carrier;
use reader::Reader;

/// Reads pushes, and writes receipts. Dropped, it stops at once and commits nothing more than what is known.
#[derive(Debug)]
pub struct KafkaPushes {
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    order: Arc<Order>,
    ended: mpsc::Receiver<()>,
}

/// What the reader is to do; at first, to read.
#[derive(Debug, Default)]
struct Order(AtomicU8);

const FINISH: u8 = 1;
const END: u8 = 2;

impl Order {
    fn give(&self, order: u8) {
        self.0.store(order, Ordering::Release);
    }

    fn current(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

impl KafkaPushes {
    /// Checks the topics, opens the book of receipts, and begins to read, as far as `config` names topics. Blocks for up to `kafka.start_within`,
    /// and says what is wrong in one line.
    pub fn start(
        bridge: &BridgeHandle,
        kafka: &KafkaConfig,
        config: &PushTopicConfig,
    ) -> Result<Self, KafkaStartError> {
        let core = bridge.core();
        let reads = !config.topic.is_empty();
        let writes = !config.receipts.is_empty() && (reads || core.config.push.receipts);
        let mut topics = Vec::new();
        if reads {
            topics.push(("pushes.topic", &*config.topic));
        }
        if writes {
            topics.push(("pushes.receipts_topic", &*config.receipts));
        }
        check_topics(kafka, &topics)?;
        let receipts = writes.then(|| receipts::open(kafka, &config.receipts).map(Arc::new)).transpose()?;
        if let Some(receipts) = receipts.as_ref().filter(|_| core.config.push.receipts) {
            // One that was opened before stays.
            let _ = core.books.receipts.set(Arc::clone(receipts) as _);
        }
        let reading = reads.then(|| Reading::start(bridge, kafka, config, receipts)).transpose()?;
        Ok(Self { reading })
    }

    /// Reads no more, waits for the outcomes of what was read, commits, and leaves the group. False if that took longer than `within`; what has
    /// no outcome then is pushed again by whoever reads on. Call it before the bridge drains, which closes the links that pushes need.
    pub fn stop(mut self, within: Duration) -> bool {
        let Some(reading) = self.reading.take() else { return true };
        reading.order.give(FINISH);
        let ended = reading.ended.recv_timeout(within) != Err(mpsc::RecvTimeoutError::Timeout);
        reading.order.give(END);
        ended
    }
}

impl Drop for KafkaPushes {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.order.give(END);
        }
    }
}

impl Reading {
    fn start(
        bridge: &BridgeHandle,
        kafka: &KafkaConfig,
        config: &PushTopicConfig,
        receipts: Option<Arc<Book>>,
    ) -> Result<Self, KafkaStartError> {
        let consumer: BaseConsumer<Assignment> =
            native(kafka, &config.group)?.create_with_context(Assignment::new(&config.topic))?;
        consumer.subscribe(&[&config.topic])?;
        let carrier = Carrier::new(Arc::clone(bridge.core()), receipts, config);
        let order = Arc::new(Order::default());
        let (end, ended) = mpsc::channel();
        let reader =
            Reader::new(consumer, carrier, bridge.runtime().clone(), Arc::clone(&order), config, end);
        std::thread::Builder::new()
            .name("pushes".into())
            .spawn(move || reader.run())
            .map_err(|error| KafkaStartError::Other(format!("no thread can be started: {error}")))?;
        tracing::info!(topic = config.topic, group = config.group, "pushes are read from Kafka");
        Ok(Self { order, ended })
    }
}

/// What only a producer has use for.
const PRODUCER_SETTINGS: [&str; 10] = [
    "acks",
    "enable.idempotence",
    "message.timeout.ms",
    "partitioner",
    "compression.type",
    "linger.ms",
    "batch.size",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.timeout.ms",
];

fn native(kafka: &KafkaConfig, group: &str) -> Result<ClientConfig, KafkaStartError> {
    let mut native = kafka.native(None)?;
    for setting in PRODUCER_SETTINGS {
        native.remove(setting);
    }
    if !kafka.settings.contains_key("session.timeout.ms") {
        // So long the pushes of a bridge that died wait for another one.
        native.set("session.timeout.ms", "10000");
    }
    native
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What was asked for before the first bridge came is a push as well.
        .set("auto.offset.reset", "earliest")
        // Partitions that stay with a bridge go on while others move.
        .set("partition.assignment.strategy", "cooperative-sticky")
        // Beside the ledgers this is what a bridge holds of pushes.
        .set("queued.max.messages.kbytes", "16384");
    Ok(native)
}
