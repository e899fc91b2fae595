//! Wills of sessions whose owner died, until somebody has published them.
//!
//! ```text
//!            reaped                    delay or session over             published
//! (absent) ──────────> waits ───────────────────────────────────> due ─────────────> (absent)
//!                        │  resumed: struck out (MQTT-3.1.3-9)     ^ │ given: again after a while
//!                        │  session ended by a clean start ────────┘ └──┐
//!                        └────> (absent)                                └─> due
//! ```
//!
//! They are bounded by whoever leaves one ([`Wills::len`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_wire::coding::{CodingError, Reader, Write};
use holdfast_wire::ids::ClientId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{DueWill, WILL_AGAIN_S, WillRecord};

use super::change::{Change, Journal};

const FORMAT: u8 = 1;

/// A will that its session's owner cannot publish any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftWill {
    pub(crate) client: ClientId,
    /// Unix ms.
    pub(crate) due_ms: u64,
    pub(crate) will: WillRecord,
}

/// All wills, each by the epoch that its session was given when it was reaped.
#[derive(Default)]
pub(crate) struct Wills {
    by_number: HashMap<u64, (LeftWill, u64)>,
    /// When each is given next, soonest first.
    next_ms: BTreeSet<(u64, u64)>,
    /// Those whose client may yet come back in time, and some for which it is too late.
    waiting: BTreeMap<ClientId, u64>,
}

impl Wills {
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether this one is there.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    /// Whether what becomes of a will depends on the client's return.
    pub(crate) fn waits_for(&self, client: &str) -> bool {
        self.waiting.contains_key(client)
    }

    /// A session was reaped that had a will.
    pub(crate) fn leave(&mut self, number: u64, left: LeftWill, journal: &mut impl Journal) {
        journal.record(|| Change::Will(number, left.encode()));
        self.restore(number, left);
    }

    /// A client opens its session, and resumes it or begins a new one.
    pub(crate) fn come_back(&mut self, client: &str, resumes: bool, now_ms: u64, journal: &mut impl Journal) {
        let Some(number) = self.waiting.remove(client) else { return };
        let Some((left, next_ms)) = self.by_number.get_mut(&number) else { return };
        if left.due_ms <= now_ms {
            return;
        }
        self.next_ms.remove(&(*next_ms, number));
        if resumes {
            self.by_number.remove(&number);
            journal.record(|| Change::WillGone(number));
            return;
        }
        left.due_ms = now_ms;
        *next_ms = now_ms;
        self.next_ms.insert((now_ms, number));
        journal.record(|| Change::Will(number, left.encode()));
    }

    /// Wills that have fallen due, the longest first. Each stays away for a while then.
    pub(crate) fn give(&mut self, wills_max: u32, now_ms: u64) -> Vec<DueWill> {
        let mut given = Vec::new();
        while given.len() < wills_max as usize
            && let Some(&(next_ms, number)) = self.next_ms.first()
            && next_ms <= now_ms
        {
            self.next_ms.pop_first();
            let Some((left, next_ms)) = self.by_number.get_mut(&number) else { continue };
            *next_ms = now_ms + u64::from(WILL_AGAIN_S) * 1_000;
            self.next_ms.insert((*next_ms, number));
            if self.waiting.get(&left.client) == Some(&number) {
                self.waiting.remove(&left.client);
            }
            given.push(DueWill { client: left.client.clone(), number, will: left.will.clone() });
        }
        given
    }

    /// Somebody has published it.
    pub(crate) fn strike_out(&mut self, client: &ClientId, number: u64, journal: &mut impl Journal) {
        if self.by_number.get(&number).is_none_or(|(left, _)| left.client != *client) {
            return;
        }
        if let Some((left, next_ms)) = self.by_number.remove(&number) {
            self.next_ms.remove(&(next_ms, number));
            if self.waiting.get(&left.client) == Some(&number) {
                self.waiting.remove(&left.client);
            }
            journal.record(|| Change::WillGone(number));
        }
    }

    /// Puts one in its place without telling a journal.
    pub(crate) fn restore(&mut self, number: u64, left: LeftWill) {
        // Numbers grow, and a client that leaves a later one did not come back in time for the former.
        let latest = self.waiting.entry(left.client.clone()).or_insert(number);
        *latest = number.max(*latest);
        self.next_ms.insert((left.due_ms, number));
        let next_ms = left.due_ms;
        self.by_number.insert(number, (left, next_ms));
    }
}

impl LeftWill {
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
        for (number, client) in [(1, "published"), (2, "back")] {
            wills.leave(number, left(client, 10), &mut NoJournal);
        }
        wills.come_back("back", true, 9, &mut NoJournal);
        assert_eq!(wills.give(10, 10).len(), 1);
        wills.strike_out(&ClientId::new("published"), 1, &mut NoJournal);
        assert_eq!((wills.len(), wills.next_ms.len(), wills.waiting.len()), (0, 0, 0));
    }
}
