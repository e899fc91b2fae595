//! Wills whose connections have ended, until somebody has published them.
//!
//! ```text
//!            left by a death,        delay or session over            published, or its client had said goodbye
//! (absent) ──a close, a loss──> waits ──────────────────────> due ─────────────────────────────> (absent)
//!                                 │  resumed: struck out       │ ^ given: again after a while
//!                                 │  (MQTT-3.1.3-9)            │ └───────────────────────┐
//!                                 ├────> (absent)              v                         │
//!                                 └─ another session begins ─> given to whoever asks, or to who opens the session first
//! ```
//!
//! Who opens a session is given what nobody was given yet, so that it is published before the client is heard again; for a shorter
//! while than others, as nobody else publishes it meanwhile and the opener may die. They are bounded by whoever leaves one ([`Wills::bytes`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_wire::coding::{CodingError, Reader, Write};
use holdfast_wire::ids::{ClientId, Owner};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{DueWill, OPENER_WILL_S, WILL_AGAIN_S, WillRecord};

use super::change::{Change, Journal};

const FORMAT: u8 = 1;

/// What a will takes beside its message and its client's name, roughly.
const OVERHEAD_BYTES: u64 = 128;

/// A will that its session's owner does not publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftWill {
    pub(crate) client: ClientId,
    /// Unix ms.
    pub(crate) due_ms: u64,
    pub(crate) will: WillRecord,
}

/// All wills, each by the epoch that its session had when it was left.
#[derive(Default)]
pub(crate) struct Wills {
    by_number: HashMap<u64, Kept>,
    /// When each is given next, soonest first.
    next_ms: BTreeSet<(u64, u64)>,
    /// Of each client the last one, if nobody was given it yet, or only who opened its session.
    last_of: BTreeMap<ClientId, u64>,
    bytes: u64,
}

struct Kept {
    left: LeftWill,
    next_ms: u64,
    answered: Option<Answered>,
}

/// To which opening a will was answered.
struct Answered {
    epoch: u64,
    former: Option<Owner>,
}

/// A client opens its session.
pub(crate) struct Opening {
    /// Its new epoch.
    pub(crate) epoch: u64,
    /// Its epoch before, if the same owner had it.
    pub(crate) repeats: Option<u64>,
    /// Whoever else had it.
    pub(crate) former: Option<Owner>,
    pub(crate) resumes: bool,
}

impl Wills {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether this one is there.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    /// Whether what becomes of a will depends on what the client does next.
    pub(crate) fn depend_on(&self, client: &str) -> bool {
        self.last_of.contains_key(client)
    }

    /// A connection ended that had a will.
    pub(crate) fn leave(&mut self, number: u64, left: LeftWill, journal: &mut impl Journal) {
        journal.record(|| Change::Will(number, left.encode()));
        self.restore(number, left);
    }

    /// The will that falls due by an opening, or did before and was given to nobody, and who owned its session. One whose session goes on
    /// before its time is struck out.
    pub(crate) fn answer(
        &mut self,
        client: &ClientId,
        opening: &Opening,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Option<(Option<Owner>, DueWill)> {
        let number = self.last_of.remove(client)?;
        let kept = self.by_number.get_mut(&number)?;
        let former = match &kept.answered {
            // The answer may have been lost, so this one is like it.
            Some(answered) if opening.repeats == Some(answered.epoch) && kept.next_ms > now_ms => {
                answered.former
            }
            Some(_) => return None,
            None if opening.resumes && kept.left.due_ms > now_ms => {
                self.remove(number, journal);
                return None;
            }
            None => opening.former,
        };
        kept.answered = Some(Answered { epoch: opening.epoch, former });
        let due = DueWill { client: client.clone(), number, will: kept.left.will.clone() };
        self.last_of.insert(client.clone(), number);
        self.fall_due(number, now_ms, journal);
        self.give_again(number, now_ms + u64::from(OPENER_WILL_S) * 1_000);
        Some((former, due))
    }

    /// A client turns out to have been back before: one that waits for its time is struck out.
    pub(crate) fn take_back(&mut self, client: &str, now_ms: u64, journal: &mut impl Journal) {
        let Some(number) = self.last_of.remove(client) else { return };
        if self.by_number.get(&number).is_some_and(|kept| kept.left.due_ms > now_ms) {
            self.remove(number, journal);
        }
    }

    /// A client's session ends at this time, and one that would fall due later does so then.
    pub(crate) fn bring_forward(&mut self, client: &str, to_ms: u64, journal: &mut impl Journal) {
        if let Some(number) = self.last_of.get(client) {
            self.fall_due(*number, to_ms, journal);
        }
    }

    /// Wills that have fallen due, the longest first. Each stays away for a while then.
    pub(crate) fn give(&mut self, wills_max: u32, now_ms: u64) -> Vec<DueWill> {
        let mut given = Vec::new();
        while given.len() < wills_max as usize
            && let Some(&(next_ms, number)) = self.next_ms.first()
            && next_ms <= now_ms
        {
            self.give_again(number, now_ms + u64::from(WILL_AGAIN_S) * 1_000);
            let Some(Kept { left, .. }) = self.by_number.get(&number) else { return given };
            if self.last_of.get(&left.client) == Some(&number) {
                self.last_of.remove(&left.client);
            }
            given.push(DueWill { client: left.client.clone(), number, will: left.will.clone() });
        }
        given
    }

    /// Somebody has published it, or nobody is to.
    pub(crate) fn strike_out(&mut self, client: &ClientId, number: u64, journal: &mut impl Journal) {
        if self.by_number.get(&number).is_some_and(|kept| kept.left.client == *client) {
            self.remove(number, journal);
        }
    }

    /// Puts one in its place without telling a journal.
    pub(crate) fn restore(&mut self, number: u64, left: LeftWill) {
        self.forget(number);
        // Numbers grow, and a client that leaves a later one did not come back in time for the former.
        let latest = self.last_of.entry(left.client.clone()).or_insert(number);
        *latest = number.max(*latest);
        let next_ms = left.due_ms;
        self.next_ms.insert((next_ms, number));
        self.bytes += left.bytes();
        self.by_number.insert(number, Kept { left, next_ms, answered: None });
    }

    fn fall_due(&mut self, number: u64, at_ms: u64, journal: &mut impl Journal) {
        let Some(kept) = self.by_number.get_mut(&number) else { return };
        if kept.left.due_ms <= at_ms {
            return;
        }
        kept.left.due_ms = at_ms;
        journal.record(|| Change::Will(number, kept.left.encode()));
        self.give_again(number, at_ms);
    }

    fn give_again(&mut self, number: u64, at_ms: u64) {
        let Some(kept) = self.by_number.get_mut(&number) else { return };
        self.next_ms.remove(&(kept.next_ms, number));
        kept.next_ms = at_ms;
        self.next_ms.insert((at_ms, number));
    }

    fn remove(&mut self, number: u64, journal: &mut impl Journal) {
        if self.forget(number) {
            journal.record(|| Change::WillGone(number));
        }
    }

    fn forget(&mut self, number: u64) -> bool {
        let Some(Kept { left, next_ms, .. }) = self.by_number.remove(&number) else { return false };
        self.next_ms.remove(&(next_ms, number));
        self.bytes -= left.bytes();
        if self.last_of.get(&left.client) == Some(&number) {
            self.last_of.remove(&left.client);
        }
        true
    }
}

impl LeftWill {
    /// What it counts for in the bound.
    pub(crate) fn bytes(&self) -> u64 {
        (self.client.len() + self.will.message.as_bytes().len()) as u64 + OVERHEAD_BYTES
    }

    /// Writes it for a disk; [`Self::decode`] reads it.
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(64 + self.will.message.as_bytes().len());
        row.put_u8(FORMAT);
        row.put_text(&self.client);
        row.put_u64(self.due_ms);
        row.put_u32(self.will.delay_s);
        row.put_u32(self.will.expiry_s);
        row.put_bytes(self.will.message.as_bytes());
        row
    }

    /// Reads what fills `row`.
    pub(crate) fn decode(row: &[u8]) -> Result<Self, CodingError> {
        let mut reader = Reader::new(row);
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(CodingError::UnknownValue { field: "will's row format", value: u64::from(format) });
        }
        let client = ClientId::new(reader.text()?);
        let (due_ms, delay_s, expiry_s) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let message = SharedMessage::from_bytes(reader.bytes()?)?;
        reader.finish()?;
        Ok(Self { client, due_ms, will: WillRecord { message, delay_s, expiry_s } })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;

    use super::*;
    use crate::state::NoJournal;

    fn left(client: &str, due_ms: u64) -> LeftWill {
        let message = SharedMessage::new(&Message {
            id: 1,
            topic: "gone",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: client,
            published_at_ms: 1,
            expires_at_ms: 0,
            properties: &[],
            payload: b"!",
        });
        let will = WillRecord { message, delay_s: 5, expiry_s: 60 };
        LeftWill { client: ClientId::new(client), due_ms, will }
    }

    #[test]
    fn a_will_survives_its_row_and_every_strict_prefix_is_refused() {
        let row = left("d", 9).encode();
        assert_eq!(LeftWill::decode(&row), Ok(left("d", 9)));
        for length in 0..row.len() {
            assert!(LeftWill::decode(&row[..length]).is_err(), "a prefix of {length} bytes was taken");
        }
    }

    #[test]
    fn nothing_is_left_of_a_will_that_was_published_or_struck_out() {
        let mut wills = Wills::default();
        for (number, client) in [(1, "published"), (2, "back"), (3, "opened"), (4, "back later")] {
            wills.leave(number, left(client, 10), &mut NoJournal);
        }
        let opening = |resumes, repeats| Opening { epoch: 5, repeats, former: None, resumes };
        let answer = |wills: &mut Wills, client: &str, opening| {
            wills.answer(&ClientId::new(client), &opening, 9, &mut NoJournal).map(|(_, due)| due.number)
        };
        assert_eq!(answer(&mut wills, "back", opening(true, None)), None);
        assert_eq!(answer(&mut wills, "opened", opening(false, None)), Some(3));
        assert_eq!(answer(&mut wills, "opened", opening(true, Some(5))), Some(3));
        wills.take_back("back later", 9, &mut NoJournal);
        assert_eq!(wills.give(10, 10).len(), 1);
        for (client, number) in [("published", 1), ("opened", 3)] {
            wills.strike_out(&ClientId::new(client), number, &mut NoJournal);
        }
        assert!(wills.by_number.is_empty() && wills.next_ms.is_empty() && wills.last_of.is_empty());
        assert_eq!(wills.bytes, 0);
    }
}
