//! One link's way into Kafka. A frame goes to librdkafka when it is pushed; only what finds its queue full is held, until there is room.

use std::pin::pin;
use std::sync::Arc;

use rdkafka::producer::BaseRecord;

use super::delivery::{mark_refused, mark_refused_bytes};
use super::error::{Meaning, Refusal};
use super::pending::Ticket;
use super::producer::{Producers, Running};
use super::record::{Envelope, RecordWriter, fitting};
use super::topics::{Routes, Topic, Topics, fate};
use crate::core::now_ms;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::room::Place;
use crate::sink::{Lane, OnSettled, Sent};

pub(super) struct KafkaLane {
    producers: Arc<Producers>,
    routes: Routes,
    writer: RecordWriter,
    batch: Option<OpenBatch>,
    /// Records of one turn that found librdkafka's queue full, or others waiting for room there: no more than a link's window. [`Lane::send`]
    /// completes once there is none.
    held: Vec<Held>,
    /// While records are held.
    place: Option<Place>,
    /// As [`Lane::carry_acknowledged`] was told.
    acknowledged: bool,
}

/// The batch that is being gathered, and the producer that takes it: all of a batch goes through one.
struct OpenBatch {
    place: u32,
    frames: u32,
    running: Arc<Running>,
}

/// A frame as it is offered to librdkafka, beside its key and its value.
struct Offer {
    topic: Arc<Topic>,
    ticket: Ticket,
    envelope: Envelope,
}

struct Held {
    offer: Offer,
    key: Box<[u8]>,
    payload: Box<[u8]>,
}

impl KafkaLane {
    pub(super) fn new(producers: Arc<Producers>, topics: &Arc<Topics>) -> Self {
        Self {
            producers,
            routes: Routes::new(Arc::clone(topics)),
            writer: RecordWriter::default(),
            batch: None,
            held: Vec::new(),
            place: None,
            acknowledged: false,
        }
    }

    /// The frame's ticket and the producer of its batch, which begins if need be.
    fn ticket(&mut self, wants_receipt: bool) -> (Ticket, Arc<Running>) {
        let producers = &self.producers;
        let batch = self.batch.get_or_insert_with(|| OpenBatch {
            place: producers.pending.open(),
            frames: 0,
            running: producers.current(),
        });
        let acknowledged = self.acknowledged;
        let ticket = Ticket {
            batch: batch.place,
            frame: batch.frames,
            wants_receipt,
            dead_letter: false,
            acknowledged,
        };
        batch.frames += 1;
        (ticket, Arc::clone(&batch.running))
    }

    /// Hands a frame to librdkafka, or to the dead letter topic if its own refuses it; gives it back if there is no room.
    fn produce(&self, running: &Running, mut offer: Offer, key: &[u8], payload: &[u8]) -> Option<Offer> {
        loop {
            let Offer { topic, ticket, envelope } = offer;
            let (timestamp, bytes) = (envelope.timestamp, envelope.bytes);
            let record = BaseRecord::with_opaque_to(&topic.name, usize::from(ticket))
                .key(key)
                .payload(payload)
                .timestamp(timestamp)
                .headers(envelope.headers);
            let (meaning, headers) = match running.send(record) {
                Ok(()) => return None,
                Err((meaning, record)) => (meaning, record.headers.unwrap_or_default()),
            };
            let envelope = Envelope { headers, timestamp, bytes };
            match meaning {
                Meaning::Full => return Some(Offer { topic, ticket, envelope }),
                Meaning::Withdrawn => {
                    running.delivery().withdrawn(ticket);
                    return None;
                }
                Meaning::Refused(refusal) => {
                    offer = self.dead_letter(running, ticket, refusal, &topic.name, envelope)?;
                }
            }
        }
    }

    /// What becomes of a frame that `refused_by` will not take: a dead letter; none if it is refused altogether, and has heard so.
    fn dead_letter(
        &self,
        running: &Running,
        ticket: Ticket,
        refusal: Refusal,
        refused_by: &str,
        mut envelope: Envelope,
    ) -> Option<Offer> {
        envelope.bytes += mark_refused_bytes(refusal, refused_by);
        let topic = self.routes.dead_letter();
        let Some(topic) =
            topic.filter(|topic| !ticket.dead_letter && envelope.bytes <= topic.record_bytes_max())
        else {
            let fate = if ticket.acknowledged { fate::ACKNOWLEDGED } else { fate::TOLD };
            self.routes.topics().complain(refusal, refused_by, envelope.bytes, fate, None);
            running.delivery().refused(ticket, refusal, refused_by);
            return None;
        };
        self.routes.topics().complain(refusal, refused_by, envelope.bytes, fate::BURIED, None);
        envelope.headers = mark_refused(envelope.headers, refusal, refused_by);
        envelope.timestamp =
            fitting(envelope.timestamp.cast_unsigned(), topic.before_ms_max(), now_ms()).cast_signed();
        Some(Offer { topic: Arc::clone(topic), ticket: Ticket { dead_letter: true, ..ticket }, envelope })
    }

    /// Keeps a record until it is this lane's turn and there is room.
    fn hold(&mut self, held: Held) {
        self.place.get_or_insert_with(|| self.producers.room().queue());
        self.held.push(held);
    }

    /// Tries the held records again, in order; true if none is left.
    fn produce_held(&mut self, running: &Running) -> bool {
        let mut held = std::mem::take(&mut self.held).into_iter();
        while let Some(Held { offer, key, payload }) = held.next() {
            if let Some(offer) = self.produce(running, offer, &key, &payload) {
                self.held.push(Held { offer, key, payload });
                self.held.extend(held);
                return false;
            }
        }
        true
    }

    async fn until_produced(&mut self, running: &Running) {
        metrics::counter!(names::KAFKA_QUEUE_FULL).increment(1);
        let producers = Arc::clone(&self.producers);
        loop {
            let mut news = pin!(producers.room().news.notified());
            news.as_mut().enable();
            // What a producer that is over gives back overtakes nothing.
            let may_try = running.is_over() || self.place.as_ref().is_none_or(Place::is_first);
            if may_try && self.produce_held(running) {
                self.place = None;
                return;
            }
            news.await;
        }
    }
}

impl Lane for KafkaLane {
    fn carry_acknowledged(&mut self, acknowledged: bool) {
        self.acknowledged = acknowledged;
    }

    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        let (ticket, running) = self.ticket(wants_receipt);
        let offer = match self.routes.find(frame.message.topic) {
            Ok(topic) => {
                let envelope = self.writer.envelope(frame, topic.before_ms_max(), now_ms());
                if envelope.bytes <= topic.record_bytes_max() {
                    Some(Offer { topic, ticket, envelope })
                } else {
                    self.dead_letter(&running, ticket, Refusal::TooLarge, &topic.name, envelope)
                }
            }
            Err(refusal) => {
                let envelope = self.writer.envelope(frame, u64::MAX, now_ms());
                self.dead_letter(&running, ticket, refusal, self.routes.last_name(), envelope)
            }
        };
        let (key, payload) = (frame.message.publisher.as_bytes(), frame.message.payload);
        let offer = match offer {
            Some(offer) if self.held.is_empty() && !self.producers.room().is_awaited() => {
                self.produce(&running, offer, key, payload)
            }
            offer => offer,
        };
        if let Some(offer) = offer {
            self.hold(Held { offer, key: key.into(), payload: payload.into() });
        }
    }

    fn refuses(&mut self, frame: &LogRecord<'_>) -> Option<u8> {
        // As it would be sent later.
        let frame = LogRecord { resent: true, ..*frame };
        let bytes = self.writer.envelope(&frame, u64::MAX, now_ms()).bytes;
        let topic = self.routes.find(frame.message.topic);
        let (refusal, refused_by) = match &topic {
            Ok(topic) if bytes <= topic.record_bytes_max() => return None,
            Ok(topic) => (Refusal::TooLarge, &*topic.name),
            Err(refusal) => (*refusal, self.routes.last_name()),
        };
        let letter_bytes = bytes + mark_refused_bytes(refusal, refused_by);
        let buried = self.routes.dead_letter().is_some_and(|topic| letter_bytes <= topic.record_bytes_max());
        if buried {
            return None;
        }
        self.routes.topics().complain(refusal, refused_by, bytes, fate::TOLD, None);
        Some(refusal.reason_code())
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
            self.producers.current().delivery().withdrawn(held.offer.ticket);
        }
        if let Some(batch) = self.batch.take() {
            self.producers.pending.close(batch.place, batch.frames, Box::new(|_, _| {}));
        }
    }
}
