//! The window up: what the client published and is owed an answer for.
//!
//! ```text
//!  QoS 1   PUBLISH ──> owed ── settled, and all before it ──> PUBACK
//!  QoS 2   PUBLISH ──> owed ── settled, and all before it ──> PUBREC ──> received ── PUBREL ──> PUBCOMP
//! ```
//! Answers leave in the order in which the publications came (MQTT-4.6.0-2), so a settled one waits for those before it.

use std::collections::VecDeque;

use holdfast_wire::mqtt::PacketId;

use super::receipts::{Receipt, Receipts};

/// Publications without their final answer. Those of this connection are bounded by `mqtt.receive_maximum`: a client that goes beyond is disconnected, one of
/// 3.1.1 is held back as long as it is owed first answers, and bounded by its 65,535 packet ids for the rest.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    owed: VecDeque<Owed>,
    /// QoS 2 ids whose PUBREC was sent and whose PUBREL has not come: a PUBLISH with such an id is the same one again (MQTT-4.3.3-10).
    received: Vec<Received>,
    /// Only where the client asked for receipts.
    receipts: Option<Box<Receipts>>,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    packet_id: PacketId,
    /// It came with an earlier connection: the quota begins anew with each (section 4.9).
    restored: bool,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    packet_id: PacketId,
    exactly_once: bool,
    /// The reason code once settled.
    settled: Option<u8>,
}

/// An answer whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) packet_id: PacketId,
    /// PUBREC rather than PUBACK.
    pub(crate) exactly_once: bool,
    pub(crate) reason_code: u8,
    pub(crate) receipt: Option<Box<Receipt>>,
}

/// What a PUBLISH with QoS > 0 is to this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Not seen before: pass it on.
    New,
    /// On its way already: its answer will come.
    Pending,
    /// A QoS 2 publication that was settled: PUBREC again.
    Received,
    /// One more than the receive maximum.
    TooMany,
}

impl Receiving {
    /// Judges a PUBLISH before it is passed on. `maximum` bounds what has no final answer; for 3.1.1, which knows no receive maximum, only what
    /// is owed its first answer (`first_half_only`), as its PUBREL may stand behind the PUBLISH that would be held back.
    pub(crate) fn judge(&self, packet_id: PacketId, maximum: u16, first_half_only: bool) -> Arrival {
        if self.received.iter().any(|received| received.packet_id == packet_id) {
            Arrival::Received
        } else if self.owed.iter().any(|owed| owed.packet_id == packet_id) {
            Arrival::Pending
        } else if self.unanswered(first_half_only) >= usize::from(maximum) {
            Arrival::TooMany
        } else {
            Arrival::New
        }
    }

    fn unanswered(&self, first_half_only: bool) -> usize {
        let of_this_connection = || self.received.iter().filter(|received| !received.restored).count();
        self.owed.len() + if first_half_only { 0 } else { of_this_connection() }
    }

    /// It was passed on.
    pub(crate) fn owe(&mut self, packet_id: PacketId, exactly_once: bool) {
        self.owed.push_back(Owed { packet_id, exactly_once, settled: None });
    }

    /// From now on the client is told where its publications lie.
    pub(crate) fn ask_receipts(&mut self) {
        self.receipts = Some(Box::default());
    }

    /// Whether the client asked for that.
    pub(crate) fn wants_receipts(&self) -> bool {
        self.receipts.is_some()
    }

    /// It was settled, and lies where the receipt says.
    pub(crate) fn settle(&mut self, packet_id: PacketId, reason_code: u8, receipt: Option<Box<Receipt>>) {
        if let Some(owed) =
            self.owed.iter_mut().find(|owed| owed.packet_id == packet_id && owed.settled.is_none())
        {
            owed.settled = Some(reason_code);
            if let (Some(receipts), Some(receipt)) = (&mut self.receipts, receipt) {
                receipts.keep(packet_id, receipt);
            }
        }
    }

    /// Takes the next answer whose turn has come.
    pub(crate) fn next_due(&mut self) -> Option<Due> {
        let front = *self.owed.front()?;
        let reason_code = front.settled?;
        self.owed.pop_front();
        if self.owed.is_empty() {
            // An idle connection owns no buffer (promise P9).
            self.owed = VecDeque::new();
        }
        if front.exactly_once && reason_code < 0x80 {
            self.received.push(Received { packet_id: front.packet_id, restored: false });
        }
        Some(Due {
            packet_id: front.packet_id,
            exactly_once: front.exactly_once,
            reason_code,
            receipt: self.receipts.as_mut().and_then(|receipts| receipts.take(front.packet_id)),
        })
    }

    /// PUBREL came: true if the id was known.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> bool {
        let Some(index) = self.received.iter().position(|received| received.packet_id == packet_id) else {
            return false;
        };
        self.received.remove(index);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        true
    }

    /// Takes up the ids of a resumed session.
    pub(crate) fn restore(&mut self, received: Vec<PacketId>) {
        self.received =
            received.into_iter().map(|packet_id| Received { packet_id, restored: true }).collect();
    }

    pub(crate) fn received_ids(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.received.iter().map(|received| received.packet_id)
    }

    /// Answers not yet given.
    pub(crate) fn owed(&self) -> usize {
        self.owed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    #[test]
    fn answers_leave_in_the_order_of_arrival_however_they_settle() {
        let mut receiving = Receiving::default();
        receiving.owe(id(1), false);
        receiving.owe(id(2), true);
        receiving.owe(id(3), false);
        receiving.settle(id(3), 0, None);
        receiving.settle(id(2), 0, None);
        assert_eq!(receiving.next_due(), None);
        receiving.settle(id(1), 0x97, None);
        let due: Vec<_> = std::iter::from_fn(|| receiving.next_due()).collect();
        assert_eq!(due.iter().map(|due| due.packet_id).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
        assert_eq!((due[0].reason_code, due[1].exactly_once, receiving.owed()), (0x97, true, 0));
    }

    #[test]
    fn a_qos_2_id_is_held_until_it_is_released() {
        let mut receiving = Receiving::default();
        receiving.owe(id(7), true);
        assert_eq!(receiving.judge(id(7), 10, false), Arrival::Pending);
        receiving.settle(id(7), 0, None);
        receiving.next_due();
        assert_eq!(receiving.judge(id(7), 10, false), Arrival::Received);
        assert!(receiving.release(id(7)));
        assert!(!receiving.release(id(7)));
        assert_eq!(receiving.judge(id(7), 10, false), Arrival::New);
    }

    #[test]
    fn a_receipt_keeps_its_place_until_its_answer_leaves_and_only_for_those_who_ask() {
        let receipt =
            |offset| Box::new(Receipt { topic: "t".into(), partition: 0, offset, duplicate: false });
        let mut receiving = Receiving::default();
        for asks in [false, true] {
            if asks {
                receiving.ask_receipts();
            }
            receiving.owe(id(1), false);
            receiving.owe(id(2), false);
            receiving.settle(id(2), 0, Some(receipt(8)));
            receiving.settle(id(2), 0, Some(receipt(9)));
            assert_eq!(receiving.next_due(), None);
            receiving.settle(id(1), 0, None);
            let due: Vec<_> = std::iter::from_fn(|| receiving.next_due()).map(|due| due.receipt).collect();
            assert_eq!(due, [None, asks.then(|| receipt(8))]);
        }
    }

    #[test]
    fn what_an_earlier_connection_left_does_not_count_against_this_one() {
        let mut receiving = Receiving::default();
        receiving.restore(vec![id(1), id(2)]);
        assert_eq!(receiving.judge(id(3), 1, false), Arrival::New);
        assert_eq!(receiving.judge(id(2), 1, false), Arrival::Received);
        assert!(receiving.release(id(1)));
        receiving.owe(id(3), false);
        assert_eq!(receiving.judge(id(4), 1, false), Arrival::TooMany);
    }

    #[test]
    fn a_refused_qos_2_publication_is_forgotten() {
        let mut receiving = Receiving::default();
        receiving.owe(id(7), true);
        receiving.settle(id(7), 0x97, None);
        receiving.next_due();
        assert_eq!(receiving.judge(id(7), 10, false), Arrival::New);
    }

    #[test]
    fn the_receive_maximum_counts_both_halves_of_qos_2() {
        let mut receiving = Receiving::default();
        receiving.owe(id(1), true);
        receiving.settle(id(1), 0, None);
        receiving.next_due();
        receiving.owe(id(2), false);
        assert_eq!(receiving.judge(id(3), 2, false), Arrival::TooMany);
        assert_eq!(receiving.judge(id(3), 3, false), Arrival::New);
        assert_eq!(receiving.judge(id(3), 2, true), Arrival::New, "3.1.1 may still release the first one");
        assert_eq!(receiving.judge(id(3), 1, true), Arrival::TooMany);
    }
}
