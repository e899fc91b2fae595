//! Retained messages on their way to new subscriptions: a page at a time, and only as fast as the client takes them, so that none is
//! dropped (MQTT-3.3.1-9) and a connection that subscribes to everything costs the shard no more than a page.
//!
//! What waits stands in the session (`session::retained`); [`Shared::retained_asked`] finds the connection that a page is for.

use holdfast_wire::link::{RetainedRead as PageRecord, ToBridge};
use holdfast_wire::message::Message;

use super::Connection;
use super::deliver::{self, Copy};
use super::encode::Outgoing;
use crate::input::{ConnectionId, Now};
use crate::limits::Limits;
use crate::requests::RetainedAsked;
use crate::session::Session;
use crate::session::retained::RetainedRead;
use crate::shared::Shared;

/// A page has at most this many messages.
const PAGE_MESSAGES_MAX: u32 = 100;

/// Subscriptions stand: what is retained for them follows.
pub(crate) fn begin(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    reads: Vec<RetainedRead>,
) {
    let blocked = connection.blocked;
    let Some(session) = connection.session_mut() else { return };
    for read in reads {
        // It may have been given up before everyone knew it.
        if session.subscriptions.iter().any(|held| held.filter == read.filter) {
            session.retained.get_or_insert_default().push(read);
        }
    }
    read_on(session, blocked, id, shared);
}

/// Asks a bridge for the next page if none is under way and the client has room for it.
pub(crate) fn read_on(session: &mut Session, blocked: bool, id: ConnectionId, shared: &mut Shared) {
    let Some(reads) = &session.retained else { return };
    if reads.is_empty() {
        session.retained = None;
        return;
    }
    if reads.asked.is_some() || blocked {
        return;
    }
    if shared.outbox.waiting(id) >= shared.config.limits.turn_bytes_max {
        // Once these bytes are out. Said once in a turn at most, if `pump` has not already.
        if shared.behind.last() != Some(&id) {
            shared.behind.push(id);
        }
        return;
    }
    let messages_max = room(session, &shared.config.limits).min(PAGE_MESSAGES_MAX);
    let link = shared.uplinks.choose(&session.client);
    let Some(reads) = &mut session.retained else { return };
    let Some(read) = reads.next().filter(|_| messages_max > 0) else { return };
    let token = shared.number();
    if let Some(link) = link {
        let record = PageRecord { token, filter: &read.filter, after: &read.after, messages_max };
        shared.uplinks.say(link, &ToBridge::RetainedRead(record));
    }
    reads.asked = Some(token);
    shared.retained_asked.insert(token, RetainedAsked { connection: id, link });
}

/// Messages that may be asked for: the queue is half empty at most, so that live messages have room beside them.
fn room(session: &Session, limits: &Limits) -> u32 {
    let (_, pending) = session.queued();
    let pending_bytes = session.sending.as_ref().map_or(0, |sending| sending.pending_bytes);
    if pending_bytes > limits.pending_bytes_max as usize / 2 {
        return 0;
    }
    // A bound of one message leaves room for it.
    (limits.pending_messages_max / 2).max(1).saturating_sub(pending as u32)
}

/// A message of a page came.
pub(crate) fn take(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    message: &Message<'_>,
    now: Now,
) {
    let limits = &shared.config.limits;
    let may_send = !connection.blocked && shared.outbox.waiting(id) < limits.turn_bytes_max;
    let Some(session) = connection.session_mut() else { return };
    // Live messages may have taken the room meanwhile.
    let has_room = may_send
        && session.sending.as_ref().is_none_or(|sending| {
            sending.pending.len() < limits.pending_messages_max as usize
                && sending.pending_bytes < limits.pending_bytes_max as usize
        });
    let Some(reads) = &mut session.retained else { return };
    let Some(read) = reads.take(message.topic, has_room) else { return };
    let identifier = [read.identifier];
    let copy = Copy {
        qos: read.qos(message.qos),
        // Sent because of a new subscription: RETAIN is set, whatever the subscription's options (MQTT-3.3.1-8).
        retain: true,
        subscription_ids: if read.identifier == 0 { &[] } else { &identifier },
        positions: &[],
        report: None,
    };
    deliver::deliver(connection, id, shared, &mut Outgoing::single(*message), copy, now);
}

/// A page has ended; `more`: there may be another.
pub(crate) fn take_end(connection: &mut Connection, id: ConnectionId, shared: &mut Shared, more: bool) {
    let blocked = connection.blocked;
    let Some(session) = connection.session_mut() else { return };
    if let Some(reads) = &mut session.retained {
        reads.end_page(more);
    }
    read_on(session, blocked, id, shared);
}

/// The page under way will not be answered, or was never asked of anyone: what has not come is asked for again.
pub(crate) fn ask_again(connection: &mut Connection, id: ConnectionId, shared: &mut Shared) {
    let blocked = connection.blocked;
    let Some(session) = connection.session_mut() else { return };
    if let Some(reads) = &mut session.retained {
        reads.lose_page();
    }
    read_on(session, blocked, id, shared);
}

/// The connection ends: nobody waits for its page.
pub(crate) fn give_up(session: &Session, shared: &mut Shared) {
    if let Some(token) = session.retained.as_ref().and_then(|reads| reads.asked) {
        shared.retained_asked.remove(&token);
    }
}
