//! What librdkafka tells us: reports of records, errors of the whole, and its log.
//!
//! Called on the thread that polls a producer, its own or one that takes reports, for one record after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::error::{Meaning, Refusal, one_line};
use super::pending::{Pending, Ticket};
use super::plight::Plight;
use super::record::{bare_bytes, header_bytes};
use super::topics::{Topics, fate};
use crate::metrics as names;
use crate::room::Room;
use crate::sink::{Receipt, Verdict};

/// Header of a dead letter: why its own topic refused it.
pub(super) const REFUSED: &str = "refused";
/// Header of a dead letter: the topic that refused it.
pub(super) const REFUSED_BY: &str = "refused-by";

/// A record that waited for so long may be refused for its age alone. Less than the margin that its timestamp was given.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// The reports' way from one producer to those who wait.
pub(super) struct Delivery {
    pending: Arc<Pending>,
    topics: Arc<Topics>,
    plight: Arc<Plight>,
    room: Arc<Room>,
    /// What the producer's batches may have.
    batch_bytes_max: usize,
    counters: Counters,
    troubles: Troubles,
    buries: bool,
    /// Refused records that are to go to the dead letter topic. Each is one that was in librdkafka's queue a moment ago, whose bounds are theirs.
    letters: Mutex<Vec<Letter>>,
    gathered: Mutex<Gathered>,
}

/// Reports that are told together. Each wakes a link that then writes to its shard, which costs more than all else about a frame; in a busy
/// producer they come by the dozen each millisecond.
#[derive(Default)]
struct Gathered {
    /// Whether somebody will see to what is gathered soon.
    on: bool,
    /// Tickets of frames that are stored, as many as were in flight.
    stored: Vec<usize>,
    reports: u64,
}

/// A record on its way to the dead letter topic.
pub(super) struct Letter {
    pub(super) ticket: Ticket,
    pub(super) refusal: Refusal,
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: OwnedHeaders,
    pub(super) timestamp: Option<i64>,
}

struct Counters {
    stored: Counter,
    refused: Counter,
    withdrawn: Counter,
}

impl Delivery {
    /// For a producer whose batches may have so many bytes.
    pub(super) fn new(
        pending: Arc<Pending>,
        topics: Arc<Topics>,
        plight: Arc<Plight>,
        room: Arc<Room>,
        batch_bytes_max: usize,
    ) -> Self {
        let records = |result| metrics::counter!(names::KAFKA_RECORDS, "result" => result);
        let counters = Counters {
            stored: records("stored"),
            refused: records("refused"),
            withdrawn: records("withdrawn"),
        };
        Self {
            pending,
            buries: topics.dead_letter().is_some(),
            topics,
            plight,
            room,
            batch_bytes_max,
            counters,
            troubles: Troubles::default(),
            letters: Mutex::default(),
            gathered: Mutex::default(),
        }
    }

    /// Whether the producer takes nothing any more: it is beyond repair, or has given back a frame that must not be overtaken.
    pub(super) fn has_failed(&self) -> bool {
        self.troubles.fatal.load(Ordering::Acquire)
    }

    pub(super) fn has_letters(&self) -> bool {
        !self.letters.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn take_letters(&self) -> Vec<Letter> {
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether reports are gathered from now on, until [`Self::tell_gathered`], or told at once.
    pub(super) fn gather(&self, on: bool) {
        self.gathered().on = on;
    }

    /// Passes on what was gathered; gives the number of reports since the last time, gathered or not.
    pub(super) fn tell_gathered(&self) -> u64 {
        let mut gathered = self.gathered();
        let mut stored = std::mem::take(&mut gathered.stored);
        let reports = std::mem::take(&mut gathered.reports);
        drop(gathered);
        self.pending.stored(&mut stored);
        let mut gathered = self.gathered();
        // Unless another thread has gathered meanwhile.
        if gathered.stored.is_empty() {
            gathered.stored = stored;
        }
        reports
    }

    /// Reports since they were passed on.
    pub(super) fn reports(&self) -> u64 {
        self.gathered().reports
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that `topic` will not take. One that was acknowledged waits for an operator who can make it, and all behind it.
    pub(super) fn refused(&self, ticket: Ticket, refusal: Refusal, topic: &str) {
        if ticket.acknowledged
            && let Some(trouble) = refusal.trouble(topic)
        {
            self.plight.is(topic, trouble.to_string());
            return self.came_back(ticket, refusal.name());
        }
        self.counters.refused.increment(1);
        self.pending.report(ticket, Verdict::Refused(refusal.reason_code()));
    }

    /// A record comes back by itself. What follows it must not overtake it, so nothing follows until somebody has seen that it came back.
    fn came_back(&self, ticket: Ticket, reason: &str) {
        self.troubles.fail(reason);
        self.withdrawn(ticket);
    }

    pub(super) fn withdrawn(&self, ticket: Ticket) {
        self.counters.withdrawn.increment(1);
        self.pending.report(ticket, Verdict::Withdrawn);
    }

    /// What it means for this record: one that has waited through an outage was given a timestamp that fitted then, and one may be refused only for the
    /// batch that it was in. It comes back, to be given another.
    fn meaning(&self, error: &KafkaError, message: &BorrowedMessage<'_>, ticket: Ticket) -> Meaning {
        match Meaning::from(error) {
            Meaning::Refused(Refusal::Invalid)
                if self.pending.waited(ticket, Instant::now()) >= STALE_AFTER =>
            {
                Meaning::Withdrawn
            }
            // It leaves no room for others: it was alone.
            Meaning::Refused(Refusal::TooLarge) if bare_bytes(message) < self.batch_bytes_max => {
                let tells = self.topics.refused_batch(message.topic(), self.batch_bytes_max);
                // Smaller batches need another producer.
                self.troubles.fail("a batch was too large for its topic; smaller ones follow");
                // Of one that comes back it must be known whether its topic takes it, since its device is acknowledged before it is tried again.
                if tells || ticket.acknowledged {
                    Meaning::Withdrawn
                } else {
                    Meaning::Refused(Refusal::TooLarge)
                }
            }
            meaning => meaning,
        }
    }

    fn failed(&self, error: &KafkaError, message: &BorrowedMessage<'_>, ticket: Ticket) {
        match self.meaning(error, message, ticket) {
            Meaning::Refused(refusal) => {
                let topic = message.topic();
                let buries = self.buries && !ticket.dead_letter;
                let fate = match (buries, ticket.acknowledged) {
                    (true, _) => fate::BURIED,
                    (false, true) => fate::ACKNOWLEDGED,
                    (false, false) => fate::TOLD,
                };
                self.topics.complain(refusal, topic, bare_bytes(message), fate, Some(error));
                if buries {
                    let letter = Letter::of(message, ticket, refusal);
                    self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
                } else {
                    self.refused(ticket, refusal, topic);
                }
            }
            Meaning::Full | Meaning::Withdrawn => {
                // A purge is our own doing.
                let is_purged = matches!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
                );
                if is_purged {
                    self.withdrawn(ticket);
                } else {
                    self.came_back(ticket, &error.to_string());
                }
            }
        }
    }
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>, ticket: Ticket, refusal: Refusal) -> Self {
        let headers = message.headers().map(BorrowedHeaders::detach).unwrap_or_default();
        Self {
            ticket: Ticket { dead_letter: true, ..ticket },
            refusal,
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: mark_refused(headers, refusal, message.topic()),
            timestamp: message.timestamp().to_millis(),
        }
    }
}

pub(super) fn mark_refused(headers: OwnedHeaders, refusal: Refusal, topic: &str) -> OwnedHeaders {
    headers
        .insert(Header { key: REFUSED, value: Some(refusal.name()) })
        .insert(Header { key: REFUSED_BY, value: Some(topic) })
}

/// What [`mark_refused`] adds, at most.
pub(super) fn mark_refused_bytes(refusal: Refusal, topic: &str) -> usize {
    header_bytes(REFUSED, refusal.name().as_bytes()) + header_bytes(REFUSED_BY, topic.as_bytes())
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        // A poll may go on for a second after it.
        if self.room.is_awaited() {
            self.room.news.notify_waiters();
        }
        let ticket = Ticket::from(opaque);
        let message = match result {
            Ok(message) => message,
            Err((error, message)) => return self.failed(error, message, ticket),
        };
        self.counters.stored.increment(1);
        if self.plight.is_any() {
            self.plight.is_over(message.topic());
        }
        if ticket.dead_letter {
            metrics::counter!(names::KAFKA_DEAD_LETTERS).increment(1);
        }
        let mut gathered = self.gathered();
        gathered.reports += 1;
        if gathered.on && !ticket.wants_receipt {
            let plain = Ticket { dead_letter: false, acknowledged: false, ..ticket };
            gathered.stored.push(usize::from(plain));
            return;
        }
        drop(gathered);
        let verdict = if ticket.wants_receipt && message.offset() >= 0 {
            let (partition, offset) = (message.partition(), message.offset());
            Verdict::StoredAt(Receipt { topic: message.topic().into(), partition, offset })
        } else {
            Verdict::Stored
        };
        self.pending.report(ticket, verdict);
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.troubles.note(&error, reason);
    }
}

/// What went wrong with a whole client, for whoever asks why nothing comes.
#[derive(Default)]
pub(super) struct Troubles {
    fatal: AtomicBool,
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Troubles {
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let reason = one_line(reason);
        if code == RDKafkaErrorCode::Fatal {
            return self.fail(&reason);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // librdkafka says it at each try; a cause is not covered up by its consequence.
        if last.as_ref().is_none_or(|(known, _)| *known != code && code != RDKafkaErrorCode::AllBrokersDown) {
            tracing::warn!(%reason, "Kafka");
            *last = Some((code, reason));
        }
    }

    fn fail(&self, reason: &str) {
        if !self.fatal.swap(true, Ordering::AcqRel) {
            tracing::error!(%reason, "the Kafka producer has lost its way; its frames are withdrawn until a new one begins");
        }
    }

    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// librdkafka's own lines are for those who look for them: what an operator has to know we say ourselves.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "librdkafka: {text}");
        }
        _ => tracing::debug!(facility, "librdkafka: {text}"),
    }
}
