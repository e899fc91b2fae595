//! The bridge's part in shared subscriptions: a message goes to one member, to another if that one does not take it, and at last to the group's stream. Who published
//! it hears nothing before that, where a persistent session is among the members.
//!
//! Mirrors `bridge/src/fanout/group.rs`, in which tasks do what the world's steps do here.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Offset, StreamKey};
use holdfast_wire::store::{Reply, Request};
use holdfast_wire::topic::{matches, parse_shared};

use crate::bridge::{Bridge, Link, Pending, say};
use crate::shard::Shard;
use crate::store::Store;

/// How long the members have to take a message, in ms. Then the group's stream holds it for the one that may still take it.
const MEMBERS_WITHIN_MS: u64 = 1_000;
/// For how long it holds it, in ms: shorter than the real one, so that holds end by their time too.
const HELD_FOR_MS: u32 = 10_000;
/// How often a group is told that something may wait, in ms.
const REMIND_EVERY_MS: u64 = 5_000;

#[derive(Default)]
pub(crate) struct Groups {
    /// By the filter as it is subscribed: links of shards with members, how many, and whether a persistent session is among them.
    members: BTreeMap<String, BTreeMap<Link, (u32, bool)>>,
    ways: Vec<Way>,
    turns: u64,
    /// Frames that wait for groups, and for how many.
    frames: BTreeMap<u64, (Pending, usize)>,
    last_frame: u64,
    /// Whose turn it is to be told.
    reader_turns: usize,
    next_reminder_ms: u64,
    /// Payloads of what went to a group's stream. Survives the bridge.
    pub(crate) stored: BTreeSet<Vec<u8>>,
    /// When the hold of a payload ends by its time: then another member may claim what one has. Survives the bridge.
    pub(crate) held_until_ms: BTreeMap<Vec<u8>, u64>,
    /// Those that ended with a member that does not have them, or may not, and that nobody else is given. Survives the bridge.
    pub(crate) in_doubt: BTreeSet<Vec<u8>>,
}

/// A message on its way to a member.
struct Way {
    filter: String,
    message: SharedMessage,
    positions: Positions,
    tried: Vec<Link>,
    /// The delivery whose report is awaited; none: it goes elsewhere.
    delivery: Option<u64>,
    /// Who waits for it; none where no persistent session is a member.
    frame: Option<u64>,
    since_ms: u64,
    /// Where the stream holds it, until a report comes.
    held_at: Option<Offset>,
    /// A member ended it while it was held.
    is_taken: bool,
}

impl Groups {
    /// What the next bridge has of them.
    pub(crate) fn die(&mut self) -> Self {
        let (stored, in_doubt) = (std::mem::take(&mut self.stored), std::mem::take(&mut self.in_doubt));
        let held_until_ms = std::mem::take(&mut self.held_until_ms);
        Self { stored, held_until_ms, in_doubt, ..Self::default() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ways.is_empty() && self.frames.is_empty()
    }

    pub(crate) fn announce(&mut self, link: Link, filter: String, members: u32, durable: bool) {
        self.members.entry(filter).or_default().insert(link, (members, durable));
    }

    pub(crate) fn withdraw(&mut self, link: Link, filter: &str) {
        if let Some(members) = self.members.get_mut(filter) {
            members.remove(&link);
        }
    }

    /// A link is lost: no report comes over it.
    pub(crate) fn forget_link(&mut self, link: Link) {
        for members in self.members.values_mut() {
            members.remove(&link);
        }
        for way in self.ways.iter_mut().filter(|way| way.tried.last() == Some(&link)) {
            way.delivery = None;
        }
    }

    /// Those whose filter matches, with whether a member is connected, and whether persistent sessions are behind it.
    pub(crate) fn of_topic(&self, topic: &str, durable: &[Box<str>]) -> Vec<(String, bool, bool)> {
        let known = self.members.keys().map(String::as_str).chain(durable.iter().map(|filter| &**filter));
        let is_it = |filter: &&str| parse_shared(filter).is_some_and(|shared| matches(shared.filter, topic));
        let known: BTreeSet<&str> = known.filter(is_it).collect();
        known
            .into_iter()
            .map(|filter| {
                let members = self.members.get(filter);
                let is_announced =
                    members.is_some_and(|members| members.values().any(|(_, durable)| *durable));
                let is_durable = is_announced || durable.iter().any(|it| **it == *filter);
                (filter.to_owned(), members.is_some_and(|members| !members.is_empty()), is_durable)
            })
            .collect()
    }

    /// A frame that waits for so many groups.
    pub(crate) fn hold(&mut self, frame: Pending, awaited: usize) {
        self.frames.insert(self.last_frame, (frame, awaited));
        self.last_frame += 1;
    }

    /// Frames that wait.
    pub(crate) fn held(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.frames.values_mut().map(|(frame, _)| frame)
    }

    /// One more message is to go to a member; the next frame that is held waits for it, if the group is durable.
    pub(crate) fn offer(
        &mut self,
        filter: String,
        is_durable: bool,
        message: &SharedMessage,
        positions: &Positions,
        now_ms: u64,
    ) {
        self.ways.push(Way {
            filter,
            message: message.clone(),
            positions: positions.clone(),
            tried: Vec::new(),
            delivery: None,
            frame: is_durable.then_some(self.last_frame),
            since_ms: now_ms,
            held_at: None,
            is_taken: false,
        });
    }

    /// A member's shard has told what became of it. Not of one that is waited for no longer.
    pub(crate) fn hear(&mut self, delivery: u64, outcome: Outcome) -> Option<u64> {
        let at = self.ways.iter().position(|way| way.delivery == Some(delivery))?;
        let way = &mut self.ways[at];
        match outcome {
            Outcome::NotHere | Outcome::NotSubscribed | Outcome::QueueFull | Outcome::ConnectionLost => {
                way.delivery = None;
                None
            }
            Outcome::Delivered | Outcome::Kept => self.end(at),
            Outcome::InDoubt | Outcome::RefusedByDevice | Outcome::Expired | Outcome::TooLarge => {
                self.in_doubt.insert(self.ways[at].message.view().payload.to_vec());
                self.end(at)
            }
        }
    }

    /// A member has ended it. Gives the frame that waited for that; what is held has yet to be let go of.
    fn end(&mut self, at: usize) -> Option<u64> {
        if self.ways[at].held_at.is_none() {
            return self.ways.swap_remove(at).frame;
        }
        (self.ways[at].delivery, self.ways[at].is_taken) = (None, true);
        None
    }

    /// One group less has to be waited for. Gives the frame if that was the last one.
    pub(crate) fn release(&mut self, frame: u64) -> Option<Pending> {
        let (_, awaited) = self.frames.get_mut(&frame)?;
        *awaited -= 1;
        if *awaited > 0 {
            return None;
        }
        self.frames.remove(&frame).map(|(frame, _)| frame)
    }

    /// The link whose turn it is to be told that the stream may hold something.
    fn next_reader(&mut self, filter: &str) -> Option<Link> {
        let members = self.members.get(filter)?.iter();
        let readers: Vec<_> = members.filter(|(_, (_, is_durable))| *is_durable).collect();
        self.reader_turns += 1;
        readers.get(self.reader_turns.checked_rem(readers.len())?).map(|(link, _)| **link)
    }

    /// Whose turn it is, by weight.
    fn pick(&mut self, filter: &str, tried: &[Link]) -> Option<Link> {
        let members = self.members.get(filter)?.iter();
        let open: Vec<_> = members.filter(|(link, _)| !tried.contains(link)).collect();
        let weight: u64 = open.iter().map(|(_, (members, _))| u64::from(*members)).sum();
        let mut turn = self.turns.checked_rem(weight)?;
        self.turns += 1;
        for (link, (members, _)) in open {
            match turn.checked_sub(u64::from(*members)) {
                Some(left) => turn = left,
                None => return Some(*link),
            }
        }
        None
    }
}

impl Bridge {
    /// Each message that waits for nobody goes to the next member, or where it goes at last.
    pub(crate) fn see_groups_through(&mut self, store: &mut Store, shards: &mut [Shard]) {
        for mut way in std::mem::take(&mut self.groups.ways) {
            if self.see_through(&mut way, store, shards) {
                self.hear_of_group(way.frame, shards);
            } else {
                self.groups.ways.push(way);
            }
        }
    }

    /// A group has a message, or will not have it.
    pub(crate) fn hear_of_group(&mut self, frame: Option<u64>, shards: &mut [Shard]) {
        if let Some(frame) = frame.and_then(|frame| self.groups.release(frame)) {
            self.finish(frame, shards);
        }
    }

    /// Whether nothing is left to do.
    fn see_through(&mut self, way: &mut Way, store: &mut Store, shards: &mut [Shard]) -> bool {
        if let Some(at) = way.held_at {
            return self.see_hold_end(way, at, store, shards);
        }
        let is_overdue = way.frame.is_some() && store.now_ms() >= way.since_ms + MEMBERS_WITHIN_MS;
        if !is_overdue {
            if way.delivery.is_some() {
                return false;
            }
            if let Some(link) = self.groups.pick(&way.filter, &way.tried) {
                way.tried.push(link);
                let is_reported = way.message.view().qos > QoS::AtMostOnce;
                let delivery = if is_reported { self.expect_report(link) } else { 0 };
                let shared = parse_shared(&way.filter).expect("it was announced as one");
                let target = Target::Group { group: shared.group, filter: shared.filter };
                let (positions, message) = (way.positions.clone(), way.message.view());
                say(shards, link, &ToGateway::Deliver(Deliver { delivery, target, positions, message }));
                way.delivery = Some(delivery);
                self.tell(|| format!("sends {} to a member at {link:?} as {delivery}", name(&way.message)));
                return !is_reported;
            }
        }
        if way.frame.is_none() {
            return true;
        }
        let (filter, message) = (way.filter.as_str(), way.message.clone());
        let is_held = way.delivery.is_some();
        let answer = store.ask(if is_held {
            Request::Hold { filter: filter.into(), message, for_ms: HELD_FOR_MS }
        } else {
            let streams = vec![StreamKey::Filter(filter.into())];
            Request::Append { streams, message, collapse_key: None }
        });
        let Ok(Reply::Appended { at, full }) = answer else { panic!("{answer:?} is not about a stream") };
        if at.is_empty() && full.is_empty() && store.has_just_begun() {
            // The group's sessions are about to be written back, and their stream with them.
            return false;
        }
        self.tell(|| format!("has {} stored for a group, held: {is_held}", name(&way.message)));
        let payload = way.message.view().payload.to_vec();
        self.groups.stored.insert(payload.clone());
        if !is_held {
            self.tell_that_it_waits(filter, shards);
            return true;
        }
        self.groups.held_until_ms.insert(payload, store.now_ms() + u64::from(HELD_FOR_MS));
        self.hear_of_group(way.frame.take(), shards);
        way.held_at = at.first().map(|place| place.acked);
        way.held_at.is_none()
    }

    /// Whether the member has said what became of what is held for it.
    fn see_hold_end(&mut self, way: &Way, at: Offset, store: &mut Store, shards: &mut [Shard]) -> bool {
        if way.delivery.is_some() {
            return false;
        }
        self.tell(|| format!("ends the hold of {}, taken: {}", name(&way.message), way.is_taken));
        let (filter, taken) = (way.filter.as_str(), way.is_taken);
        let answer = store.ask(Request::EndHold { filter: filter.into(), at, taken });
        assert_eq!(answer, Ok(Reply::Done));
        let payload = way.message.view().payload;
        if self.groups.held_until_ms.get(payload).is_some_and(|until_ms| store.now_ms() < *until_ms) {
            // From here on nothing excuses a second one.
            self.groups.held_until_ms.remove(payload);
        }
        if !taken {
            self.tell_that_it_waits(filter, shards);
        }
        true
    }

    /// One member of a group is told that its stream may hold something.
    fn tell_that_it_waits(&mut self, filter: &str, shards: &mut [Shard]) {
        let Some(reader) = self.groups.next_reader(filter) else { return };
        self.tell(|| format!("tells {reader:?} that something may wait for {filter}"));
        say_that_it_waits(shards, reader, filter);
    }

    /// All members of each group whose stream holds anything are told, now and then: nobody says what a member gave back.
    pub(crate) fn remind_groups(&mut self, store: &mut Store, shards: &mut [Shard]) {
        if store.now_ms() < self.groups.next_reminder_ms {
            return;
        }
        self.groups.next_reminder_ms = store.now_ms() + REMIND_EVERY_MS;
        for (filter, members) in &self.groups.members {
            let stream = StreamKey::Filter(filter.as_str().into());
            let answer = store.ask(Request::Read { stream, after: 0, messages_max: 1, bytes_max: 1 });
            let Ok(Reply::Messages { messages, .. }) = answer else { panic!("{answer:?} is no reading") };
            let readers = members.iter().filter(|(_, (_, is_durable))| *is_durable);
            for (reader, _) in readers.filter(|_| !messages.is_empty()) {
                say_that_it_waits(shards, *reader, filter);
            }
        }
    }
}

fn say_that_it_waits(shards: &mut [Shard], reader: Link, filter: &str) {
    let shared = parse_shared(filter).expect("it was announced as one");
    say(shards, reader, &ToGateway::GroupWaits { group: shared.group, filter: shared.filter });
}

/// What it is called where things are told.
pub(crate) fn name(message: &SharedMessage) -> String {
    String::from_utf8_lossy(message.view().payload).into_owned()
}
