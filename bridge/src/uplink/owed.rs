//! Uplinks of one link that owe more than the sink: streams and retained messages in the store, subscribers that hear them.
//!
//! ```text
//!  QoS > 0   SINK + STREAMS + RETAIN done ──(in order of arrival)──> fan out ──(GROUP done)──> settled
//!  QoS 0     fan out at once;  SINK + fan-out done ──────────────────────────────────────────> settled
//! ```
//! What fans out later does not wait for GROUP.
//!
//! Pure. Bounded by the link's window: whatever is in here is unsettled.

use std::collections::VecDeque;

use holdfast_wire::link::Positions;
use holdfast_wire::message::SharedMessage;

use super::Arrival;
use super::receipts::Fate;

/// What an uplink may still owe; sets of these are summed.
pub(crate) mod part {
    pub(crate) const SINK: u8 = 1;
    pub(crate) const STREAMS: u8 = 2;
    pub(crate) const RETAIN: u8 = 4;
    pub(crate) const FANOUT: u8 = 8;
    /// A member of each group of persistent sessions has taken it, or the group's stream has it.
    pub(crate) const GROUP: u8 = 16;
}

/// Number of an uplink in here.
pub(crate) type OwedTicket = u64;

#[derive(Debug)]
struct Entry {
    arrival: Arrival,
    message: SharedMessage,
    positions: Positions,
    /// Sum of [`part`]s that are not done.
    owes: u8,
    fate: Fate,
    /// It fans out behind those that arrived before it; otherwise it was sent to fan out when it came.
    ordered: bool,
    released: bool,
}

/// The uplinks, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    entries: VecDeque<Entry>,
    /// Ticket of the first entry.
    first: OwedTicket,
    /// Index of the first ordered entry that may not have been released.
    next_release: usize,
    settled: Vec<(Arrival, Fate)>,
}

impl Owed {
    /// An uplink arrived that owes these parts; `ordered` for QoS > 0.
    pub(crate) fn insert(
        &mut self,
        arrival: Arrival,
        message: SharedMessage,
        owes: u8,
        ordered: bool,
    ) -> OwedTicket {
        debug_assert!(owes != 0);
        self.entries.push_back(Entry {
            arrival,
            message,
            positions: Positions::new(),
            owes,
            fate: Fate::default(),
            ordered,
            released: !ordered || owes & part::FANOUT == 0,
        });
        self.first + self.entries.len() as u64 - 1
    }

    /// Its message, for whoever has to try again.
    pub(crate) fn message(&self, ticket: OwedTicket) -> Option<&SharedMessage> {
        self.entry(ticket).map(|entry| &entry.message)
    }

    /// A part is done, or refused for good; the first refusal is what the publisher hears.
    pub(crate) fn done(&mut self, ticket: OwedTicket, done: u8, fate: Fate) {
        let Some(at) = ticket.checked_sub(self.first) else { return };
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        if entry.owes & done == 0 {
            return;
        }
        entry.owes &= !done;
        if entry.fate.reason_code == 0 && fate != Fate::default() {
            entry.fate = fate;
        }
        if entry.owes == 0 {
            self.settled.push((entry.arrival, std::mem::take(&mut entry.fate)));
            self.drop_settled();
        }
    }

    /// Where its message stands in streams, besides what is known of that; goes along when it fans out.
    pub(crate) fn stands_at(&mut self, ticket: OwedTicket, positions: Positions) {
        let Some(at) = ticket.checked_sub(self.first) else { return };
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.positions.extend(positions);
        }
    }

    /// The next uplink that may fan out now: everything that comes before is done, for it and for those that arrived before it. One that was
    /// refused is passed over: its publisher hears that it did not go through.
    pub(crate) fn poll_release(&mut self) -> Option<(OwedTicket, SharedMessage, Positions)> {
        while let Some(entry) = self.entries.get_mut(self.next_release) {
            if entry.released {
                self.next_release += 1;
                continue;
            }
            debug_assert!(entry.ordered);
            if entry.owes & !part::GROUP != part::FANOUT {
                return None;
            }
            entry.released = true;
            let ticket = self.first + self.next_release as u64;
            if entry.fate.reason_code == 0 {
                let released = (ticket, entry.message.clone(), std::mem::take(&mut entry.positions));
                return Some(released);
            }
            self.done(ticket, part::FANOUT | part::GROUP, Fate::default());
        }
        None
    }

    /// The next uplink that owes nothing any more, with what its publisher hears.
    pub(crate) fn poll_settled(&mut self) -> Option<(Arrival, Fate)> {
        self.settled.pop()
    }

    /// Whether no uplink owes anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.settled.is_empty()
    }

    fn entry(&self, ticket: OwedTicket) -> Option<&Entry> {
        self.entries.get(ticket.checked_sub(self.first)? as usize)
    }

    fn drop_settled(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.owes == 0) {
            self.entries.pop_front();
            self.first += 1;
            self.next_release = self.next_release.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;

    use super::*;

    fn insert(owed: &mut Owed, sequence: u64, owes: u8) -> OwedTicket {
        let message = SharedMessage::new(&Message {
            id: sequence,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "d",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: &[],
        });
        let arrival = Arrival { sequence, bytes: 1, is_will: false, wants_receipt: false, dedupe: None };
        owed.insert(arrival, message, owes, true)
    }

    fn released(owed: &mut Owed) -> Vec<u64> {
        std::iter::from_fn(|| owed.poll_release()).map(|(_, message, _)| message.view().id).collect()
    }

    fn settled(owed: &mut Owed) -> Vec<(u64, u8)> {
        std::iter::from_fn(|| owed.poll_settled())
            .map(|(arrival, fate)| (arrival.sequence, fate.reason_code))
            .collect()
    }

    #[test]
    fn fan_out_keeps_the_order_of_arrival_whatever_is_done_first() {
        let mut owed = Owed::default();
        let all = part::SINK | part::STREAMS | part::FANOUT;
        let tickets: Vec<_> = (1..=3).map(|sequence| insert(&mut owed, sequence, all)).collect();
        for &ticket in tickets.iter().rev() {
            owed.done(ticket, part::SINK, Fate::default());
        }
        owed.done(tickets[1], part::STREAMS, Fate::default());
        assert_eq!(released(&mut owed), [0; 0]);
        owed.done(tickets[0], part::STREAMS, Fate::default());
        assert_eq!(released(&mut owed), [1, 2]);
        owed.done(tickets[1], part::FANOUT, Fate::default());
        assert_eq!(settled(&mut owed), [(2, 0)]);
        owed.done(tickets[2], part::STREAMS, Fate::default());
        assert_eq!(released(&mut owed), [3]);
        owed.done(tickets[0], part::FANOUT, Fate::default());
        owed.done(tickets[2], part::FANOUT, Fate::default());
        assert_eq!(settled(&mut owed).len(), 2);
        assert!(owed.is_empty());
    }

    #[test]
    fn what_is_refused_reaches_no_subscriber_and_holds_nobody_up() {
        let mut owed = Owed::default();
        let first = insert(&mut owed, 1, part::SINK | part::FANOUT);
        let second = insert(&mut owed, 2, part::SINK | part::FANOUT);
        owed.done(second, part::SINK, Fate::default());
        owed.done(first, part::SINK, Fate::refused(0x97));
        assert_eq!(released(&mut owed), [2]);
        assert_eq!(settled(&mut owed), [(1, 0x97)]);
    }

    #[test]
    fn what_no_one_listens_to_is_settled_without_a_fan_out() {
        let mut owed = Owed::default();
        let ticket = insert(&mut owed, 1, part::SINK | part::RETAIN);
        owed.done(ticket, part::RETAIN, Fate::default());
        owed.done(ticket, part::RETAIN, Fate::default());
        assert_eq!(settled(&mut owed), []);
        owed.done(ticket, part::SINK, Fate::default());
        assert_eq!(settled(&mut owed), [(1, 0)]);
        assert!(owed.is_empty());
    }
}
