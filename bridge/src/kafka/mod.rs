//! Kafka as the sink: the only folder that names rdkafka.
//!
//! ```text
//! Lane::push ──> record ──> librdkafka ──(delivery report)──> pending ──> OnSettled
//!                   │ refused, and there is a dead letter topic ──> librdkafka once more
//!                   └ its queue is full ──> held until Lane::send finds room
//! ```
//!
//! A frame counts as stored once every in-sync replica has it (acks=all, idempotent). librdkafka tries again for ever what may succeed
//! later; that an outage has begun is for the caller to see from [`Sink::progress`], who then takes everything back with [`Sink::withdraw`].
//! The records' layout is in docs/records.md.
//!
//! Beside the sink, `consumer` reads pushes from a topic ([`KafkaPushes`]), and `book` writes receipts and events ([`keep_events`]).
//!
//! Start with [`KafkaSink::start`], then `lane` (the way in) and `delivery` (the way back). May not know links or devices.

mod book;
mod config;
mod consumer;
mod delivery;
mod error;
mod events;
mod lane;
mod pending;
mod producer;
mod receipts;
mod record;
mod start;
mod topics;

use std::sync::Arc;
use std::time::Instant;

pub use config::KafkaConfig;
pub use consumer::KafkaPushes;
pub use error::KafkaStartError;
pub use events::keep_events;

use crate::sink::{Lane, Progress, Sink};
use lane::KafkaLane;
use producer::Producers;
use topics::Topics;

/// Kafka as a sink. Dropping it gives up what is not stored.
pub struct KafkaSink {
    producers: Arc<Producers>,
    topics: Arc<Topics>,
}

impl KafkaSink {
    /// Reaches the brokers, checks the topics, and makes those that lack if it may. Blocks for up to `config.start_within`, and says what is wrong
    /// in one line. Counts with the metrics recorder that is installed by then.
    pub fn start(config: KafkaConfig) -> Result<Self, KafkaStartError> {
        let config = Arc::new(config);
        let found = start::check(&config)?;
        let topics = Arc::new(Topics::start(&config, found)?);
        let producers = Producers::start(&config, &topics)?;
        tracing::info!(brokers = config.brokers, topic = config.topic, "frames go to Kafka");
        Ok(Self { producers, topics })
    }
}

impl Sink for KafkaSink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(KafkaLane::new(Arc::clone(&self.producers), Arc::clone(&self.topics)))
    }

    fn progress(&self) -> Progress {
        self.producers.pending.progress(Instant::now())
    }

    fn withdraw(&self) {
        self.producers.withdraw();
    }
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").finish_non_exhaustive()
    }
}
