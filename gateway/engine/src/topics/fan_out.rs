//! From a delivery of a bridge to the connections it is for.
//!
//! A message for many goes out in slices, so that sockets are served in between and the outbox stays bounded. While slices are left the shell
//! reads no links, so deliveries keep their order and wait in the kernel.

use std::collections::VecDeque;

use holdfast_wire::link::{Deliver, Outcome, Positions, Target};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, Offset, StreamKey};
use holdfast_wire::topic;

use crate::connection::deliver::{self, Copy};
use crate::connection::encode::Outgoing;
use crate::connection::streams;
use crate::connection::table::Connections;
use crate::engine::Engine;
use crate::input::{ConnectionId, LinkIndex, Now};
use crate::session::Session;
use crate::session::durable;
use crate::session::subscription::{Options, Subscription};
use crate::shared::Shared;
use crate::topics::subscribers::Subscriber;
use crate::uplink::ReportTo;

/// Messages on their way to many.
#[derive(Debug, Default)]
pub(crate) struct FanOut {
    /// The first one is under way. Further ones are what the link's last read brought.
    jobs: VecDeque<Job>,
    /// An empty list with room, for the next job.
    spare: Vec<Receiver>,
}

#[derive(Debug)]
struct Job {
    message: SharedMessage,
    receivers: Vec<Receiver>,
    /// Subscription identifiers of receivers that have several or any.
    identifiers: Vec<u32>,
    positions: Positions,
    next: usize,
}

/// One connection, with what its matching subscriptions make of the message together.
#[derive(Clone, Copy, Debug)]
struct Receiver {
    id: ConnectionId,
    qos: QoS,
    retain: bool,
    /// Where its identifiers lie.
    identifiers: (u32, u16),
    /// Bits of the positions whose stream it reads by one of its filters.
    positions: u64,
}

/// Streams that one message can be judged by for one receiver; the filters of one topic beyond that are read from their streams.
const POSITIONS_MAX: usize = 63;

impl Engine {
    /// A bridge delivers a message.
    pub(crate) fn handle_deliver(&mut self, link: LinkIndex, deliver: &Deliver<'_>, now: Now) {
        let report = (deliver.delivery != 0).then(|| self.shared.uplinks.report_to(link, deliver.delivery));
        match deliver.target {
            Target::Subscribers => self.deliver_to_subscribers(deliver, now),
            Target::Device(client) => self.deliver_to_device(client, deliver, report, now),
            Target::Group { group, filter } => self.deliver_to_group(group, filter, deliver, report, now),
        }
    }

    fn deliver_to_device(&mut self, client: &str, deliver: &Deliver<'_>, report: Option<ReportTo>, now: Now) {
        let found = self.find_client(client);
        let connection =
            found.and_then(|id| self.connections.find_mut(id).map(|connection| (id, connection)));
        let Some((id, connection)) = connection else {
            return deliver::report(&mut self.shared, report, Outcome::NotHere);
        };
        let Some(session) = connection.session_mut() else {
            return deliver::report(&mut self.shared, report, Outcome::NotHere);
        };
        // A push is for any subscription of its device; without a report it is one that was queued while the device came back. A
        // publication comes this way only for the personal subscriptions: the others are reached as everyone's are.
        let is_queued_push = deliver.message.publisher.is_empty()
            && deliver.positions.iter().any(|position| matches!(position.stream, StreamKey::Device(_)));
        let is_push = report.is_some() || is_queued_push;
        let mut identifiers = Vec::new();
        let mut merged: Option<(QoS, bool)> = None;
        for subscription in &session.subscriptions {
            if (is_push || subscription.personal)
                && topic::matches(&subscription.filter, deliver.message.topic)
            {
                merge(&mut merged, &mut identifiers, subscription, &deliver.message, &session.client);
            }
        }
        let Some((qos, retain)) = merged else {
            return deliver::report(&mut self.shared, report, Outcome::NotSubscribed);
        };
        let Some(positions) = own_positions(session, deliver.positions.iter(), deliver.message.id) else {
            return deliver::leave_unopened(connection, &mut self.shared, report);
        };
        let alone = own_alone(session, &positions);
        hear(session, &alone);
        let copy = Copy { qos, retain, subscription_ids: &identifiers, positions: &positions, report };
        let mut outgoing = Outgoing::single(deliver.message);
        deliver::deliver(connection, id, &mut self.shared, &mut outgoing, copy, now);
    }

    fn deliver_to_group(
        &mut self,
        group: &str,
        filter: &str,
        deliver: &Deliver<'_>,
        report: Option<ReportTo>,
        now: Now,
    ) {
        let key = format!("$share/{group}/{filter}");
        let Some(subscribers) = self.shared.subscriptions.groups.get_mut(&*key) else {
            return deliver::report(&mut self.shared, report, Outcome::NotHere);
        };
        let limits = &self.shared.config.limits;
        let (stands, mut has_members) = (report.is_some() && subscribers.stream.is_some(), false);
        // In turn, but rather one that can take it at once.
        let mut chosen: Option<Subscriber> = None;
        for member in subscribers.round() {
            let Some(session) = self.connections.find(member.id).and_then(|connection| connection.session())
            else {
                continue;
            };
            let (inflight, pending) = session.queued();
            let is_free = pending == 0
                && inflight < usize::from(session.send_maximum)
                && self.connections.find(member.id).is_some_and(|connection| !connection.blocked);
            if is_free {
                chosen = Some(member);
                break;
            }
            // Where it waits for a stuck member others are not given it, and in the group's stream it would wait for whoever has room first.
            let waits_elsewhere = stands && streams::room_to_claim(session, limits).is_none();
            has_members = true;
            chosen = chosen.or((!waits_elsewhere).then_some(member));
        }
        let Some(member) = chosen else {
            let outcome = if has_members { Outcome::QueueFull } else { Outcome::NotHere };
            return deliver::report(&mut self.shared, report, outcome);
        };
        self.deliver_to_member(member, deliver, report, now);
    }

    /// Something may wait in the stream of a group: one member that reads it claims it once it has room. In turn, but rather one that has; and of those that
    /// have none, rather one that does not know of anything yet, so that what waits is not left to one that stands still.
    pub(crate) fn tell_member(&mut self, group: &str, filter: &str) {
        let Self { connections, shared, .. } = self;
        let key = format!("$share/{group}/{filter}");
        let Some(subscribers) = shared.subscriptions.groups.get_mut(&*key) else { return };
        let mut chosen = None;
        for Subscriber { id, .. } in subscribers.round() {
            let Some(connection) = connections.find(id) else { continue };
            let Some(session) = connection.session() else { continue };
            let Some(durable) = &session.durable else { continue };
            let Some(index) = durable.streams.iter().position(|stream| stream.is_of(&key)) else { continue };
            let is_held_up = connection.blocked
                || connection.doubted
                || connection.leaving
                || matches!(durable.phase, durable::Phase::Announcing(_));
            if !is_held_up && streams::room_to_claim(session, &shared.config.limits).is_some() {
                chosen = Some((id, index));
                break;
            }
            if !durable.streams[index].waits {
                chosen.get_or_insert((id, index));
            }
        }
        let Some((id, index)) = chosen else { return };
        let Some(connection) = connections.find_mut(id) else { return };
        let blocked = connection.blocked;
        let Some(session) = connection.session_mut() else { return };
        let Some(durable) = &mut session.durable else { return };
        durable.note_waiting(index as u16);
        streams::read_on(session, id, shared, blocked);
    }

    fn deliver_to_member(
        &mut self,
        member: Subscriber,
        deliver: &Deliver<'_>,
        report: Option<ReportTo>,
        now: Now,
    ) {
        let Some(connection) = self.connections.find_mut(member.id) else { return };
        let Some(session) = connection.session_mut() else { return };
        // A group's message is for one member: what that member's stream is not open for, it settles without a mark.
        let positions =
            own_positions(session, deliver.positions.iter(), deliver.message.id).unwrap_or_default();
        let identifier = [member.identifier];
        let copy = Copy {
            qos: member.options.qos.min(deliver.message.qos),
            retain: member.options.retain_as_published && deliver.message.retain,
            subscription_ids: if member.identifier == 0 { &[] } else { &identifier },
            positions: &positions,
            report,
        };
        let mut outgoing = Outgoing::single(deliver.message);
        deliver::deliver(connection, member.id, &mut self.shared, &mut outgoing, copy, now);
    }

    fn deliver_to_subscribers(&mut self, deliver: &Deliver<'_>, now: Now) {
        let mut receivers = std::mem::take(&mut self.fan_out.spare);
        let mut identifiers = Vec::new();
        let own = self.find_client(deliver.message.publisher);
        gather(&self.shared, deliver, own, &mut receivers, &mut identifiers);
        if receivers.is_empty() {
            self.fan_out.spare = receivers;
            return;
        }
        if self.fan_out.jobs.is_empty() {
            let mut outgoing = Outgoing::many(deliver.message, None);
            let slice =
                Slice { receivers: &receivers, identifiers: &identifiers, positions: &deliver.positions };
            let done = slice.run(&mut self.connections, &mut self.shared, &mut outgoing, 0, now);
            if done == receivers.len() {
                self.fan_out.recycle(receivers);
                return;
            }
            self.fan_out.push(&deliver.message, receivers, identifiers, deliver.positions.clone(), done);
        } else {
            self.fan_out.push(&deliver.message, receivers, identifiers, deliver.positions.clone(), 0);
        }
    }

    /// The next slice of what is left of deliveries to many.
    pub(crate) fn fan_out_slice(&mut self, now: Now) {
        let Some(job) = self.fan_out.jobs.front_mut() else { return };
        let mut outgoing = Outgoing::many(job.message.view(), Some(job.message.clone()));
        let slice =
            Slice { receivers: &job.receivers, identifiers: &job.identifiers, positions: &job.positions };
        job.next = slice.run(&mut self.connections, &mut self.shared, &mut outgoing, job.next, now);
        if job.next == job.receivers.len()
            && let Some(job) = self.fan_out.jobs.pop_front()
        {
            self.fan_out.recycle(job.receivers);
        }
    }
}

impl FanOut {
    pub(crate) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn push(
        &mut self,
        message: &Message<'_>,
        receivers: Vec<Receiver>,
        identifiers: Vec<u32>,
        positions: Positions,
        next: usize,
    ) {
        let message = SharedMessage::new(message);
        self.jobs.push_back(Job { message, receivers, identifiers, positions, next });
    }

    fn recycle(&mut self, mut receivers: Vec<Receiver>) {
        receivers.clear();
        receivers.shrink_to(16 * 1024);
        self.spare = receivers;
    }
}

/// The receivers of one message.
struct Slice<'a> {
    receivers: &'a [Receiver],
    identifiers: &'a [u32],
    positions: &'a [Cursor],
}

impl Slice<'_> {
    /// Delivers from `next` on until the slice's budget is used up; returns how far it came.
    fn run(
        &self,
        connections: &mut Connections,
        shared: &mut Shared,
        outgoing: &mut Outgoing<'_>,
        mut next: usize,
        now: Now,
    ) -> usize {
        let until = self.receivers.len().min(next + shared.config.limits.fan_out_slice_deliveries);
        while next < until && shared.outbox.bytes() < shared.config.limits.fan_out_slice_bytes {
            let receiver = self.receivers[next];
            next += 1;
            let Some(connection) = connections.find_mut(receiver.id) else { continue };
            let Some(session) = connection.session_mut() else { continue };
            let chosen = self.positions.iter().take(POSITIONS_MAX).enumerate();
            let chosen =
                chosen.filter(|(bit, _)| receiver.positions & (1 << bit) != 0).map(|(_, position)| position);
            let Some(positions) = own_positions(session, chosen, outgoing.message.id) else {
                deliver::leave_unopened(connection, shared, None);
                continue;
            };
            hear(session, &positions);
            let (start, length) = receiver.identifiers;
            let copy = Copy {
                qos: receiver.qos,
                retain: receiver.retain,
                subscription_ids: &self.identifiers[start as usize..start as usize + usize::from(length)],
                positions: &positions,
                report: None,
            };
            deliver::deliver(connection, receiver.id, shared, outgoing, copy, now);
        }
        next
    }
}

/// Finds everyone whose filters match, each once. `own` is the publisher's connection, if it is here.
fn gather(
    shared: &Shared,
    deliver: &Deliver<'_>,
    own: Option<ConnectionId>,
    receivers: &mut Vec<Receiver>,
    identifiers: &mut Vec<u32>,
) {
    let message = &deliver.message;
    let mut filters = 0;
    shared.subscriptions.tree.for_each_match(message.topic, |subscribers| {
        filters += 1;
        let positions = subscribers.stream.as_deref().map_or(0, |filter| {
            let place =
                deliver.positions.iter().take(POSITIONS_MAX).position(|position| match &position.stream {
                    StreamKey::Filter(stream) => **stream == *filter,
                    StreamKey::Device(_) => false,
                });
            place.map_or(0, |bit| 1 << bit)
        });
        for member in subscribers.members() {
            let run = if member.identifier == 0 {
                (0, 0)
            } else {
                identifiers.push(member.identifier);
                (identifiers.len() as u32 - 1, 1)
            };
            receivers.push(Receiver {
                id: member.id,
                qos: member.options.qos.min(message.qos),
                retain: member.options.retain_as_published && message.retain,
                identifiers: run,
                positions: if member.options.no_local { positions | NO_LOCAL } else { positions },
            });
        }
    });
    drop_own(own, receivers);
    if filters > 1 {
        merge_receivers(receivers, identifiers);
    }
}

/// The topmost bit of a receiver's positions while it is gathered: the subscription does not want what its own client published.
const NO_LOCAL: u64 = 1 << POSITIONS_MAX;

/// Leaves out the publisher's own "no local" subscriptions (MQTT-3.8.3-3).
fn drop_own(own: Option<ConnectionId>, receivers: &mut Vec<Receiver>) {
    if receivers.iter().all(|receiver| receiver.positions & NO_LOCAL == 0) {
        return;
    }
    receivers.retain_mut(|receiver| {
        let no_local = receiver.positions & NO_LOCAL != 0;
        receiver.positions &= !NO_LOCAL;
        !(no_local && own == Some(receiver.id))
    });
}

/// One receiver for each connection: the highest QoS, all identifiers (MQTT-3.3.4-2, MQTT-3.3.4-3).
fn merge_receivers(receivers: &mut Vec<Receiver>, identifiers: &mut Vec<u32>) {
    receivers.sort_by_key(|receiver| receiver.id);
    receivers.dedup_by(|next, kept| {
        if next.id != kept.id {
            return false;
        }
        kept.qos = kept.qos.max(next.qos);
        kept.retain |= next.retain;
        kept.positions |= next.positions;
        let (start, length) = next.identifiers;
        if length > 0 {
            let (kept_start, kept_length) = kept.identifiers;
            let run = identifiers.len() as u32;
            identifiers
                .extend_from_within(kept_start as usize..kept_start as usize + usize::from(kept_length));
            identifiers.extend_from_within(start as usize..start as usize + usize::from(length));
            kept.identifiers = (run, kept_length + length);
        }
        true
    });
}

fn merge(
    merged: &mut Option<(QoS, bool)>,
    identifiers: &mut Vec<u32>,
    subscription: &Subscription,
    message: &Message<'_>,
    client: &str,
) {
    let Options { qos, no_local, retain_as_published } = subscription.options;
    if no_local && message.publisher == client {
        return;
    }
    let retain = retain_as_published && message.retain;
    let qos = qos.min(message.qos);
    *merged = Some(merged.map_or((qos, retain), |(other, retained)| (qos.max(other), retain || retained)));
    identifiers.extend((subscription.identifier != 0).then_some(subscription.identifier));
}

/// Notes that a message has come live at these places.
fn hear(session: &mut Session, positions: &[(u16, Offset)]) {
    if let Some(durable) = &mut session.durable {
        durable.hear(positions, session.sending.as_deref_mut());
    }
}

/// Those of the places whose streams are this client's alone: what stands in others comes another way as well, as everyone's does.
fn own_alone(session: &Session, positions: &[(u16, Offset)]) -> Vec<(u16, Offset)> {
    let Some(durable) = &session.durable else { return Vec::new() };
    let is_own = |stream: &StreamKey| match stream {
        StreamKey::Filter(filter) => topic::personal_level(filter, &session.client).is_some(),
        StreamKey::Device(_) => true,
    };
    let places = positions.iter().filter(|(index, _)| is_own(&durable.streams[usize::from(*index)].key));
    places.copied().collect()
}

/// A message's places in those streams that this session reads, but for those that the store has lost since: it is taken here, unless it has come already.
/// None if it stands in one that the store is still opening for a SUBSCRIBE: where the session begins in it is not known yet.
fn own_positions<'a>(
    session: &mut Session,
    positions: impl Iterator<Item = &'a Cursor>,
    id: u64,
) -> Option<Vec<(u16, Offset)>> {
    let mut own = Vec::new();
    let mut is_lost = false;
    for position in positions {
        let Some(durable) = &session.durable else { break };
        match durable.find(&position.stream) {
            Some(stream) if durable.is_lost(stream, position.acked) && !durable.read_ids.contains(&id) => {
                is_lost = true;
            }
            // A session counts for itself what it has claimed of a group's stream: places in it tell it nothing.
            Some(stream) if durable.streams[usize::from(stream)].is_group => {}
            Some(stream) => own.push((stream, position.acked)),
            None if session.asking > 0 && session.reads_filter(&position.stream) => return None,
            None => {}
        }
    }
    if is_lost
        && own.is_empty()
        && let Some(durable) = &mut session.durable
    {
        durable.note_read(id);
    }
    Some(own)
}
