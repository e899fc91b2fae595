//! A bridge as the engine sees one: it takes frames at once, but for those of a session that it knows to be taken over, settles them late and in any
//! order, appends to streams before it settles, and forgets everything but the sink and the store when it dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_wire::ids::{BridgeId, ClientId, Epoch, Owner};
use holdfast_wire::link::{
    Deliver, Event, EventKind, Interest, InterestKind, Positions, Settled, Takeover, Target, ToBridge,
    ToGateway, Uplink, next_record,
};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{QoS, ReasonCode};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request};
use holdfast_wire::topic::{matches, personal_level};

use crate::groups::Groups;
use crate::pushes::Pushes;
use crate::random::Random;
use crate::shard::{DOORS, Shard};
use crate::store::Store;

/// One frame in the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) client: String,
    pub(crate) payload: Vec<u8>,
}

/// A shard, and the door by which it is linked.
pub(crate) type Link = (usize, usize);

pub(crate) struct Pending {
    /// None: a will that the reaper brought, or the link is lost and nobody is to hear.
    from: Option<Link>,
    sequence: u64,
    message: SharedMessage,
    /// Another uplink that says the same and waits for this one.
    joined: Vec<(Link, u64)>,
    dedupe: Option<(String, u16)>,
}

struct Known {
    payload: Vec<u8>,
    /// It came marked as sent again.
    again: bool,
    settled: bool,
}

/// What is known of a frame with a packet id.
enum Seen {
    New,
    Settled,
    Pending,
    /// It comes from a session that was taken over.
    Stale,
}

pub(crate) struct Bridge {
    pub(crate) id: BridgeId,
    pub(crate) up: bool,
    tells: bool,
    /// Survives the bridge.
    pub(crate) sink: Vec<Stored>,
    /// What was settled, here or by a bridge before: everything that owed it has it. Survives the bridge.
    pub(crate) settled: BTreeSet<Vec<u8>>,
    /// Bytes of shards that have not arrived whole.
    inbox: BTreeMap<Link, Vec<u8>>,
    interests: BTreeMap<(Link, String), (bool, Option<u8>)>,
    /// Personal shapes that a persistent session holds or held, with their levels. They are remembered for good, by the next bridge too: whoever takes
    /// frames has to know them even while no shard announces them.
    personal: BTreeSet<(u8, String)>,
    pending: VecDeque<Pending>,
    known: BTreeMap<(String, u16), Known>,
    /// The newest session of each client that was heard of by each door.
    newest: BTreeMap<(usize, String), Epoch>,
    last_message: u64,
    /// Numbers of deliveries that have not been reported.
    pub(crate) awaited: BTreeMap<u64, Link>,
    last_delivery: u64,
    pub(crate) groups: Groups,
    pub(crate) pushes: Pushes,
    /// The book of connections: by door, client and epoch, whether it has ended.
    pub(crate) book: BTreeMap<(usize, String, Epoch), bool>,
}

impl Bridge {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id: BridgeId(id),
            up: true,
            tells: std::env::var_os("SIM_TELL").is_some(),
            sink: Vec::new(),
            settled: BTreeSet::new(),
            inbox: BTreeMap::new(),
            interests: BTreeMap::new(),
            personal: BTreeSet::new(),
            pending: VecDeque::new(),
            known: BTreeMap::new(),
            newest: BTreeMap::new(),
            last_message: 0,
            awaited: BTreeMap::new(),
            last_delivery: 0,
            groups: Groups::default(),
            pushes: Pushes::default(),
            book: BTreeMap::new(),
        }
    }

    /// Forgets all but the sink.
    pub(crate) fn die(&mut self) {
        let sink = std::mem::take(&mut self.sink);
        let settled = std::mem::take(&mut self.settled);
        let personal = std::mem::take(&mut self.personal);
        let last_message = self.last_message;
        let (groups, pushes) = (self.groups.die(), self.pushes.die());
        let next = Self::new(self.id.0 + 1);
        *self = Self { up: false, sink, settled, personal, last_message, groups, pushes, ..next };
    }

    pub(crate) fn forget_link(&mut self, link: Link) {
        self.inbox.remove(&link);
        self.interests.retain(|(of, _), _| *of != link);
        self.awaited.retain(|_, of| *of != link);
        for pending in self.pending.iter_mut().chain(self.groups.held()) {
            pending.from.take_if(|from| *from == link);
            pending.joined.retain(|(from, _)| *from != link);
        }
        self.groups.forget_link(link);
        self.pushes.forget_link(link);
    }

    /// Whether everything that came over this link is read, settled and reported.
    pub(crate) fn owes_nothing(&mut self, link: Link) -> bool {
        let is_its = |pending: &Pending| {
            pending.from == Some(link) || pending.joined.iter().any(|(from, _)| *from == link)
        };
        !self.inbox.contains_key(&link)
            && !self.pending.iter().any(is_its)
            && !self.groups.held().any(|pending| is_its(pending))
            && !self.awaited.values().any(|of| *of == link)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.groups.is_idle()
            && self.pushes.is_idle()
            && self.inbox.values().all(Vec::is_empty)
    }

    pub(crate) fn take_bytes(&mut self, link: Link, bytes: &[u8]) {
        if self.up && !bytes.is_empty() {
            self.inbox.entry(link).or_default().extend_from_slice(bytes);
        }
    }

    /// Handles what has arrived over one link.
    pub(crate) fn read(&mut self, link: Link, shards: &mut [Shard]) {
        let bytes = self.inbox.remove(&link).unwrap_or_default();
        let mut rest = &bytes[..];
        while let Some(raw) = next_record(&mut rest).expect("shards write records") {
            match ToBridge::decode(raw).expect("shards write known records") {
                ToBridge::Uplink(uplink) => self.take_frame(link, &uplink, shards),
                ToBridge::Interest(interest) => self.take_interest(link, &interest, shards),
                ToBridge::RetainedRead(read) => {
                    let end = ToGateway::RetainedEnd { token: read.token, more: false };
                    say(shards, link, &end);
                }
                ToBridge::Report(report) => {
                    self.tell(|| format!("hears of {}: {:?}", report.delivery, report.outcome));
                    let awaited = self.awaited.remove(&report.delivery);
                    assert!(awaited.is_some(), "delivery {} was reported twice", report.delivery);
                    self.pushes.hear(report.delivery, report.outcome);
                    let frame = self.groups.hear(report.delivery, report.outcome);
                    self.hear_of_group(frame, shards);
                }
                ToBridge::Takeover(takeover) => {
                    let Takeover { client, epoch, former, .. } = takeover;
                    match find_by(link.1, shards, former) {
                        Some(former) => say(shards, former, &ToGateway::Takeover(takeover)),
                        None => say(shards, link, &ToGateway::NotLinked { client, epoch }),
                    }
                }
                ToBridge::Handover(handover) => {
                    if let Some(owner) = find_by(link.1, shards, handover.owner) {
                        say(shards, owner, &ToGateway::Handover(handover));
                    }
                }
                ToBridge::HandoverSettled(settled) => {
                    if let Some(former) = find_by(link.1, shards, settled.former) {
                        say(shards, former, &ToGateway::HandoverSettled(settled));
                    }
                }
                ToBridge::Event(event) => self.write_down(&event, link.1),
                ToBridge::Alive => panic!("the shell keeps a link alive, not the engine"),
                ToBridge::Hello(_) => panic!("the shell says hello, not the engine"),
            }
        }
        if !rest.is_empty() {
            self.inbox.insert(link, rest.to_vec());
        }
    }

    fn take_frame(&mut self, link: Link, uplink: &Uplink<'_>, shards: &mut [Shard]) {
        let Uplink { sequence, message, .. } = *uplink;
        let client = message.publisher.to_owned();
        let dedupe = uplink.packet_id.map(|id| (client.clone(), id.get()));
        if let Some(key) = &dedupe {
            match self.look_up(link.1, key, uplink) {
                Seen::New => {}
                Seen::Settled => return settle(shards, link, sequence, 0),
                Seen::Stale => return settle(shards, link, sequence, ReasonCode::SessionTakenOver as u8),
                Seen::Pending => {
                    let is_it = |pending: &&mut Pending| pending.dedupe.as_ref() == Some(key);
                    let waits = self.pending.iter_mut().rev().find(is_it);
                    let original = waits.or_else(|| self.groups.held().filter(is_it).last());
                    return original.expect("it is pending").joined.push((link, sequence));
                }
            }
            let (payload, again) = (message.payload.to_vec(), uplink.dup || uplink.resent);
            self.known.insert(key.clone(), Known { payload, again, settled: false });
        }
        self.sink.push(Stored { client, payload: message.payload.to_vec() });
        self.last_message += 1;
        let message = SharedMessage::new(&Message { id: self.last_message, ..message });
        self.pending.push_back(Pending { from: Some(link), sequence, message, joined: Vec::new(), dedupe });
    }

    /// As the real one does: without a mark a frame is new, unless it is of a former session. Then it may be the original of a copy; if it is not, it is refused.
    fn look_up(&mut self, door: usize, key: &(String, u16), uplink: &Uplink<'_>) -> Seen {
        let newest = self.newest.entry((door, key.0.clone())).or_insert(uplink.epoch);
        *newest = uplink.epoch.max(*newest);
        let is_former = uplink.epoch < *newest;
        let again = uplink.dup || uplink.resent;
        let is_meant =
            |known: &&Known| (again || is_former && known.again) && known.payload == uplink.message.payload;
        match self.known.get(key).filter(is_meant) {
            Some(Known { settled: true, .. }) => Seen::Settled,
            Some(_) => Seen::Pending,
            None if is_former => Seen::Stale,
            None => Seen::New,
        }
    }

    /// Each connection begins and ends once, in this order as far as the same bridge is told. What a lost link took with it is not told again.
    fn write_down(&mut self, event: &Event<'_>, door: usize) {
        let key = (door, event.client.to_owned(), event.epoch);
        match event.kind {
            EventKind::Connected { .. } => {
                let former = self.book.insert(key, false);
                assert_eq!(former, None, "{event:?} is told twice");
            }
            EventKind::Disconnected { .. } | EventKind::TakenOver => {
                let former = self.book.insert(key, true);
                assert_ne!(former, Some(true), "{event:?} is told twice");
            }
        }
    }

    fn take_interest(&mut self, link: Link, interest: &Interest<'_>, shards: &mut [Shard]) {
        let key = (link, interest.filter.to_owned());
        let level = match interest.kind {
            InterestKind::Personal { level } => Some(level),
            InterestKind::Filter => None,
            InterestKind::Shared { group, members } => {
                let filter = format!("$share/{group}/{}", interest.filter);
                if interest.wanted {
                    self.groups.announce(link, filter, members, interest.durable);
                } else {
                    self.groups.withdraw(link, &filter);
                }
                return confirm(shards, link, interest.token);
            }
        };
        if let (Some(level), true) = (level, interest.durable) {
            self.personal.insert((level, interest.filter.to_owned()));
        }
        if interest.wanted {
            self.interests.insert(key, (interest.durable, level));
        } else {
            self.interests.remove(&key);
        }
        confirm(shards, link, interest.token);
    }

    /// Settles one frame: any of those that come first of their publisher.
    pub(crate) fn settle_one(&mut self, random: &mut Random, store: &mut Store, shards: &mut [Shard]) {
        if self.pending.is_empty() {
            return;
        }
        let chosen = random.below(self.pending.len());
        let publisher = self.pending[chosen].message.view().publisher.to_owned();
        let first = self.pending.iter().position(|pending| pending.message.view().publisher == publisher);
        let Some(first) = first else { return };
        if self.must_wait(first, store) {
            return;
        }
        let Some(pending) = self.pending.remove(first) else { return };
        let view = pending.message.view();
        let mut positions = Positions::new();
        let mut personal = Vec::new();
        // Nobody is waited for.
        let mut groups = self.groups.of_topic(view.topic, &[]);
        for (_, _, is_durable) in &mut groups {
            *is_durable = false;
        }
        let announced =
            self.interests.iter().filter_map(|((_, filter), (_, level))| Some(((*level)?, filter)));
        let remembered = self.personal.iter().map(|(level, filter)| (*level, filter));
        for (level, _) in announced.chain(remembered).filter(|(_, filter)| matches(filter, view.topic)) {
            personal.extend(view.topic.split('/').nth(usize::from(level)).map(str::to_owned));
        }
        personal.sort();
        personal.dedup();
        if view.qos > QoS::AtMostOnce {
            let filters = match store.ask(Request::DurableFilters) {
                Ok(Reply::Filters(filters)) => filters,
                _ => Vec::new(),
            };
            groups = self.groups.of_topic(view.topic, &filters);
            let mut streams: Vec<StreamKey> = filters
                .into_iter()
                .filter(|filter| matches(filter, view.topic))
                .map(StreamKey::Filter)
                .collect();
            let deserted = |(_, has_members, is_durable): &mut (_, bool, bool)| !*has_members && *is_durable;
            for (filter, ..) in groups.extract_if(.., deserted) {
                self.groups.stored.insert(view.payload.to_vec());
                streams.push(StreamKey::Filter(filter.into()));
            }
            for client in &personal {
                if let Ok(Reply::Session(Some(session))) =
                    store.ask(Request::Lookup { client: ClientId::new(client) })
                    && session.persistent
                    && session.subscriptions.iter().any(|held| {
                        held.qos > QoS::AtMostOnce
                            && personal_level(&held.filter, client).is_some()
                            && matches(&held.filter, view.topic)
                    })
                {
                    streams.push(StreamKey::Device(client.as_str().into()));
                }
            }
            if !streams.is_empty()
                && let Ok(Reply::Appended { at: appended, .. }) = store.ask(Request::Append {
                    streams,
                    message: pending.message.clone(),
                    collapse_key: None,
                })
            {
                positions = appended;
            }
        }
        let deliver = |target| {
            ToGateway::Deliver(Deliver { delivery: 0, target, positions: positions.clone(), message: view })
        };
        for shard in 0..shards.len() {
            // By one door, as one bridge delivers a message.
            let door = (0..DOORS).find(|door| {
                self.interests.iter().any(|((of, filter), (_, level))| {
                    *of == (shard, *door) && level.is_none() && matches(filter, view.topic)
                })
            });
            if let Some(door) = door {
                say(shards, (shard, door), &deliver(Target::Subscribers));
            }
        }
        for client in &personal {
            if let Ok(Reply::Session(Some(session))) =
                store.ask(Request::Lookup { client: ClientId::new(client) })
                && let Some(owner) = session.owner.and_then(|owner| find(shards, owner))
            {
                say(shards, owner, &deliver(Target::Device(client)));
            }
        }
        let awaited = groups.iter().filter(|(_, _, is_durable)| *is_durable).count();
        for (filter, _, is_durable) in groups {
            self.groups.offer(filter, is_durable, &pending.message, &positions, store.now_ms());
        }
        if awaited == 0 {
            self.finish(pending, shards);
        } else {
            self.groups.hold(pending, awaited);
        }
        self.see_groups_through(store, shards);
    }

    /// Everyone who is owed a frame has it.
    pub(crate) fn finish(&mut self, pending: Pending, shards: &mut [Shard]) {
        let view = pending.message.view();
        if let Some(known) = pending.dedupe.as_ref().and_then(|key| self.known.get_mut(key))
            && known.payload == view.payload
        {
            known.settled = true;
        }
        self.settled.insert(view.payload.to_vec());
        if let Some(link) = pending.from {
            settle(shards, link, pending.sequence, 0);
        }
        for (link, sequence) in pending.joined {
            settle(shards, link, sequence, 0);
        }
    }

    /// Whether a store that has just lost everything does not have all that a message is owed to: connected sessions are about to be written back.
    fn must_wait(&self, pending: usize, store: &mut Store) -> bool {
        let message = self.pending[pending].message.clone();
        let view = message.view();
        if view.qos == QoS::AtMostOnce || !store.has_just_begun() {
            return false;
        }
        let Ok(Reply::Filters(known)) = store.ask(Request::DurableFilters) else { return false };
        let announced = self.interests.iter().filter(|((_, filter), (durable, level))| {
            *durable && level.is_none() && matches(filter, view.topic)
        });
        let lacks_stream =
            announced.into_iter().any(|((_, filter), _)| !known.iter().any(|it| **it == **filter));
        let shapes = self.personal.iter().filter(|(_, filter)| matches(filter, view.topic));
        let clients = shapes.filter_map(|(level, _)| view.topic.split('/').nth(usize::from(*level)));
        let mut clients = clients.map(ClientId::new);
        lacks_stream
            || clients.any(|client| store.ask(Request::Lookup { client }) == Ok(Reply::Session(None)))
    }

    /// Takes up a will of somebody whose node died.
    pub(crate) fn publish_will(&mut self, will: &SharedMessage) {
        let message = Message { id: self.number_message(), ..will.view() };
        let client = message.publisher.to_owned();
        self.sink.push(Stored { client, payload: message.payload.to_vec() });
        self.pending.push_back(Pending {
            from: None,
            sequence: 0,
            message: SharedMessage::new(&message),
            joined: Vec::new(),
            dedupe: None,
        });
    }

    /// With `SIM_TELL` set, what it does is printed.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("        the bridge {}", what());
        }
    }

    pub(crate) fn number_message(&mut self) -> u64 {
        self.last_message += 1;
        self.last_message
    }

    /// The number of a delivery whose report is to come over this link.
    pub(crate) fn expect_report(&mut self, link: Link) -> u64 {
        self.last_delivery += 1;
        self.awaited.insert(self.last_delivery, link);
        self.last_delivery
    }
}

/// A link of this shard.
pub(crate) fn find(shards: &[Shard], owner: Owner) -> Option<Link> {
    (0..DOORS).find_map(|door| find_by(door, shards, owner))
}

/// The same, if it is linked by this door.
fn find_by(door: usize, shards: &[Shard], owner: Owner) -> Option<Link> {
    let found = shards.iter().position(|shard| shard.owner == owner && shard.doors[door].is_up);
    found.map(|shard| (shard, door))
}

pub(crate) fn say(shards: &mut [Shard], (shard, door): Link, record: &ToGateway<'_>) {
    let door = &mut shards[shard].doors[door];
    if door.is_up {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        door.records.push_back(bytes);
    }
}

fn confirm(shards: &mut [Shard], link: Link, token: u64) {
    if token != 0 {
        say(shards, link, &ToGateway::InterestKnown(token));
    }
}

fn settle(shards: &mut [Shard], link: Link, sequence: u64, reason_code: u8) {
    say(shards, link, &ToGateway::Settled(Settled { first: sequence, last: sequence, reason_code }));
}
