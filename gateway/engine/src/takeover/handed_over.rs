//! What is handed over: held back until all that the client has said here is settled, and known for as long as its new owner may ask again, as the answer may have
//! been lost with a link.
//!
//! ```text
//!   asked for ── frames of the client are on their way ──> held back ── settled, or long enough held back ──> told ── told again, if it is asked for again ──> forgotten
//!      └──────── none is ─────────────────────────────────────────────────────────────────────────────────────^
//! ```
//! The client speaks once its new owner has heard from us, perhaps over a bridge that has nothing to do with those frames. One that hears nothing in time goes on
//! without us, and publishes the will itself; so a sink that takes its time gets none beyond [`SETTLED_WITHIN_MS`], and what is said then may come before
//! what was said here.

use std::collections::{BTreeMap, VecDeque};

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Handover, ToBridge};

use crate::connection::Successor;
use crate::input::Now;
use crate::remembered::Remembered;
use crate::shared::Shared;

/// How long frames of the client are waited for, in ms. With the way to us and back it is well within the time that a new owner waits.
const SETTLED_WITHIN_MS: u64 = 300;
/// Twice as long as a new owner waits, in ms.
const ASKED_AGAIN_WITHIN_MS: u64 = 1_000;
/// So many sessions ...
const SESSIONS_MAX: usize = 10_000;
/// ... and so many bytes of what is known of them. Beyond it the oldest is forgotten: its new owner, should it ask again, hears that there is nothing to know, and
/// goes on with what the store has.
const BYTES_MAX: usize = 16 << 20;

/// Answers that were given, by client and the new owner's epoch.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    answers: Remembered<Answer>,
    bytes: usize,
    /// Whom to tell later, by client and the new owner's epoch. Beyond [`SESSIONS_MAX`] one is told at once.
    held_back: BTreeMap<(ClientId, Epoch), Successor>,
    /// Until when, in that order; some have been told. One for each session that was lost within that time.
    held_back_until_ms: VecDeque<(u64, (ClientId, Epoch))>,
}

#[derive(Debug)]
struct Answer {
    until_ms: u64,
    session: Vec<u8>,
    owes_will: bool,
}

impl HandedOver {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.held_back_until_ms.front().map(|(until_ms, _)| *until_ms)
    }

    fn insert(&mut self, session: (ClientId, Epoch), answer: Answer) {
        let former = self.answers.remove(&session);
        self.bytes -= former.map_or(0, |former| former.session.len());
        self.bytes += answer.session.len();
        self.answers.insert(session, answer);
    }

    fn is_beyond_bounds(&self) -> bool {
        self.answers.len() > SESSIONS_MAX || self.bytes > BYTES_MAX
    }

    fn forget_oldest(&mut self) {
        if let Some((_, answer)) = self.answers.remove_oldest() {
            self.bytes -= answer.session.len();
        }
    }
}

impl Shared {
    /// Tells the next owner, now or once what its client has said here is settled. It may ask again.
    pub(crate) fn hand_over(
        &mut self,
        client: &ClientId,
        successor: Successor,
        session: Vec<u8>,
        owes_will: bool,
        now: Now,
    ) {
        if !self.hold_back(client, successor, now) {
            self.say_handover(client, successor, &session, owes_will);
        }
        // That there is nothing to know is true again.
        if owes_will || !session.is_empty() {
            let until_ms = now.monotonic_ms + ASKED_AGAIN_WITHIN_MS;
            let answer = Answer { until_ms, session, owes_will };
            self.handed_over.insert((client.clone(), successor.epoch), answer);
            self.forget_beyond_bounds();
        }
    }

    /// Who still waits for one that has to go hears it at once: it would hear later that there was nothing to know.
    fn forget_beyond_bounds(&mut self) {
        while self.handed_over.is_beyond_bounds() {
            let Some(oldest) = self.handed_over.answers.oldest_session().cloned() else { return };
            if let Some(successor) = self.handed_over.held_back.remove(&oldest) {
                self.say_known(&oldest.0, successor);
            }
            self.handed_over.forget_oldest();
        }
    }

    /// Answers one that asks again as it was answered before, or will be. False if it was not.
    pub(crate) fn hand_over_again(&mut self, client: &ClientId, successor: Successor) -> bool {
        let session = (client.clone(), successor.epoch);
        if let Some(held_back) = self.handed_over.held_back.get_mut(&session) {
            *held_back = successor;
            return true;
        }
        let is_known = self.handed_over.answers.find(&session).is_some();
        if is_known {
            self.say_known(client, successor);
        }
        is_known
    }

    /// All that this client has said here is settled: whoever waits for that is told.
    pub(crate) fn say_held_back(&mut self, client: &ClientId) {
        let all = (client.clone(), Epoch(0))..=(client.clone(), Epoch(u64::MAX));
        let told: Vec<_> = self.handed_over.held_back.extract_if(all, |_, _| true).collect();
        for (_, successor) in told {
            self.say_known(client, successor);
        }
    }

    /// Tells those who cannot wait for any longer.
    pub(crate) fn say_overdue(&mut self, now: Now) {
        let is_due = |due: &mut (u64, _)| due.0 <= now.monotonic_ms;
        while let Some((_, session)) = self.handed_over.held_back_until_ms.pop_front_if(is_due) {
            if let Some(successor) = self.handed_over.held_back.remove(&session) {
                self.say_known(&session.0, successor);
            }
        }
    }

    /// False if there is nothing to wait for, or too many wait.
    fn hold_back(&mut self, client: &ClientId, successor: Successor, now: Now) -> bool {
        let HandedOver { held_back, held_back_until_ms, .. } = &mut self.handed_over;
        if !self.last_words.has_any_of(client) || held_back.len() >= SESSIONS_MAX {
            return false;
        }
        let session = (client.clone(), successor.epoch);
        held_back.insert(session.clone(), successor);
        held_back_until_ms.push_back((now.monotonic_ms + SETTLED_WITHIN_MS, session));
        true
    }

    /// Forgets what nobody asks for any more.
    pub(crate) fn forget_handed_over(&mut self, now: Now) {
        while self.handed_over.answers.oldest().is_some_and(|answer| answer.until_ms <= now.monotonic_ms) {
            self.handed_over.forget_oldest();
        }
    }

    /// Tells what is known; what was forgotten meanwhile is nothing.
    fn say_known(&mut self, client: &ClientId, successor: Successor) {
        let session = (client.clone(), successor.epoch);
        let answer = self.handed_over.answers.find(&session);
        let (session, owes_will) =
            answer.map_or((Vec::new(), false), |answer| (answer.session.clone(), answer.owes_will));
        self.say_handover(client, successor, &session, owes_will);
    }

    /// Over the bridge that has asked: the new owner is linked with it, and with others perhaps not.
    fn say_handover(&mut self, client: &ClientId, successor: Successor, session: &[u8], owes_will: bool) {
        let Successor { owner, epoch, through } = successor;
        let Some(link) = self.uplinks.this_or_chosen(through, client) else { return };
        self.uplinks.say(link, &ToBridge::Handover(Handover { client, epoch, owner, session, owes_will }));
    }
}
