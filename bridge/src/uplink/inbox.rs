//! Where news of one link's uplinks arrives, from whatever thread has them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_wire::link::Positions;
use holdfast_wire::store::{Reply, StoreError};
use tokio::sync::Notify;

use super::Arrival;
use super::owed::OwedTicket;
use super::questions::Question;
use super::receipts::Fate;
use crate::sink::Verdict;

/// What has become of uplinks.
#[derive(Debug)]
pub(crate) enum Event {
    /// The sink has spoken of frames of a batch.
    Sink { batch: u64, frames: Range<u32>, verdict: Verdict },
    /// The store answered.
    Store { ticket: OwedTicket, question: Question, answer: Result<Reply, StoreError> },
    /// The store has lost its data a moment ago, and does not have all that was asked about: the message stands here, and the question is what is left.
    Awaited { ticket: OwedTicket, question: Question, positions: Positions },
    /// Those who hear it live have been sent it; `done` is the sum of the parts that this ends.
    FannedOut { ticket: OwedTicket, done: u8 },
    /// Its groups have it, in a member or in their stream; or a reason code if one will not.
    Groups(OwedTicket, u8),
    /// The pending frame that this one repeats is settled.
    Joined(Arrival, Fate),
}

/// The news. Each is of an unsettled uplink, and each uplink has at most one for each part it owes: the link's window bounds it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    events: Mutex<Vec<Event>>,
    pub(crate) arrived: Notify,
    store_refusals: AtomicU64,
}

impl Inbox {
    /// Adds an event and wakes the link's task.
    pub(crate) fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.arrived.notify_one();
    }

    /// Swaps what has arrived with `events`, which is empty.
    pub(crate) fn take(&self, events: &mut Vec<Event>) {
        std::mem::swap(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner), events);
    }

    /// The store could not answer; to be noted before the event that says so is in here.
    pub(super) fn note_store_refusal(&self) {
        self.store_refusals.fetch_add(1, Ordering::Release);
    }

    /// The event of such a refusal is being handled.
    pub(super) fn handle_store_refusal(&self) {
        self.store_refusals.fetch_sub(1, Ordering::Release);
    }

    /// Whether the store could not answer something and nobody has handled that yet, whatever it has answered since.
    pub(super) fn is_store_refusing(&self) -> bool {
        self.store_refusals.load(Ordering::Acquire) != 0
    }
}
