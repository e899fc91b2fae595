//! Where news of one link's uplinks arrives, from whatever thread has them.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::Store;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{Reply, StoreError};
use tokio::sync::Notify;

use super::owed::OwedTicket;
use super::{Arrival, Streams, request};
use crate::store_requests::{RETRY_MAX, RETRY_MIN};

/// What has become of uplinks.
#[derive(Debug)]
pub(crate) enum Event {
    /// The sink has spoken of frames of a batch.
    Sink { batch: u64, frames: Range<u32>, reason_code: u8 },
    /// The store answered.
    Store { ticket: OwedTicket, question: Question, answer: Result<Reply, StoreError> },
    /// Those who hear it live have been sent it.
    FannedOut(OwedTicket),
    /// The pending frame that this one repeats is settled.
    Joined(Arrival, u8),
}

/// What the store is asked about an uplink.
#[derive(Debug)]
pub(crate) enum Question {
    /// To append it to these streams.
    Streams(Streams),
    /// Whether this client's session holds a filter that these streams do not cover.
    Device { client: Box<str>, streams: Streams },
    /// To keep it as its topic's retained message.
    Retain,
}

/// The news. Each is of an unsettled uplink, and each uplink has at most one for each part it owes: the link's window bounds it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    events: Mutex<Vec<Event>>,
    pub(crate) arrived: Notify,
    /// Requests in a row that found the store unavailable.
    store_failures: AtomicU32,
}

impl Inbox {
    /// Adds an event and wakes the link's task.
    pub(crate) fn push(&self, event: Event) {
        if let Event::Store { answer, .. } = &event {
            match answer {
                Err(StoreError::Unavailable(_)) => self.store_failures.fetch_add(1, Ordering::Relaxed),
                _ => self.store_failures.swap(0, Ordering::Relaxed),
            };
        }
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.arrived.notify_one();
    }

    /// Swaps what has arrived with `events`, which is empty.
    pub(crate) fn take(&self, events: &mut Vec<Event>) {
        std::mem::swap(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner), events);
    }

    /// How long to wait before the store is asked again.
    pub(super) fn store_retry_after(&self) -> Duration {
        let doublings = self.store_failures.load(Ordering::Relaxed).min(16);
        RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX)
    }
}

/// Asks the store; the answer arrives as an event.
pub(super) fn ask(
    store: &dyn Store,
    inbox: &Arc<Inbox>,
    ticket: OwedTicket,
    question: Question,
    message: SharedMessage,
) {
    let request = request(&question, message);
    let inbox = Arc::clone(inbox);
    store.submit(request, Box::new(move |answer| inbox.push(Event::Store { ticket, question, answer })));
}
