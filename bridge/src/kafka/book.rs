//! A topic that the bridge itself writes to: receipts of pushes, events of connections.
//!
//! Not for frames: there is no spool behind it. A line may be stored twice when a broker's answer is lost, and those with one key stay in order.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use metrics::Counter;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};
use tokio::sync::oneshot;

use super::config::KafkaConfig;
use super::delivery::{Troubles, log};
use super::error::KafkaStartError;
use crate::complaints::Complaints;

/// How long a line that was not taken waits before it is given to Kafka again.
const RETRY: Duration = Duration::from_millis(250);

/// How long one wait for reports lasts; those that come are told at once. The end of each wait costs most of a millisecond of CPU time.
const POLL: Duration = Duration::from_secs(1);

/// One open book.
pub(super) struct Book {
    producer: Arc<BaseProducer<Reports>>,
    topic: String,
    /// Lines that were not taken and are lost.
    dropped: Counter,
    complaints: Complaints,
}

/// Lines of a book, by what became of them.
pub(super) struct LineCounters {
    pub(super) stored: Counter,
    pub(super) dropped: Counter,
}

impl Book {
    /// Opens a book in which at most so many lines wait for Kafka. The topic is there by now.
    pub(super) fn open(
        kafka: &KafkaConfig,
        topic: &str,
        lines_max: u32,
        counters: LineCounters,
    ) -> Result<Self, KafkaStartError> {
        let mut native = kafka.native(None)?;
        native
            // A producer that is idempotent may end beyond repair; a line that is there twice does less harm.
            .set("enable.idempotence", "false")
            .set("max.in.flight", "1")
            .set("queue.buffering.max.messages", lines_max.max(1).to_string())
            .set("linger.ms", "5");
        let LineCounters { stored, dropped } = counters;
        let reports = Reports { stored, dropped: dropped.clone(), troubles: Troubles::default() };
        let producer: Arc<BaseProducer<Reports>> = Arc::new(native.create_with_context(reports)?);
        let polled = Arc::downgrade(&producer);
        std::thread::Builder::new()
            .name("book".into())
            .spawn(move || tell_reports(&polled))
            .map_err(|error| KafkaStartError::Other(format!("no thread can be started: {error}")))?;
        Ok(Self { producer, topic: topic.to_owned(), dropped, complaints: Complaints::default() })
    }

    /// Writes a line, and comes back once all in-sync replicas have it, however long that takes.
    pub(super) async fn write(&self, key: &str, line: &[u8]) {
        loop {
            let (told, stored) = oneshot::channel();
            match self.send(key, line, Some(told)) {
                Ok(()) => match stored.await {
                    Ok(Ok(())) => return,
                    Ok(Err(reason)) => self.complain(&reason),
                    Err(_) => {}
                },
                Err(error) if is_full(&error) => {}
                Err(error) => self.complain(&error.to_string()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Writes a line if there is room for it, without waiting for anything; else drops and counts it.
    pub(super) fn note(&self, key: &str, line: &[u8]) {
        if let Err(error) = self.send(key, line, None) {
            self.dropped.increment(1);
            if !is_full(&error) {
                self.complain(&error.to_string());
            }
        }
    }

    fn send(&self, key: &str, line: &[u8], told: Told) -> Result<(), KafkaError> {
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(told)).key(key).payload(line);
        self.producer.send(record).map_err(|(error, _)| error)
    }

    fn complain(&self, reason: &str) {
        if let Some(suppressed) = self.complaints.admit("line", Instant::now()) {
            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
            tracing::warn!(topic = self.topic, reason, suppressed, "Kafka does not take a line of ours");
        }
    }
}

/// Until the book is closed.
fn tell_reports(producer: &Weak<BaseProducer<Reports>>) {
    while let Some(producer) = producer.upgrade() {
        producer.poll(POLL);
    }
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

/// Who waits for a line to be stored.
type Told = Option<oneshot::Sender<Result<(), String>>>;

struct Reports {
    stored: Counter,
    dropped: Counter,
    troubles: Troubles,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Told>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Box<Told>) {
        let result = match result {
            Ok(_) => {
                self.stored.increment(1);
                Ok(())
            }
            Err((error, _)) => Err(error.to_string()),
        };
        match *told {
            Some(told) => {
                let _ = told.send(result);
            }
            None => {
                if let Err(reason) = result {
                    self.dropped.increment(1);
                    tracing::debug!(reason, "a line of ours is lost");
                }
            }
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.troubles.note(&error, reason);
    }
}
