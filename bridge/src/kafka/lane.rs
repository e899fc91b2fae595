//! One link's way into Kafka. A frame goes to librdkafka when it is pushed; only what finds its queue full is held, until there is room.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;

use super::delivery::mark_refused;
use super::error::{Meaning, Refusal};
use super::pending::Ticket;
use super::producer::{Producers, Running};
use super::record::{Envelope, RecordWriter};
use super::topics::{Routes, Topics};
use crate::core::now_ms;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::sink::{Lane, OnSettled, Sent};

pub(super) struct KafkaLane {
    producers: Arc<Producers>,
    routes: Routes,
    writer: RecordWriter,
    batch: Option<OpenBatch>,
    /// Records of one turn that found librdkafka's queue full: no more than a link's window. [`Lane::send`] completes once there is none.
    held: Vec<Held>,
}

/// The batch that is being gathered, and the producer that takes it: all of a batch goes through one.
struct OpenBatch {
    place: u32,
    frames: u32,
    running: Arc<Running>,
}

struct Held {
    topic: Arc<str>,
    ticket: Ticket,
    key: Box<[u8]>,
    payload: Box<[u8]>,
    headers: OwnedHeaders,
    timestamp: i64,
}

impl KafkaLane {
    pub(super) fn new(producers: Arc<Producers>, topics: Arc<Topics>) -> Self {
        let (routes, writer) = (Routes::new(topics), RecordWriter::default());
        Self { producers, routes, writer, batch: None, held: Vec::new() }
    }

    /// The frame's ticket and the producer of its batch, which begins if need be.
    fn ticket(&mut self, wants_receipt: bool) -> (Ticket, Arc<Running>) {
        let producers = &self.producers;
        let batch = self.batch.get_or_insert_with(|| OpenBatch {
            place: producers.pending.open(),
            frames: 0,
            running: producers.current(),
        });
        let ticket = Ticket { batch: batch.place, frame: batch.frames, wants_receipt, dead_letter: false };
        batch.frames += 1;
        (ticket, Arc::clone(&batch.running))
    }

    fn produce(
        &mut self,
        running: &Running,
        ticket: Ticket,
        topic: &Arc<str>,
        frame: &LogRecord<'_>,
        Envelope { headers, timestamp, .. }: Envelope,
    ) {
        let (key, payload) = (frame.message.publisher.as_bytes(), frame.message.payload);
        let headers = if self.held.is_empty() {
            let record = BaseRecord::with_opaque_to(topic, usize::from(ticket))
                .key(key)
                .payload(payload)
                .timestamp(timestamp)
                .headers(headers);
            match running.send(record) {
                Ok(()) => return,
                Err((Meaning::Full, record)) => record.headers.unwrap_or_default(),
                Err((Meaning::Withdrawn, _)) => return running.delivery().withdrawn(ticket),
                Err((Meaning::Refused(refusal), record)) => {
                    let envelope =
                        Envelope { headers: record.headers.unwrap_or_default(), timestamp, bytes: 0 };
                    return self.refuse(running, ticket, refusal, topic, frame, envelope);
                }
            }
        } else {
            headers
        };
        let topic = Arc::clone(topic);
        self.held.push(Held { topic, ticket, key: key.into(), payload: payload.into(), headers, timestamp });
    }

    /// A frame that its own topic will not take: to the dead letter topic, or back to its device.
    fn refuse(
        &mut self,
        running: &Running,
        ticket: Ticket,
        refusal: Refusal,
        topic: &str,
        frame: &LogRecord<'_>,
        envelope: Envelope,
    ) {
        match self.producers.dead_letter().cloned() {
            Some(dead_letter) if !ticket.dead_letter => {
                let headers = mark_refused(envelope.headers, refusal, topic);
                let ticket = Ticket { dead_letter: true, ..ticket };
                self.produce(running, ticket, &dead_letter, frame, Envelope { headers, ..envelope });
            }
            _ => running.delivery().refused(ticket, refusal),
        }
    }

    /// Tries the held records again, in order; true if none is left.
    fn produce_held(&mut self, running: &Running) -> bool {
        let mut held = std::mem::take(&mut self.held).into_iter();
        while let Some(Held { topic, ticket, key, payload, headers, timestamp }) = held.next() {
            let record = BaseRecord::with_opaque_to(&topic, usize::from(ticket))
                .key(&key[..])
                .payload(&payload[..])
                .timestamp(timestamp)
                .headers(headers);
            match running.send(record) {
                Ok(()) => {}
                Err((Meaning::Full, record)) => {
                    let headers = record.headers.unwrap_or_default();
                    self.held.push(Held { topic, ticket, key, payload, headers, timestamp });
                    self.held.extend(held);
                    return false;
                }
                Err((Meaning::Refused(refusal), _)) => running.delivery().refused(ticket, refusal),
                Err((Meaning::Withdrawn, _)) => running.delivery().withdrawn(ticket),
            }
        }
        true
    }

    async fn until_produced(&mut self, running: &Running) {
        metrics::counter!(names::KAFKA_QUEUE_FULL).increment(1);
        let producers = Arc::clone(&self.producers);
        let room = producers.room();
        let _waiting = Waiting::new(&room.waiting);
        loop {
            let mut news = pin!(room.news.notified());
            news.as_mut().enable();
            if self.produce_held(running) {
                return;
            }
            news.await;
        }
    }
}

impl Lane for KafkaLane {
    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        let (ticket, running) = self.ticket(wants_receipt);
        let topic = match self.routes.find(frame.message.topic) {
            Ok(topic) => topic,
            Err(refusal) => {
                let envelope = self.writer.envelope(frame, u64::MAX, now_ms());
                return self.refuse(&running, ticket, refusal, "", frame, envelope);
            }
        };
        let envelope = self.writer.envelope(frame, topic.before_ms_max, now_ms());
        if envelope.bytes > topic.record_bytes_max {
            return self.refuse(&running, ticket, Refusal::TooLarge, &topic.name, frame, envelope);
        }
        self.produce(&running, ticket, &topic.name, frame, envelope);
    }

    fn refuses(&mut self, frame: &LogRecord<'_>) -> Option<u8> {
        let refusal = match self.routes.find(frame.message.topic) {
            Ok(topic) => {
                // As it would be sent later.
                let frame = LogRecord { resent: true, ..*frame };
                let envelope = self.writer.envelope(&frame, topic.before_ms_max, now_ms());
                if envelope.bytes <= topic.record_bytes_max {
                    return None;
                }
                Refusal::TooLarge
            }
            Err(refusal) => refusal,
        };
        self.producers.dead_letter().is_none().then(|| refusal.reason_code())
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        let Some(batch) = self.batch.take() else { return Box::pin(std::future::ready(Ok(()))) };
        self.producers.pending.close(batch.place, batch.frames, settled);
        Box::pin(async move {
            if !self.held.is_empty() {
                self.until_produced(&batch.running).await;
            }
            Ok(())
        })
    }
}

impl Drop for KafkaLane {
    fn drop(&mut self) {
        for held in self.held.drain(..) {
            self.producers.current().delivery().withdrawn(held.ticket);
        }
        if let Some(batch) = self.batch.take() {
            self.producers.pending.close(batch.place, batch.frames, Box::new(|_, _| {}));
        }
    }
}

/// Counts a lane that waits for room.
struct Waiting<'a>(&'a std::sync::atomic::AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a std::sync::atomic::AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
