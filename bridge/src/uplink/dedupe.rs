//! Recognises frames that are sent again (promise P4), whichever link or shard they come over this time.
//!
//! For each client a ring of its last frames: packet id, a hash of topic and payload, and whether it is settled. A frame is looked up only if
//! its device marked it DUP or its gateway sends it again; the newest entry with its packet id decides, so a packet id that is used for
//! something else replaces what it meant before. Without either mark a frame is new whatever it looks like, but for one: a frame from
//! before its device came back, read after the first of the new session, as the two took different links. It may be the original of
//! a copy that is stored; if not, it is stale: its session was taken over before anyone acknowledged it, its device sends again what it
//! still means to say, and stored now it would stand behind what came later. What was refused is tried anew when it comes again.
//!
//! Pure. A client costs a slot (88 bytes), its id, a table entry (5 bytes) and 16 bytes for each entry of its ring. Where a frame is kept is
//! remembered only of frames whose devices asked.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use holdfast_wire::ids::Epoch;
use holdfast_wire::mqtt::PacketId;
use rustc_hash::{FxHashMap, FxHasher, FxSeededState};

use super::receipts::Fate;
use crate::config::DedupeConfig;
use crate::sink::Receipt;

/// The rings of all clients. `W` is whoever waits for a pending frame that was sent again.
pub(crate) struct Dedupe<W> {
    config: DedupeConfig,
    /// Slot numbers by client id. The seed keeps devices from choosing ids that fall together.
    by_client: HashTable<u32>,
    seed: FxSeededState,
    slots: Vec<Slot>,
    /// Slots without pending frames.
    idle: usize,
    /// Where the search for a client to forget goes on.
    hand: usize,
    /// Who waits for pending frames; each is an unsettled uplink of some link, so their windows bound it.
    waiting: FxHashMap<Ticket, Vec<W>>,
    /// Receipts of settled frames; they go with their entries. When there are [`RECEIPTS_MAX`], further ones are not remembered, and such a frame
    /// sent again is acknowledged without one.
    receipts: FxHashMap<Ticket, Receipt>,
}

#[derive(Debug)]
struct Slot {
    client: Box<str>,
    ring: VecDeque<Entry>,
    /// Number of the ring's first entry.
    first: u32,
    pending: u32,
    /// The highest of its sessions so far.
    newest: Epoch,
    /// It has been heard of since the hand passed.
    fresh: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    packet_id: PacketId,
    /// It came marked as sent again.
    again: bool,
    settled: bool,
    refused: bool,
    /// There is one in [`Dedupe::receipts`].
    receipt: bool,
}

/// A pending frame, to be settled exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    slot: u32,
    number: u32,
}

/// What is known of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: store it, and settle the ticket.
    New(Ticket),
    /// It is stored; so its publisher hears.
    Settled(Fate),
    /// It is pending; whoever waits is named when it is settled.
    Joined,
    /// It comes from a session that was taken over, and is not known: its former owner may not write any more (promise P5).
    Stale,
}

/// A frame as the ring knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) client: &'a str,
    pub(crate) packet_id: PacketId,
    /// Of the session that it came in.
    pub(crate) epoch: Epoch,
    /// Marked as sent again, by the device or by its gateway.
    pub(crate) again: bool,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    /// Frames that its device may send again: as many are remembered, or more if so is configured.
    pub(crate) remembered: u16,
}

impl Frame<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = FxHasher::default();
        hasher.write(self.topic.as_bytes());
        hasher.write(self.payload);
        hasher.write_usize(self.payload.len());
        hasher.finish()
    }
}

/// A ring longer than all packet ids would hold entries that nothing can refer to.
const RING_MAX: usize = u16::MAX as usize;
/// Some 15 MB.
const RECEIPTS_MAX: usize = 1 << 18;

impl<W> Dedupe<W> {
    pub(crate) fn new(config: DedupeConfig, seed: u64) -> Self {
        Self {
            config,
            by_client: HashTable::new(),
            seed: FxSeededState::with_seed(seed as usize),
            slots: Vec::new(),
            idle: 0,
            hand: 0,
            waiting: FxHashMap::default(),
            receipts: FxHashMap::default(),
        }
    }

    /// A frame arrived; `waiter` is kept only if it joins a pending one.
    pub(crate) fn arrived(&mut self, frame: Frame<'_>, waiter: impl FnOnce() -> W) -> Seen {
        let number = self.slot(frame.client);
        let slot = &mut self.slots[number as usize];
        slot.fresh = true;
        slot.newest = slot.newest.max(frame.epoch);
        let is_former = frame.epoch < slot.newest;
        let hash = frame.hash();
        if (frame.again || is_former)
            && let Some((at, entry)) =
                slot.ring.iter().enumerate().rev().find(|(_, entry)| entry.packet_id == frame.packet_id)
            && entry.hash == hash
            && (frame.again || entry.again)
            && !entry.refused
        {
            let ticket = Ticket { slot: number, number: slot.first.wrapping_add(at as u32) };
            if entry.settled {
                let receipt = if entry.receipt { self.receipts.get(&ticket).cloned() } else { None };
                return Seen::Settled(Fate { reason_code: 0, receipt });
            }
            self.waiting.entry(ticket).or_default().push(waiter());
            return Seen::Joined;
        }
        if is_former {
            return Seen::Stale;
        }
        // Only settled entries make room: a pending one is still to be found by its ticket.
        let remembered = self.config.entries_per_client_max.max(frame.remembered);
        while slot.ring.len() >= usize::from(remembered).min(RING_MAX)
            && slot.ring.front().is_some_and(|entry| entry.settled)
        {
            if slot.ring.pop_front().is_some_and(|entry| entry.receipt) {
                self.receipts.remove(&Ticket { slot: number, number: slot.first });
            }
            slot.first = slot.first.wrapping_add(1);
        }
        let ticket = Ticket { slot: number, number: slot.first.wrapping_add(slot.ring.len() as u32) };
        slot.ring.push_back(Entry {
            hash,
            packet_id: frame.packet_id,
            again: frame.again,
            settled: false,
            refused: false,
            receipt: false,
        });
        if slot.pending == 0 {
            self.idle -= 1;
        }
        slot.pending += 1;
        Seen::New(ticket)
    }

    /// A pending frame is settled; gives out who waits for it.
    pub(crate) fn settle(&mut self, ticket: Ticket, fate: &Fate) -> Vec<W> {
        let slot = &mut self.slots[ticket.slot as usize];
        let entry = slot.ring.get_mut(ticket.number.wrapping_sub(slot.first) as usize);
        debug_assert!(entry.as_ref().is_some_and(|entry| !entry.settled));
        if let Some(entry) = entry.filter(|entry| !entry.settled) {
            entry.settled = true;
            entry.refused = fate.reason_code != 0;
            slot.pending -= 1;
            if slot.pending == 0 {
                self.idle += 1;
            }
            if let Some(receipt) = &fate.receipt
                && self.receipts.len() < RECEIPTS_MAX
            {
                entry.receipt = true;
                self.receipts.insert(ticket, receipt.clone());
            }
        }
        if self.waiting.is_empty() { Vec::new() } else { self.waiting.remove(&ticket).unwrap_or_default() }
    }

    fn slot(&mut self, client: &str) -> u32 {
        let hash = self.seed.hash_one(client);
        if let Some(&number) =
            self.by_client.find(hash, |&number| *self.slots[number as usize].client == *client)
        {
            return number;
        }
        let slot = Slot {
            client: client.into(),
            ring: VecDeque::new(),
            first: 0,
            pending: 0,
            newest: Epoch(0),
            fresh: true,
        };
        let number = match self.forget_one() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.idle += 1;
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, seed) = (&self.slots, &self.seed);
        self.by_client.insert_unique(hash, number, |&other| seed.hash_one(&*slots[other as usize].client));
        number
    }

    /// A slot to use again, once there are as many as may be: of a client that was not heard of for a whole round of the hand, nearly the one
    /// quiet for longest, without a list to keep. None if all have frames pending; then there is one slot more than the
    /// bound, for an uplink that counts in its link's window.
    fn forget_one(&mut self) -> Option<u32> {
        if self.slots.len() < self.config.clients_max as usize || self.idle == 0 {
            return None;
        }
        for _ in 0..2 * self.slots.len() {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.pending == 0 && !std::mem::take(&mut slot.fresh) {
                let (number, hash) = (self.hand as u32, self.seed.hash_one(&*slot.client));
                for (at, _) in slot.ring.iter().enumerate().filter(|(_, entry)| entry.receipt) {
                    self.receipts
                        .remove(&Ticket { slot: number, number: slot.first.wrapping_add(at as u32) });
                }
                if let Ok(entry) = self.by_client.find_entry(hash, |&other| other == number) {
                    entry.remove();
                }
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dedupe(entries_per_client_max: u16, clients_max: u32) -> Dedupe<&'static str> {
        Dedupe::new(DedupeConfig { entries_per_client_max, clients_max }, 7)
    }

    fn frame<'a>(client: &'a str, packet_id: u16, again: bool, payload: &'a str) -> Frame<'a> {
        let packet_id = PacketId::new(packet_id).unwrap();
        let (epoch, payload) = (Epoch(1), payload.as_bytes());
        Frame { client, packet_id, epoch, again, topic: "t", payload, remembered: 0 }
    }

    fn new(dedupe: &mut Dedupe<&'static str>, frame: Frame<'_>) -> Ticket {
        let Seen::New(ticket) = dedupe.arrived(frame, || "nobody") else { panic!("{frame:?} is known") };
        ticket
    }

    #[test]
    fn a_frame_sent_again_after_it_was_settled_gets_the_same_answer() {
        let mut dedupe = dedupe(4, 4);
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        assert!(dedupe.settle(ticket, &Fate::default()).is_empty());
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "w"), Seen::Settled(Fate::default()));
        assert!(matches!(dedupe.arrived(frame("other", 1, true, "x"), || "w"), Seen::New(_)));
    }

    #[test]
    fn a_frame_sent_again_while_pending_is_settled_with_the_first() {
        let mut dedupe = dedupe(4, 4);
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "second"), Seen::Joined);
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "third"), Seen::Joined);
        assert_eq!(dedupe.settle(ticket, &Fate::default()), ["second", "third"]);
        assert!(dedupe.waiting.is_empty());
    }

    #[test]
    fn a_refused_frame_is_tried_anew_when_it_comes_again() {
        let mut dedupe = dedupe(4, 4);
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "second"), Seen::Joined);
        assert_eq!(dedupe.settle(ticket, &Fate::refused(0x97)), ["second"]);
        let ticket = new(&mut dedupe, frame("d", 1, true, "x"));
        dedupe.settle(ticket, &Fate::default());
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "w"), Seen::Settled(Fate::default()));
    }

    #[test]
    fn an_original_that_is_read_after_its_copy_is_known() {
        let mut dedupe = dedupe(4, 4);
        let later = |frame: Frame<'static>| Frame { epoch: Epoch(2), ..frame };
        let ticket = new(&mut dedupe, later(frame("d", 1, true, "x")));
        assert_eq!(dedupe.arrived(frame("d", 1, false, "x"), || "original"), Seen::Joined);
        assert_eq!(dedupe.settle(ticket, &Fate::default()), ["original"]);
        assert_eq!(dedupe.arrived(frame("d", 1, false, "x"), || "w"), Seen::Settled(Fate::default()));
        new(&mut dedupe, later(frame("d", 1, false, "x")));
        assert_eq!(dedupe.arrived(frame("d", 1, false, "x"), || "w"), Seen::Stale, "that was no copy of it");
    }

    #[test]
    fn as_much_is_remembered_of_a_client_as_its_gateway_may_send_again() {
        let mut dedupe = dedupe(2, 4);
        for (client, remembered, known) in [("d", 5, 5), ("e", 1, 2)] {
            let frame = |id, again| Frame { remembered, ..frame(client, id, again, "x") };
            for id in 1..=9 {
                let ticket = new(&mut dedupe, frame(id, false));
                dedupe.settle(ticket, &Fate::default());
            }
            let is_known = |id| dedupe.arrived(frame(id, true), || "w") == Seen::Settled(Fate::default());
            assert_eq!((1..=9).rev().map(is_known).take_while(|known| *known).count(), known, "{client}");
        }
    }

    #[test]
    fn a_former_session_writes_nothing_however_much_came_since() {
        let mut dedupe = dedupe(2, 4);
        let later = |frame: Frame<'static>| Frame { epoch: Epoch(2), ..frame };
        for id in 1..=5 {
            let ticket = new(&mut dedupe, later(frame("d", id, true, "x")));
            dedupe.settle(ticket, &Fate::default());
        }
        // Forgotten, or never heard of; marked or not.
        for id in [1, 9] {
            for again in [false, true] {
                assert_eq!(dedupe.arrived(frame("d", id, again, "x"), || "w"), Seen::Stale);
            }
        }
        assert_eq!(dedupe.arrived(frame("d", 5, false, "x"), || "w"), Seen::Settled(Fate::default()));
        new(&mut dedupe, later(frame("d", 6, false, "x")));
    }

    #[test]
    fn a_frame_without_a_mark_is_new_whatever_it_looks_like() {
        let mut dedupe = dedupe(4, 4);
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        dedupe.settle(ticket, &Fate::default());
        new(&mut dedupe, frame("d", 1, false, "x"));
    }

    #[test]
    fn a_packet_id_used_for_something_else_means_that_from_then_on() {
        let mut dedupe = dedupe(4, 4);
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        dedupe.settle(ticket, &Fate::default());
        let ticket = new(&mut dedupe, frame("d", 1, true, "y"));
        dedupe.settle(ticket, &Fate::default());
        assert_eq!(dedupe.arrived(frame("d", 1, true, "y"), || "w"), Seen::Settled(Fate::default()));
        new(&mut dedupe, frame("d", 1, true, "x"));
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_but_never_a_pending_one() {
        let mut dedupe = dedupe(2, 4);
        let tickets: Vec<_> = (1..=5).map(|id| new(&mut dedupe, frame("d", id, false, "x"))).collect();
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "w"), Seen::Joined);
        for ticket in tickets {
            dedupe.settle(ticket, &Fate::default());
        }
        let ticket = new(&mut dedupe, frame("d", 6, false, "x"));
        dedupe.settle(ticket, &Fate::default());
        assert_eq!(dedupe.slots[0].ring.len(), 2);
        assert_eq!(dedupe.arrived(frame("d", 5, true, "x"), || "w"), Seen::Settled(Fate::default()));
        assert!(matches!(dedupe.arrived(frame("d", 4, true, "x"), || "w"), Seen::New(_)));
    }

    #[test]
    fn a_receipt_is_remembered_as_long_as_its_frame() {
        let mut dedupe = dedupe(1, 1);
        let receipt = Receipt { topic: "t".into(), partition: 3, offset: 8 };
        let fate = Fate { reason_code: 0, receipt: Some(receipt) };
        let ticket = new(&mut dedupe, frame("d", 1, false, "x"));
        dedupe.settle(ticket, &fate);
        assert_eq!(dedupe.arrived(frame("d", 1, true, "x"), || "w"), Seen::Settled(fate.clone()));
        let ticket = new(&mut dedupe, frame("d", 2, false, "x"));
        assert!(dedupe.receipts.is_empty(), "the ring has one entry");
        dedupe.settle(ticket, &fate);
        new(&mut dedupe, frame("other", 2, false, "x"));
        assert!(dedupe.receipts.is_empty(), "there is one client");
    }

    #[test]
    fn the_quiet_client_is_forgotten_and_one_with_pending_frames_is_not() {
        let mut dedupe = dedupe(2, 2);
        let held = new(&mut dedupe, frame("pending", 1, false, "x"));
        for client in 0..100 {
            let ticket = new(&mut dedupe, frame(&format!("client-{client}"), 1, false, "x"));
            dedupe.settle(ticket, &Fate::default());
        }
        assert_eq!(dedupe.slots.len(), 2);
        assert_eq!(dedupe.by_client.len(), 2);
        dedupe.settle(held, &Fate::default());
        assert_eq!(dedupe.arrived(frame("pending", 1, true, "x"), || "w"), Seen::Settled(Fate::default()));
    }

    #[test]
    fn where_no_client_can_be_forgotten_none_is_looked_for() {
        let mut dedupe = dedupe(2, 2);
        let clients = ["a", "b", "c", "d"];
        let held = clients.map(|client| new(&mut dedupe, frame(client, 1, false, "x")));
        assert_eq!((dedupe.idle, dedupe.hand, dedupe.slots.len()), (0, 0, 4));
        for ticket in held {
            dedupe.settle(ticket, &Fate::default());
        }
        assert_eq!(dedupe.idle, 4);
        new(&mut dedupe, frame("e", 1, false, "x"));
        assert_eq!((dedupe.idle, dedupe.slots.len()), (3, 4));
    }

    #[test]
    fn memory_is_what_the_module_says() {
        assert_eq!(size_of::<Entry>(), 16);
        assert!(size_of::<Slot>() <= 88);
    }
}
