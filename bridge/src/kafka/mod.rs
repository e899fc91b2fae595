//! Kafka as the sink: the only folder that names rdkafka.
//!
//! ```text
//! Lane::push ──> record ──> librdkafka ──(delivery report)──> pending ──> OnSettled
//!                   │ refused, and there is a dead letter topic ──> librdkafka once more
//!                   └ its queue is full ──> held until Lane::send finds room
//! ```
//!
//! A frame counts as stored once every in-sync replica has it (acks=all, idempotent). librdkafka tries again for ever what may succeed
//! later; that an outage has begun is for the caller to see, who then takes everything back with [`Sink::withdraw`]. A sink may begin before its
//! brokers answer (`late`). The records' layout is in docs/records.md.
//!
//! Beside the sink, `consumer` reads pushes from a topic ([`KafkaPushes`]), and `book` writes receipts and events ([`keep_events`]).
//!
//! Start with [`KafkaSink::start`], then `lane` (the way in) and `delivery` (the way back). May not know links or devices.

mod book;
mod check;
mod config;
mod consumer;
mod delivery;
mod error;
mod events;
mod lane;
mod late;
mod pending;
mod plight;
mod producer;
mod receipts;
mod record;
mod start;
mod topics;

use std::sync::Arc;
use std::time::Duration;

pub use config::KafkaConfig;
pub use consumer::KafkaPushes;
pub use error::KafkaStartError;
pub use events::keep_events;

use crate::sink::{Lane, Sink, SinkHealth};
use late::{Late, LateLane, Parts};
use start::Brokers;

/// Kafka as a sink. Dropping it gives up what is not stored.
pub struct KafkaSink {
    late: Arc<Late>,
    batch: Duration,
}

impl KafkaSink {
    /// Reaches the brokers, checks the topics, and makes those that lack if it may. Blocks for up to `config.start_within`, and says what is wrong
    /// in one line. Counts with the metrics recorder that is installed by then.
    pub fn start(config: KafkaConfig) -> Result<Self, KafkaStartError> {
        let config = Arc::new(config);
        let found = Arc::new(Brokers::of(&config)?).find(&config, config.start_within)?;
        let late = Arc::new(Late::default());
        late.begin(Parts::open(&config, found, &late.plight)?);
        Ok(Self { late, batch: config.batch })
    }

    /// The same, but if no broker answers within a few seconds the sink is there all the same, [in trouble](Sink::trouble): it checks and makes the
    /// topics once one does, and gives back what was pushed meanwhile. What else is wrong then is its trouble.
    pub fn start_or_await(config: KafkaConfig) -> Result<Self, KafkaStartError> {
        let (batch, config) = (config.batch, Arc::new(config));
        let brokers = Arc::new(Brokers::of(&config)?);
        let late = Arc::new(Late::default());
        match brokers.find(&config, config.start_within.min(late::AWAY_AFTER)) {
            Ok(found) => late.begin(Parts::open(&config, found, &late.plight)?),
            Err(error @ KafkaStartError::Unreachable { .. }) => late.wait_for(brokers, config, &error)?,
            Err(error) => return Err(error),
        }
        Ok(Self { late, batch })
    }

    /// Whether the brokers have answered, so that it stores.
    pub fn has_begun(&self) -> bool {
        self.late.parts().is_some()
    }
}

impl Sink for KafkaSink {
    fn lane(&self) -> Box<dyn Lane> {
        match self.late.parts() {
            Some(parts) => Box::new(parts.lane()),
            None => Box::new(LateLane::new(Arc::clone(&self.late))),
        }
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "kafka", stores: self.trouble().is_none(), spool: None }
    }

    fn trouble(&self) -> Option<String> {
        self.late.trouble()
    }

    fn withdraw(&self) {
        self.late.withdraw();
    }

    fn rest(&self) -> Duration {
        self.batch
    }

    fn take_verdicts(&self) {
        if let Some(parts) = self.late.parts() {
            parts.producers.take_reports();
        }
    }

    fn leave_verdicts(&self) {
        if let Some(parts) = self.late.parts() {
            parts.producers.leave_reports();
        }
    }
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").finish_non_exhaustive()
    }
}
