//! The producer of the moment, who takes its reports, and how one follows another.
//!
//! ```text
//! running ──(withdraw)──────────────> over: purged until nothing is in flight, then dropped; another one runs
//!    └──(librdkafka: fatal, or a record comes back)──> failed: purged, and takes nothing ──(withdraw)──> over
//! ```
//!
//! A producer has a thread that waits for reports. A bridge that is busy, which looks often anyway, takes them itself, and the thread sleeps.
//!
//! A producer that has failed is not replaced by itself: what was pushed later would overtake what it gave back. Whoever withdraws has stored
//! that by then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::config::KafkaConfig;
use super::delivery::{Delivery, Letter};
use super::error::{KafkaStartError, Meaning};
use super::pending::Pending;
use super::plight::Plight;
use super::record::fitting;
use super::topics::{Topic, Topics};
use crate::core::now_ms;
use crate::metrics as names;
use crate::room::Room;

/// How long one wait for reports lasts while none come: then it looks whether it is over. The first ones are told at once. Long, because
/// a poll spins for the last part of a millisecond: at 100 ms that was 0.8 % of a core for a bridge with nothing to do.
const POLL: Duration = Duration::from_secs(1);
/// How long reports are gathered while they do come.
const GATHER: Duration = Duration::from_micros(500);
/// The most that a dead letter waits for a look at the room, and somebody who waits for room if no report tells of it. Looks become so rare while nothing is
/// reported, in an outage.
const LOOK: Duration = Duration::from_millis(100);
/// So long the producer's thread believes that others take the reports.
const LAPSE: Duration = Duration::from_millis(100);
/// Events of which the reports are told together, at most.
const EVENTS_MAX: usize = 256;

/// The producers of a sink: one runs, others are on their way out.
pub(super) struct Producers {
    config: Arc<KafkaConfig>,
    pub(super) pending: Arc<Pending>,
    topics: Arc<Topics>,
    plight: Arc<Plight>,
    current: RwLock<Arc<Running>>,
    room: Arc<Room>,
}

/// A record with its ticket.
pub(super) type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// One producer.
pub(super) struct Running {
    producer: BaseProducer<Delivery>,
    retired: AtomicBool,
    /// Others take the reports.
    attended: AtomicBool,
    /// ... and have done so since the thread last looked.
    taken: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Producers {
    pub(super) fn start(
        config: &Arc<KafkaConfig>,
        topics: &Arc<Topics>,
        plight: &Arc<Plight>,
    ) -> Result<Arc<Self>, KafkaStartError> {
        let (pending, room) = (Arc::new(Pending::new()), Arc::new(Room::default()));
        let running = Running::start(config, topics, Arc::clone(&pending), Arc::clone(plight), &room)?;
        Ok(Arc::new(Self {
            config: Arc::clone(config),
            pending,
            topics: Arc::clone(topics),
            plight: Arc::clone(plight),
            current: RwLock::new(running),
            room,
        }))
    }

    pub(super) fn current(&self) -> Arc<Running> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`Sink::take_verdicts`](crate::sink::Sink::take_verdicts).
    pub(super) fn take_reports(&self) {
        self.current().take_reports_for_its_thread();
        if self.room.is_awaited() {
            self.room.news.notify_waiters();
        }
    }

    /// As [`Sink::leave_verdicts`](crate::sink::Sink::leave_verdicts).
    pub(super) fn leave_reports(&self) {
        self.current().leave_reports();
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(super) fn withdraw(&self) {
        // At once: what it still stores while the next one is made comes again by that one.
        self.current().retire();
        let (pending, plight) = (Arc::clone(&self.pending), Arc::clone(&self.plight));
        match Running::start(&self.config, &self.topics, pending, plight, &self.room) {
            Ok(next) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                metrics::counter!(names::KAFKA_PRODUCERS).increment(1);
            }
            // Whatever is pushed comes back, until another try.
            Err(error) => tracing::error!(%error, "no new Kafka producer can be made"),
        }
        self.room.news.notify_waiters();
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.current().retire();
    }
}

impl Running {
    fn start(
        config: &KafkaConfig,
        topics: &Arc<Topics>,
        pending: Arc<Pending>,
        plight: Arc<Plight>,
        room: &Arc<Room>,
    ) -> Result<Arc<Self>, KafkaStartError> {
        let batch_bytes_max = config.batch_bytes(topics.batch_bytes_max());
        let native = config.native_for(topics.record_bytes_max(), batch_bytes_max)?;
        let delivery = Delivery::new(pending, Arc::clone(topics), plight, Arc::clone(room), batch_bytes_max);
        let producer: BaseProducer<Delivery> = native.create_with_context(delivery)?;
        let no = || AtomicBool::new(false);
        let running =
            Arc::new(Self { producer, retired: no(), attended: no(), taken: no(), thread: OnceLock::new() });
        let (polled, room, dead_letter) =
            (Arc::clone(&running), Arc::clone(room), topics.dead_letter().cloned());
        let thread = std::thread::Builder::new()
            .name("kafka".into())
            .spawn(move || polled.serve(&room, dead_letter.as_deref()))
            .map_err(|error| KafkaStartError::Other(format!("no thread can be started: {error}")))?;
        let _ = running.thread.set(thread.thread().clone());
        Ok(running)
    }

    /// Hands a record to librdkafka, or gives it back.
    pub(super) fn send<'a>(&self, record: Record<'a>) -> Result<(), (Meaning, Record<'a>)> {
        if self.is_over() {
            return Err((Meaning::Withdrawn, record));
        }
        self.producer.send(record).map_err(|(error, record)| (Meaning::from(&error), record))
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.retired.load(Ordering::Acquire) || self.delivery().has_failed()
    }

    pub(super) fn delivery(&self) -> &Delivery {
        self.producer.client().context()
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.purge();
        self.wake();
    }

    /// Ends a sleep of its thread.
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn take_reports_for_its_thread(&self) {
        if self.is_over() {
            // Its thread may be in a long poll; what lies behind a record that came back is not to be sent before it.
            return self.purge();
        }
        self.attended.store(true, Ordering::Release);
        self.taken.store(true, Ordering::Release);
        self.delivery().gather(true);
        self.drain();
        if self.is_over() {
            self.purge();
            self.wake();
        } else if self.delivery().has_letters() {
            self.wake();
        }
    }

    fn leave_reports(&self) {
        if self.attended.swap(false, Ordering::AcqRel) {
            self.delivery().gather(false);
            self.delivery().tell_gathered();
            self.wake();
        }
    }

    fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
    }

    /// Takes the reports until it has retired and nothing is left of it.
    fn serve(self: Arc<Self>, room: &Room, dead_letter: Option<&Topic>) {
        let mut letters = Vec::new();
        let mut pause = None;
        loop {
            let reported = if letters.is_empty() && self.is_attended() {
                std::thread::park_timeout(LAPSE);
                if !self.taken.swap(false, Ordering::AcqRel) {
                    self.leave_reports();
                }
                // Whoever took them left reports to come.
                true
            } else {
                self.take_reports(pause)
            };
            let is_awaited = room.is_awaited();
            if is_awaited {
                room.news.notify_waiters();
            }
            pause = match pause {
                _ if reported => Some(GATHER),
                _ if !is_awaited && letters.is_empty() => None,
                pause => Some((2 * pause.unwrap_or(GATHER)).min(LOOK)),
            };
            letters.append(&mut self.delivery().take_letters());
            if let Some(topic) = dead_letter {
                letters.retain(|letter| !self.bury(topic, letter));
            }
            if self.is_over() {
                self.purge();
                // Lanes let go of it at the end of their turn; what they push before that is purged in the next round.
                let alone = Arc::strong_count(&self) == 1;
                if self.retired.load(Ordering::Acquire) && alone && self.producer.in_flight_count() == 0 {
                    return;
                }
            }
        }
    }

    /// Whether others take its reports. What is left of one that is over nobody takes but its thread.
    fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Acquire) && !self.is_over()
    }

    /// One wait for reports, of so long if something comes of its end; says whether there were any.
    fn take_reports(&self, pause: Option<Duration>) -> bool {
        self.delivery().gather(pause.is_some());
        let Some(pause) = pause else {
            // It lasts for all of its time, whatever comes: nobody may be waiting for its end.
            self.producer.poll(POLL);
            return self.delivery().tell_gathered() > 0;
        };
        // A poll waits for whole milliseconds and spins for the rest of its time.
        std::thread::sleep(pause);
        self.drain()
    }

    /// Takes the reports that there are and tells them; says whether there were any.
    fn drain(&self) -> bool {
        let mut reports = 0;
        for _ in 0..EVENTS_MAX {
            // Takes one event, which has the reports of one request.
            self.producer.poll(Duration::ZERO);
            let so_far = self.delivery().reports();
            // What lies behind a record that came back is to be purged before librdkafka sends it again.
            if std::mem::replace(&mut reports, so_far) == so_far || self.is_over() {
                break;
            }
        }
        self.delivery().tell_gathered() > 0
    }

    /// Sends a refused record to the dead letter topic; false if it has to wait for room.
    fn bury(&self, topic: &Topic, letter: &Letter) -> bool {
        let mut record = BaseRecord::with_opaque_to(&topic.name, usize::from(letter.ticket))
            .key(&letter.key[..])
            .payload(&letter.payload[..])
            .headers(letter.headers.clone());
        record.timestamp = letter.timestamp.map(|timestamp| {
            fitting(timestamp.cast_unsigned(), topic.before_ms_max(), now_ms()).cast_signed()
        });
        match self.send(record) {
            Ok(()) => {}
            Err((Meaning::Full, _)) => return false,
            Err((Meaning::Refused(_), _)) => {
                self.delivery().refused(letter.ticket, letter.refusal, &topic.name);
            }
            Err((Meaning::Withdrawn, _)) => self.delivery().withdrawn(letter.ticket),
        }
        true
    }
}
