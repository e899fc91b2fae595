//! A message on its way down: from the shard to one connection, its acknowledgement, and reading on from streams.

use holdfast_wire::link::Outcome;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::{PacketId, PubRel, QoS, ReasonCode};
use holdfast_wire::session_record::{InflightState, Offset, StreamKey};
use holdfast_wire::store::Request;
use holdfast_wire::topic;

use super::encode::{Outgoing, Wrapping, wrapped, write};
use super::table::Connections;
use super::transport::Framing;
use super::{Connection, Phase, retained};
use crate::input::{ConnectionId, Now};
use crate::requests::Asked;
use crate::session::Session;
use crate::session::durable::{self, Live};
use crate::session::sending::{Inflight, Item};
use crate::shared::Shared;
use crate::uplink::ReportTo;

/// Streams are read on in pieces of at most this many messages ...
const READ_MESSAGES_MAX: u32 = 128;
/// ... or bytes.
const READ_BYTES_MAX: u32 = 256 * 1024;

/// For how long that is remembered once a session is live, in ms. An append in doubt is made again each second or two while the store is away, and each may have
/// been heeded: the session finds the first in its stream, and the last comes live.
const READ_REMEMBERED_MS: u64 = 5_000;

/// What one session's subscriptions make of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy<'a> {
    /// The lower of the publisher's and the subscription's.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: &'a [u32],
    /// Places in the session's own streams.
    pub(crate) positions: &'a [(u16, Offset)],
    pub(crate) report: Option<ReportTo>,
}

/// Tells who asked what became of a delivery.
pub(crate) fn report(shared: &mut Shared, to: Option<ReportTo>, outcome: Outcome) {
    if let Some(to) = to {
        shared.uplinks.report(to, outcome);
    }
}

/// Sends a message to a connection, or queues it, or leaves it in its stream, or drops it with a reason.
pub(crate) fn deliver(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    outgoing: &mut Outgoing<'_>,
    copy: Copy<'_>,
    now: Now,
) {
    let framing = connection.framing();
    let blocked = connection.blocked;
    let may_send = !blocked && shared.outbox.waiting(id) < shared.config.limits.turn_bytes_max;
    let Phase::Established(session) = &mut connection.phase else {
        return report(shared, copy.report, Outcome::NotHere);
    };
    if let Some(durable) = &mut session.durable
        && durable.judge_live(copy.positions, outgoing.message.id) == Live::Leave
    {
        report(shared, copy.report, Outcome::Kept);
        return read_on(session, id, shared, blocked);
    }
    if outgoing.message.is_expired(now.unix_ms) {
        shared.stats.dropped_expired += 1;
        mark_delivered(session, copy.positions);
        return report(shared, copy.report, Outcome::Expired);
    }
    if copy.qos == QoS::AtMostOnce {
        // A client that does not read loses QoS 0 first: nothing is queued for it in user space.
        let outcome = if !may_send {
            shared.stats.dropped_slow_consumer += 1;
            Outcome::QueueFull
        } else if send_at_most_once(session, framing, id, shared, outgoing, copy, now) {
            Outcome::Delivered
        } else {
            Outcome::TooLarge
        };
        mark_delivered(session, copy.positions);
        return report(shared, copy.report, outcome);
    }
    let (inflight, pending) = session.queued();
    let pending_bytes = session.sending.as_ref().map_or(0, |sending| sending.pending_bytes);
    let limits = &shared.config.limits;
    let room_in_window = may_send && pending == 0 && inflight < usize::from(session.send_maximum);
    let room_in_queue =
        pending < limits.pending_messages_max as usize && pending_bytes < limits.pending_bytes_max as usize;
    if !room_in_window && !room_in_queue {
        if !copy.positions.is_empty()
            && let Some(durable) = &mut session.durable
        {
            durable.read_again();
            return report(shared, copy.report, Outcome::Kept);
        }
        shared.stats.dropped_queue_full += 1;
        return report(shared, copy.report, Outcome::QueueFull);
    }
    mark_delivered(session, copy.positions);
    let item = Item {
        message: outgoing.keep(),
        qos: copy.qos,
        retain: copy.retain,
        subscription_ids: copy.subscription_ids.into(),
        report: copy.report,
        positions: copy.positions.into(),
    };
    if room_in_window {
        send(session, framing, id, shared, item, Some(outgoing), now);
    } else {
        session.sending.get_or_insert_default().push_pending(item);
        if !blocked && !may_send {
            shared.behind.push(id);
        }
    }
    touch(session, id, shared, now);
}

/// Leaves a message in a stream that the store is still opening for this session.
pub(crate) fn leave_unopened(connection: &mut Connection, shared: &mut Shared, to: Option<ReportTo>) {
    if let Some(durable) = connection.session_mut().and_then(|session| session.durable.as_mut()) {
        durable.left_unopened = true;
    }
    report(shared, to, Outcome::Kept);
}

/// Sends again what a resumed session has inflight, then what has room in the window, then reads on from streams if the queue has run low.
pub(crate) fn pump(connection: &mut Connection, id: ConnectionId, shared: &mut Shared, now: Now) {
    let framing = connection.framing();
    let blocked = connection.blocked;
    let Phase::Established(session) = &mut connection.phase else { return };
    while !blocked && session.sending.is_some() {
        if shared.outbox.waiting(id) >= shared.config.limits.turn_bytes_max {
            shared.behind.push(id);
            break;
        }
        if !resend_one(session, framing, id, shared, now) && !send_one(session, framing, id, shared, now) {
            break;
        }
    }
    if session.sending.as_ref().is_some_and(|sending| sending.is_empty()) {
        // An idle connection owns no buffer (promise P9).
        session.sending = None;
    }
    read_on(session, id, shared, blocked);
    let until_ms = now.monotonic_ms + READ_REMEMBERED_MS;
    if session.durable.as_mut().is_some_and(|durable| durable.begins_to_remember(until_ms)) {
        shared.remembering.push_back((until_ms, id));
    }
    retained::read_on(session, blocked, id, shared);
}

/// Sends the first pending message; false if there is none or no room for it.
fn send_one(
    session: &mut Session,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    now: Now,
) -> bool {
    let Some(sending) = &mut session.sending else { return false };
    if sending.inflight.len() >= usize::from(session.send_maximum) {
        return false;
    }
    let Some(item) = sending.pop_pending() else { return false };
    if item.message.view().is_expired(now.unix_ms) {
        shared.stats.dropped_expired += 1;
        report(shared, item.report, Outcome::Expired);
    } else {
        send(session, framing, id, shared, item, None, now);
    }
    true
}

/// Sends again the first inflight message that a resume has left to do, under its packet id (MQTT-4.4.0-1, MQTT-4.6.0-1); false if there is none.
fn resend_one(
    session: &mut Session,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    now: Now,
) -> bool {
    let Some(mut sending) = session.sending.take() else { return false };
    // The client may take fewer at a time than before. What it has half of is ended all the same, as nothing else makes room.
    let sent = sending.inflight.iter().filter(|inflight| !inflight.resend).count();
    let has_room = sent < usize::from(session.send_maximum);
    let index =
        sending.inflight.iter().position(|inflight| inflight.resend && (has_room || inflight.item.is_none()));
    if let Some(index) = index {
        let inflight = &mut sending.inflight[index];
        inflight.resend = false;
        let packet_id = inflight.packet_id;
        match &inflight.item {
            None => {
                let version = session.protocol.version();
                framing.send(&mut shared.outbox, id, |out| PubRel::success(packet_id).encode(version, out));
            }
            Some(item) => {
                let mut outgoing = Outgoing::single(item.message.view());
                let packet = wrapped(item, packet_id, true);
                if write(session, framing, id, &mut shared.outbox, &mut outgoing, &packet, now) {
                    shared.stats.resent += 1;
                } else {
                    // The client takes smaller packets than before: as if it had been sent and acknowledged (MQTT-3.1.2-25).
                    shared.stats.dropped_too_large += 1;
                    report(shared, item.report, Outcome::TooLarge);
                    sending.inflight.remove(index);
                }
            }
        }
    }
    session.sending = Some(sending);
    index.is_some()
}

/// Asks for the next piece of a stream if the session is behind and its queue has room for it.
pub(crate) fn read_on(session: &mut Session, id: ConnectionId, shared: &mut Shared, blocked: bool) {
    let limits = &shared.config.limits;
    let (_, pending) = session.queued();
    let pending_bytes = session.sending.as_ref().map_or(0, |sending| sending.pending_bytes);
    let room = (limits.pending_messages_max / 2).saturating_sub(pending as u32);
    let room_bytes = (limits.pending_bytes_max / 2).saturating_sub(pending_bytes as u32);
    if room == 0 || room_bytes == 0 || blocked {
        return;
    }
    let Some(durable) = &mut session.durable else { return };
    let Some((stream, after)) = durable.next_read() else { return };
    let durable::Phase::Reading { stream: index, .. } = durable.phase else { return };
    let asked = Asked::Read(id, index, durable.reads);
    shared.reads += 1;
    shared.ask(
        asked,
        Request::Read {
            stream,
            after,
            messages_max: room.min(READ_MESSAGES_MAX),
            bytes_max: room_bytes.min(READ_BYTES_MAX),
        },
    );
}

/// Forgets which messages sessions have read that are live for long enough. Later is no harm.
pub(crate) fn forget_read(connections: &mut Connections, shared: &mut Shared, now: Now) {
    while let Some((_, id)) = shared.remembering.pop_front_if(|(until_ms, _)| *until_ms <= now.monotonic_ms) {
        let session = connections.find_mut(id).and_then(Connection::session_mut);
        let durable = session.and_then(|session| session.durable.as_mut());
        if let Some(until_ms) = durable.and_then(|durable| durable.forget_read(now.monotonic_ms)) {
            shared.remembering.push_back((until_ms, id));
        }
    }
}

/// A piece of a stream came.
pub(crate) fn take_read(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    index: u16,
    messages: Vec<(Offset, SharedMessage)>,
    end: Offset,
    now: Now,
) {
    let Phase::Established(session) = &mut connection.phase else { return };
    let Some(durable) = &mut session.durable else { return };
    let last = messages.last().map_or(end, |(offset, _)| *offset);
    let key = durable.streams[usize::from(index)].key.clone();
    let closed = durable.streams[usize::from(index)].closed;
    for (offset, message) in messages {
        durable.mark_delivered(&[(index, offset)]);
        let message_id = message.view().id;
        if closed || durable.read_ids.contains(&message_id) || message.view().is_expired(now.unix_ms) {
            continue;
        }
        // What this stream's subscription passes over, that of another stream may want.
        if let Some(item) =
            queued_item(&session.subscriptions, &session.client, &key, message, (index, offset))
        {
            durable.note_read(message_id);
            session.sending.get_or_insert_default().push_pending(item);
        }
    }
    // What bounds and ages have cut off the stream's end is not waited for.
    durable.mark_delivered(&[(index, last)]);
    let from_the_first = durable.find_end(index, end, session.sending.as_deref_mut());
    let stream = &durable.streams[usize::from(index)];
    let next = if from_the_first {
        0
    } else if stream.seen > stream.delivered && stream.delivered < end {
        index
    } else {
        index + 1
    };
    durable.phase = durable::Phase::Reading { stream: next, asked: false };
    touch(session, id, shared, now);
    pump(connection, id, shared, now);
}

/// A message read from a stream, with what the session's subscriptions make of it now.
fn queued_item(
    subscriptions: &[crate::session::subscription::Subscription],
    client: &str,
    key: &StreamKey,
    message: SharedMessage,
    position: (u16, Offset),
) -> Option<Item> {
    let view = message.view();
    let mut qos = None;
    let mut retain = false;
    let mut ids = Vec::new();
    for subscription in subscriptions {
        let wanted = match key {
            StreamKey::Filter(filter) => *subscription.filter == **filter,
            StreamKey::Device(_) => topic::matches(&subscription.filter, view.topic),
        };
        if !wanted || (subscription.options.no_local && view.publisher == client) {
            continue;
        }
        qos = qos.max(Some(subscription.options.qos.min(view.qos)));
        retain |= subscription.options.retain_as_published && view.retain;
        ids.extend((subscription.identifier != 0).then_some(subscription.identifier));
    }
    let qos = qos.filter(|qos| *qos > QoS::AtMostOnce)?;
    Some(Item {
        message,
        qos,
        retain,
        subscription_ids: ids.into(),
        report: None,
        positions: [position].into(),
    })
}

/// PUBACK, or a JSON device's ack.
pub(crate) fn handle_acknowledged(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: PacketId,
    reason_code: ReasonCode,
    now: Now,
) {
    settle(connection, id, shared, packet_id, InflightState::AwaitingPubAck, reason_code, now);
}

/// PUBREC: the client has a QoS 2 message.
pub(crate) fn handle_received(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: PacketId,
    reason_code: ReasonCode,
    now: Now,
) {
    if reason_code.is_error() {
        // Refused: there is no second half (MQTT-4.3.3-4).
        return settle(connection, id, shared, packet_id, InflightState::AwaitingPubRec, reason_code, now);
    }
    let framing = connection.framing();
    let Some(session) = connection.session_mut() else { return };
    let version = session.protocol.version();
    let found = session.sending.as_mut().and_then(|sending| {
        let index = sending.find(packet_id)?;
        let inflight = &mut sending.inflight[index];
        (inflight.state != InflightState::AwaitingPubAck).then_some(inflight)
    });
    let known = found.is_some();
    let item = found.and_then(|inflight| {
        inflight.state = InflightState::AwaitingPubComp;
        inflight.item.take()
    });
    if let Some(item) = item {
        report(shared, item.report, Outcome::Delivered);
        touch(session, id, shared, now);
    }
    let release = if known {
        PubRel::success(packet_id)
    } else {
        PubRel::with_reason(packet_id, ReasonCode::PacketIdentifierNotFound)
    };
    framing.send(&mut shared.outbox, id, |out| release.encode(version, out));
}

/// PUBCOMP: QoS 2 is done.
pub(crate) fn handle_completed(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: PacketId,
    now: Now,
) {
    settle(connection, id, shared, packet_id, InflightState::AwaitingPubComp, ReasonCode::Success, now);
}

fn settle(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: PacketId,
    awaited: InflightState,
    reason_code: ReasonCode,
    now: Now,
) {
    let Some(session) = connection.session_mut() else { return };
    let Some(sending) = &mut session.sending else { return };
    let Some(index) = sending.find(packet_id).filter(|index| sending.inflight[*index].state == awaited)
    else {
        // Settled on an earlier connection, or never sent: nothing to do, and nothing that harms.
        return;
    };
    let inflight = sending.inflight.remove(index);
    if let Some(item) = inflight.and_then(|inflight| inflight.item) {
        let outcome = if reason_code.is_error() { Outcome::RefusedByDevice } else { Outcome::Delivered };
        report(shared, item.report, outcome);
    }
    touch(session, id, shared, now);
    pump(connection, id, shared, now);
}

/// Sends a message with QoS > 0 that has room in the window.
fn send(
    session: &mut Session,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    item: Item,
    outgoing: Option<&mut Outgoing<'_>>,
    now: Now,
) {
    let packet_id = session.unused_packet_id();
    let packet = wrapped(&item, packet_id, false);
    let written = match outgoing {
        Some(outgoing) => write(session, framing, id, &mut shared.outbox, outgoing, &packet, now),
        None => {
            let mut outgoing = Outgoing::single(item.message.view());
            write(session, framing, id, &mut shared.outbox, &mut outgoing, &packet, now)
        }
    };
    if !written {
        // As if it had been sent and acknowledged (MQTT-3.1.2-25).
        shared.stats.dropped_too_large += 1;
        return report(shared, item.report, Outcome::TooLarge);
    }
    shared.stats.sent[item.qos as usize] += 1;
    shared.stats.sent_bytes += item.message.view().payload.len() as u64;
    let state = match item.qos {
        QoS::ExactlyOnce => InflightState::AwaitingPubRec,
        QoS::AtLeastOnce | QoS::AtMostOnce => InflightState::AwaitingPubAck,
    };
    session.sending.get_or_insert_default().inflight.push_back(Inflight {
        packet_id,
        state,
        resend: false,
        item: Some(item),
    });
}

fn send_at_most_once(
    session: &mut Session,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    outgoing: &mut Outgoing<'_>,
    copy: Copy<'_>,
    now: Now,
) -> bool {
    let packet = Wrapping {
        qos: QoS::AtMostOnce,
        id: None,
        dup: false,
        retain: copy.retain,
        subscription_ids: copy.subscription_ids,
    };
    let written = write(session, framing, id, &mut shared.outbox, outgoing, &packet, now);
    if written {
        shared.stats.sent[0] += 1;
        shared.stats.sent_bytes += outgoing.message.payload.len() as u64;
    } else {
        shared.stats.dropped_too_large += 1;
    }
    written
}

fn mark_delivered(session: &mut Session, positions: &[(u16, Offset)]) {
    if let Some(durable) = &mut session.durable {
        durable.mark_delivered(positions);
    }
}

/// Notes that the store is behind, once until it has been saved.
pub(crate) fn touch(session: &mut Session, id: ConnectionId, shared: &mut Shared, now: Now) {
    if session.touch() {
        shared.unsaved.push_back((now.monotonic_ms, id));
    }
}
