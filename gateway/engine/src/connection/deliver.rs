//! A message on its way down: from the shard to one connection, and its acknowledgement.

use holdfast_wire::link::Outcome;
use holdfast_wire::mqtt::{PacketId, PubRel, QoS, ReasonCode};
use holdfast_wire::session_record::{InflightState, Offset};

use super::encode::{Outgoing, Wrapping, wrapped, write};
use super::transport::Framing;
use super::{Connection, Phase, retained, streams};
use crate::input::{ConnectionId, Now};
use crate::session::Session;
use crate::session::durable::Live;
use crate::session::sending::{Inflight, Item};
use crate::shared::Shared;
use crate::uplink::ReportTo;

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
        return streams::read_on(session, id, shared, blocked);
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
    streams::read_on(session, id, shared, blocked);
    streams::remember_for_a_while(session, id, shared, now);
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
