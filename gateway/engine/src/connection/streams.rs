//! Reading on in a session's streams, and claiming in those of its groups, as its queue has room.

use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Offset, StreamKey};
use holdfast_wire::store::Request;
use holdfast_wire::topic;

use super::deliver::{pump, touch};
use super::table::Connections;
use super::{Connection, Phase};
use crate::input::{ConnectionId, Now};
use crate::limits::Limits;
use crate::requests::Asked;
use crate::session::Session;
use crate::session::durable;
use crate::session::sending::Item;
use crate::session::subscription::Subscription;
use crate::shared::Shared;

/// Streams are read on in pieces of at most this many messages ...
const READ_MESSAGES_MAX: u32 = 128;
/// ... or bytes.
const READ_BYTES_MAX: u32 = 256 * 1024;

/// For how long that is remembered once a session is live, in ms. An append in doubt is made again each second or two while the store is away, and each may have
/// been heeded: the session finds the first in its stream, and the last comes live.
const READ_REMEMBERED_MS: u64 = 5_000;

/// Asks for the next piece of a stream if the session is behind and its queue has room for it.
pub(crate) fn read_on(session: &mut Session, id: ConnectionId, shared: &mut Shared, blocked: bool) {
    let is_claim = session.durable.as_ref().is_some_and(|durable| durable.is_next_a_claim());
    let limits = &shared.config.limits;
    let room = if is_claim { room_to_claim(session, limits) } else { room_to_read(session, limits) };
    let Some((room, room_bytes)) = room.filter(|_| !blocked) else { return };
    let Some(durable) = &mut session.durable else { return };
    let Some(next) = durable.next_read() else { return };
    let durable::Phase::Reading { stream: index, .. } = durable.phase else { return };
    let asked = Asked::Read(id, index, durable.reads);
    let (messages_max, bytes_max) = (room.min(READ_MESSAGES_MAX), room_bytes.min(READ_BYTES_MAX));
    let after = next.after;
    let request = match next.key {
        StreamKey::Filter(filter) if next.is_claim => Request::Claim {
            client: session.client.clone(),
            epoch: session.epoch,
            filter,
            after,
            messages_max,
            bytes_max,
        },
        stream => Request::Read { stream, after, messages_max, bytes_max },
    };
    shared.reads += 1;
    shared.ask(asked, request);
}

/// The same of a group's streams: what its client will not be sent soon, other members can take. So not until no more than half a window waits, and then as much as
/// makes two.
pub(crate) fn room_to_claim(session: &Session, limits: &Limits) -> Option<(u32, u32)> {
    let (room, room_bytes) = room_to_read(session, limits)?;
    let (window, (_, pending)) = (usize::from(session.send_maximum), session.queued());
    (2 * pending <= window).then(|| (room.min((2 * window - pending) as u32), room_bytes))
}

/// Messages and bytes that the queue takes from streams; none while it is full.
fn room_to_read(session: &Session, limits: &Limits) -> Option<(u32, u32)> {
    let (_, pending) = session.queued();
    let pending_bytes = session.sending.as_ref().map_or(0, |sending| sending.pending_bytes);
    let room = (limits.pending_messages_max / 2).saturating_sub(pending as u32);
    let room_bytes = (limits.pending_bytes_max / 2).saturating_sub(pending_bytes as u32);
    (room > 0 && room_bytes > 0).then_some((room, room_bytes))
}

/// Once a session is live, somebody is to see to it that it forgets what it has read.
pub(crate) fn remember_for_a_while(session: &mut Session, id: ConnectionId, shared: &mut Shared, now: Now) {
    let until_ms = now.monotonic_ms + READ_REMEMBERED_MS;
    if session.durable.as_mut().is_some_and(|durable| durable.begins_to_remember(until_ms)) {
        shared.remembering.push_back((until_ms, id));
    }
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
    let last = messages.last().map(|(offset, _)| *offset);
    queue_read(session, index, messages, now);
    let Some(durable) = &mut session.durable else { return };
    if durable.streams[usize::from(index)].is_group {
        let goes_on = durable.find_claimed(index, last.is_some(), end);
        durable.phase = durable::Phase::Reading { stream: index + 1, asked: false };
        if last.is_some() || !goes_on {
            touch(session, id, shared, now);
        }
        if goes_on {
            pump(connection, id, shared, now);
        }
        return;
    }
    // What bounds and ages have cut off the stream's end is not waited for.
    durable.mark_delivered(&[(index, last.unwrap_or(end))]);
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

/// Messages read from a stream, or claimed, wait for room in the window.
fn queue_read(session: &mut Session, index: u16, messages: Vec<(Offset, SharedMessage)>, now: Now) {
    let Some(durable) = &mut session.durable else { return };
    let stream = &durable.streams[usize::from(index)];
    let (key, closed) = (stream.key.clone(), stream.closed);
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
}

/// A message read from a stream, with what the session's subscriptions make of it now.
fn queued_item(
    subscriptions: &[Subscription],
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
