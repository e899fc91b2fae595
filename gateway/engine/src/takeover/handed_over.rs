//! What was handed over, for as long as its new owner may ask again: the answer may have been lost with a link.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Handover, ToBridge};

use crate::connection::Successor;
use crate::input::Now;
use crate::remembered::Remembered;
use crate::shared::Shared;

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
}

#[derive(Debug)]
struct Answer {
    until_ms: u64,
    session: Vec<u8>,
    owes_will: bool,
}

impl HandedOver {
    fn insert(&mut self, session: (ClientId, Epoch), answer: Answer) {
        self.bytes += answer.session.len();
        self.answers.insert(session, answer);
        while self.answers.len() > SESSIONS_MAX || self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(answer) = self.answers.remove_oldest() {
            self.bytes -= answer.session.len();
        }
    }
}

impl Shared {
    /// Tells the next owner, which may ask again.
    pub(crate) fn hand_over(
        &mut self,
        client: &ClientId,
        successor: Successor,
        session: Vec<u8>,
        owes_will: bool,
        now: Now,
    ) {
        self.say_handover(client, successor, &session, owes_will);
        // That there is nothing to know is true again.
        if owes_will || !session.is_empty() {
            let until_ms = now.monotonic_ms + ASKED_AGAIN_WITHIN_MS;
            let answer = Answer { until_ms, session, owes_will };
            self.handed_over.insert((client.clone(), successor.epoch), answer);
        }
    }

    /// Answers one that asks again as it was answered before. False if it was not.
    pub(crate) fn hand_over_again(&mut self, client: &ClientId, successor: Successor) -> bool {
        let session = (client.clone(), successor.epoch);
        let Some(Answer { session, owes_will, .. }) = self.handed_over.answers.find(&session) else {
            return false;
        };
        let (session, owes_will) = (session.clone(), *owes_will);
        self.say_handover(client, successor, &session, owes_will);
        true
    }

    /// Forgets what nobody asks for any more.
    pub(crate) fn forget_handed_over(&mut self, now: Now) {
        while self.handed_over.answers.oldest().is_some_and(|answer| answer.until_ms <= now.monotonic_ms) {
            self.handed_over.forget_oldest();
        }
    }

    /// Over the bridge that has asked: the new owner is linked with it, and with others perhaps not.
    fn say_handover(&mut self, client: &ClientId, successor: Successor, session: &[u8], owes_will: bool) {
        let Successor { owner, epoch, through } = successor;
        let link = if self.uplinks.is_up(through) { Some(through) } else { self.uplinks.choose(client) };
        let Some(link) = link else { return };
        self.uplinks.say(link, &ToBridge::Handover(Handover { client, epoch, owner, session, owes_will }));
    }
}
