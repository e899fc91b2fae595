//! This shard's side of its links: which bridge a client's frames go to, which frames are on their way, and what
//! happens to them when a link is lost.
//!
//! A frame is offered to one link's [`Window`] and stays there until the bridge settles it. A lost link hands its unsettled
//! frames, in order, to whichever link now serves their client; where there is none they wait as orphans, and devices are not read.
//! A client keeps to its link while it has unsettled frames there, of this connection or of earlier ones ([`last_words`](crate::last_words)), so they cannot overtake
//! one another (promise P3).

mod window;

use std::collections::VecDeque;
use std::hash::Hasher;

use holdfast_wire::ids::{BridgeId, Epoch};
use holdfast_wire::link::{Outcome, Report, Settled, ToBridge, Uplink, Welcome};
use holdfast_wire::mqtt::{PacketId, QoS};

use crate::input::{ConnectionId, LinkIndex};
use crate::topics::interest::LINKS_MAX;
use window::{Entry, Window};

pub(crate) use holdfast_wire::link::WILL_BYTES_MAX;
pub(crate) use window::Kind;

/// All links of the shard.
#[derive(Debug)]
pub(crate) struct Uplinks {
    links: Vec<Link>,
    /// Counts changes of the set of live links: a session whose number differs looks up its link anew.
    pub(crate) version: u16,
    /// Frames that no live link can take: at most what the lost windows held, and wills of [`WILL_BYTES_MAX`].
    orphans: VecDeque<Orphan>,
    /// Of those wills, which were never in a window.
    orphaned_will_bytes: usize,
}

#[derive(Debug)]
struct Link {
    bridge: Option<BridgeId>,
    /// Counts how often it came up.
    life: u32,
    window: Window,
    /// Encoded records that the shell has not taken yet. Uplinks in it are bounded by the window; for the others, of a bridge that lives and takes nothing,
    /// see [`Limits::link_bytes_max`](crate::limits::Limits::link_bytes_max).
    output: Vec<u8>,
    /// Bytes of the others, unless the shell has taken all.
    said_bytes: usize,
    /// Connections that are not read because this link takes no more, each once.
    waiting: VecDeque<ConnectionId>,
}

#[derive(Debug)]
struct Orphan {
    entry: Entry,
    record: Vec<u8>,
}

/// A delivery whose outcome somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportTo {
    link: LinkIndex,
    life: u32,
    delivery: u64,
}

/// The bridges take no more now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoCredit;

/// A frame that was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SettledFrame {
    pub(crate) connection: ConnectionId,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) kind: Kind,
    pub(crate) reason_code: u8,
}

/// A frame that moved to another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) connection: ConnectionId,
    pub(crate) kind: Kind,
    /// None: dropped (QoS 0), or an orphan.
    pub(crate) to: Option<LinkIndex>,
    /// It is no longer under way: a QoS 0 frame that is lost with its link.
    pub(crate) dropped: bool,
}

impl Link {
    fn down() -> Self {
        Self {
            bridge: None,
            life: 0,
            window: Window::new(),
            output: Vec::new(),
            said_bytes: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Gives back where the record begins.
    fn write(&mut self, record: &ToBridge<'_>) -> usize {
        if self.output.is_empty() {
            self.said_bytes = 0;
        }
        let start = self.output.len();
        record.encode(&mut self.output);
        start
    }
}

impl Uplinks {
    pub(crate) fn new(links: u16) -> Self {
        Self {
            links: (0..links).map(|_| Link::down()).collect(),
            version: 1,
            orphans: VecDeque::new(),
            orphaned_will_bytes: 0,
        }
    }

    /// One more link, which is down; none if there are as many as there may be.
    pub(crate) fn add(&mut self) -> Option<LinkIndex> {
        let index = u16::try_from(self.links.len()).ok().filter(|index| *index < LINKS_MAX)?;
        self.links.push(Link::down());
        Some(LinkIndex(index))
    }

    /// The live link that serves this client: the one whose bridge weighs most for it (rendezvous hashing), so that a bridge that comes or
    /// goes moves only the clients that it gains or loses.
    pub(crate) fn choose(&self, client: &str) -> Option<LinkIndex> {
        self.choose_without(client, 0)
    }

    /// The same if some links, by bit, are out of the question.
    pub(crate) fn choose_without(&self, client: &str, without: u64) -> Option<LinkIndex> {
        self.links
            .iter()
            .enumerate()
            .filter(|(index, _)| without & (1 << index) == 0)
            .filter_map(|(index, link)| link.bridge.map(|bridge| (weight(client, bridge), index)))
            .max()
            .map(|(_, index)| LinkIndex(index as u16))
    }

    /// This link while it is up, or else the one that serves the client.
    pub(crate) fn this_or_chosen(&self, link: LinkIndex, client: &str) -> Option<LinkIndex> {
        if self.is_up(link) { Some(link) } else { self.choose(client) }
    }

    /// Links that are up.
    pub(crate) fn live(&self) -> impl Iterator<Item = LinkIndex> + '_ {
        self.links
            .iter()
            .enumerate()
            .filter(|(_, link)| link.bridge.is_some())
            .map(|(index, _)| LinkIndex(index as u16))
    }

    /// Whether this link is up.
    pub(crate) fn is_up(&self, link: LinkIndex) -> bool {
        self.links[usize::from(link.0)].bridge.is_some()
    }

    /// Whether this link is up and takes more.
    pub(crate) fn takes_more(&self, link: LinkIndex) -> bool {
        let link = &self.links[usize::from(link.0)];
        link.bridge.is_some() && link.window.takes_more()
    }

    /// Whether there is room for a will on this link, or for one that waits for a link.
    pub(crate) fn takes_will(&self, link: Option<LinkIndex>) -> bool {
        match link {
            Some(link) => self.links[usize::from(link.0)].window.takes_will(),
            None => self.orphaned_will_bytes < WILL_BYTES_MAX,
        }
    }

    /// Puts a frame on its way. `forced` passes the window's bound: for wills, if [`Uplinks::takes_will`].
    pub(crate) fn offer(
        &mut self,
        link: LinkIndex,
        connection: ConnectionId,
        kind: Kind,
        forced: bool,
        frame: &Frame<'_>,
    ) -> Result<(), NoCredit> {
        if !forced && !self.takes_more(link) {
            return Err(NoCredit);
        }
        let link = &mut self.links[usize::from(link.0)];
        debug_assert!(link.bridge.is_some(), "nobody would hear it");
        let sequence = link.window.next_sequence();
        let start = link.write(&ToBridge::Uplink(frame.numbered(sequence)));
        link.window.push(connection, frame.packet_id, kind, &link.output[start..]);
        Ok(())
    }

    /// Keeps a frame for the next link that comes up. Only for wills, if [`Uplinks::takes_will`]: other publishers are held back instead.
    pub(crate) fn orphan(&mut self, connection: ConnectionId, kind: Kind, frame: &Frame<'_>) {
        let mut record = Vec::new();
        ToBridge::Uplink(frame.numbered(0)).encode(&mut record);
        self.orphaned_will_bytes += record.len() + size_of::<Orphan>();
        self.orphans.push_back(Orphan { entry: Entry::unplaced(connection, frame.packet_id, kind), record });
    }

    /// Whom to tell what becomes of a delivery that came over this link.
    pub(crate) fn report_to(&self, link: LinkIndex, delivery: u64) -> ReportTo {
        ReportTo { link, life: self.links[usize::from(link.0)].life, delivery }
    }

    /// Tells it, unless the link has been lost since: its bridge has given the delivery up, and the number means something else by now.
    pub(crate) fn report(&mut self, to: ReportTo, outcome: Outcome) {
        if self.links[usize::from(to.link.0)].life == to.life {
            self.say(to.link, &ToBridge::Report(Report { delivery: to.delivery, outcome }));
        }
    }

    /// Appends a record to a link that is up; one that is down hears it another way when it comes back, or need not.
    pub(crate) fn say(&mut self, link: LinkIndex, record: &ToBridge<'_>) {
        let link = &mut self.links[usize::from(link.0)];
        if link.bridge.is_some() {
            let start = link.write(record);
            link.said_bytes += link.output.len() - start;
        }
    }

    /// Bytes that were said on a link and that the shell has not taken, uplinks apart.
    pub(crate) fn said_bytes(&self, link: LinkIndex) -> usize {
        let link = &self.links[usize::from(link.0)];
        if link.output.is_empty() { 0 } else { link.said_bytes }
    }

    pub(crate) fn output(&mut self, link: LinkIndex) -> &mut Vec<u8> {
        &mut self.links[usize::from(link.0)].output
    }

    /// Forgets what the links have not been given yet.
    pub(crate) fn forget_outputs(&mut self) {
        for link in &mut self.links {
            link.output = Vec::new();
        }
    }

    /// Unsettled frames on all links and orphans.
    pub(crate) fn unsettled(&self) -> usize {
        self.links.iter().map(|link| link.window.unsettled()).sum::<usize>() + self.orphans.len()
    }

    /// The bridge settled a run of frames.
    pub(crate) fn settle(&mut self, link: LinkIndex, settled: Settled, mut each: impl FnMut(SettledFrame)) {
        self.links[usize::from(link.0)].window.settle(settled.first, settled.last, |entry| {
            each(SettledFrame {
                connection: entry.connection,
                packet_id: entry.packet_id,
                kind: entry.kind,
                reason_code: settled.reason_code,
            });
        });
    }

    /// The bridge set the bound on unsettled bytes.
    pub(crate) fn set_window(&mut self, link: LinkIndex, bytes: u32) {
        self.links[usize::from(link.0)].window.bytes_max = bytes as usize;
    }

    /// A link came up. Orphans whose client it serves go first.
    pub(crate) fn up(&mut self, link: LinkIndex, welcome: Welcome, mut moved: impl FnMut(Moved)) {
        let state = &mut self.links[usize::from(link.0)];
        state.bridge = Some(welcome.bridge);
        state.life += 1;
        state.window.bytes_max = welcome.window_bytes as usize;
        state.output.clear();
        self.version = self.version.wrapping_add(1);
        self.orphaned_will_bytes = 0;
        for orphan in std::mem::take(&mut self.orphans) {
            moved(self.place(orphan));
        }
    }

    /// A link was lost.
    pub(crate) fn down(&mut self, link: LinkIndex, mut moved: impl FnMut(Moved)) {
        let state = &mut self.links[usize::from(link.0)];
        if state.bridge.take().is_none() {
            return;
        }
        self.version = self.version.wrapping_add(1);
        state.output = Vec::new();
        let mut lost = Vec::new();
        state.window.drain(|entry, record| match record {
            Some(record) => lost.push(Orphan { entry, record: record.to_vec() }),
            None => moved(Moved { connection: entry.connection, kind: entry.kind, to: None, dropped: true }),
        });
        for orphan in lost {
            moved(self.place(orphan));
        }
    }

    /// Gives an unsettled frame to the link that serves its client now.
    fn place(&mut self, orphan: Orphan) -> Moved {
        let Entry { connection, kind, .. } = orphan.entry;
        let mut bytes = &orphan.record[..];
        let raw = holdfast_wire::link::next_record(&mut bytes)
            .ok()
            .flatten()
            .expect("the window holds whole records that this shard encoded");
        let Ok(ToBridge::Uplink(uplink)) = ToBridge::decode(raw) else {
            unreachable!("the window holds uplinks that this shard encoded")
        };
        let Some(to) = self.choose(uplink.message.publisher) else {
            self.orphans.push_back(orphan);
            return Moved { connection, kind, to: None, dropped: false };
        };
        let link = &mut self.links[usize::from(to.0)];
        let sequence = link.window.next_sequence();
        let start = link.write(&ToBridge::Uplink(Uplink { sequence, resent: true, ..uplink }));
        link.window.push(connection, orphan.entry.packet_id, orphan.entry.kind, &link.output[start..]);
        Moved { connection, kind, to: Some(to), dropped: false }
    }

    /// Notes that a connection waits for this link to take more; with no link at all it waits on link 0's list.
    pub(crate) fn wait(&mut self, link: Option<LinkIndex>, connection: ConnectionId) {
        self.links[link.map_or(0, |link| usize::from(link.0))].waiting.push_back(connection);
    }

    /// The next connection that may be read again, while links take more.
    pub(crate) fn next_waiting(&mut self) -> Option<ConnectionId> {
        let any_takes_more =
            self.links.iter().any(|link| link.bridge.is_some() && link.window.has_room_again());
        self.links
            .iter_mut()
            .find(|link| match link.bridge {
                Some(_) => link.window.has_room_again() && !link.waiting.is_empty(),
                None => any_takes_more && !link.waiting.is_empty(),
            })
            .and_then(|link| link.waiting.pop_front())
    }
}

/// A publication before it has a place in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) dup: bool,
    pub(crate) wants_receipt: bool,
    pub(crate) event_time_ms: u64,
    pub(crate) message: holdfast_wire::message::Message<'a>,
}

impl<'a> Frame<'a> {
    fn numbered(&self, sequence: u64) -> Uplink<'a> {
        Uplink {
            sequence,
            epoch: self.epoch,
            packet_id: self.packet_id,
            dup: self.dup,
            resent: false,
            wants_receipt: self.wants_receipt,
            event_time_ms: self.event_time_ms,
            message: self.message,
        }
    }
}

impl Kind {
    pub(crate) fn of(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::QoS0,
            QoS::AtLeastOnce => Self::QoS1,
            QoS::ExactlyOnce => Self::QoS2,
        }
    }

    pub(crate) fn is_will(self) -> bool {
        matches!(self, Self::Will | Self::OwedWill)
    }
}

fn weight(client: &str, bridge: BridgeId) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(client.as_bytes());
    // FxHash mixes its last word weakly; the finaliser of SplitMix64 spreads it over all bits, which rendezvous
    // hashing needs for an even share.
    let mut mixed = hasher.finish() ^ bridge.0;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
