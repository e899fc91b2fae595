//! The end of a connection: what its peer hears, and what becomes of its session.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::json::Downlink;
use holdfast_wire::link::Outcome;
use holdfast_wire::mqtt::{Disconnect, ProtocolVersion, ReasonCode};
use holdfast_wire::store::{Progress, Request, WillRecord};
use holdfast_wire::ws;

use super::Engine;
use crate::connection::close::CloseReason;
use crate::connection::{Connection, Phase, deliver, json, retained, subscribe};
use crate::input::{ConnectionId, Now};
use crate::keeping::of_quality;
use crate::output::Action;
use crate::requests::{Asked, Closing};
use crate::session::{Protocol, Session};
use crate::shared::Shared;
use crate::takeover::Left;
use crate::uplink::Kind;
use crate::will;

/// Ended sessions that are remembered until the store knows them. Beyond it the oldest is forgotten: it may be sent again what it had acknowledged, and lose its will, if it
/// comes back elsewhere at that very moment, and a store that could not close it is not asked again.
const CLOSING_MAX: usize = 10_000;

/// How soon a session is closed again that the store could not close, in ms; twice as long after each further failure ...
const CLOSE_AGAIN_MS: u64 = 1_000;
/// ... up to this.
const CLOSE_AGAIN_MS_MAX: u64 = 60_000;
/// After about five minutes it is given up with its will, and left to whoever opens the session next.
const CLOSE_FAILURES_MAX: u32 = 10;

/// How long an ended session that has another owner is known here, in ms: that one asks within the wait for a handover, or has lost its link to us.
const ASKED_FOR_WITHIN_MS: u64 = 60_000;

/// No DISCONNECT of ours is longer, in bytes.
const GOODBYE_BYTES_MAX: u32 = 64;

/// What becomes of the session when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It is written to the store, to rest there or to end.
    Saved,
    /// The same, but a connection here ends it for its own.
    Replaced,
    /// Another owner has it, and its will, and is told what the store does not know; the store takes no more writes from here.
    HandedOver,
    /// Another owner has it, and its will.
    Lost,
}

impl Engine {
    /// Closes a connection for `reason`: says what the peer is to hear, and gives up its session.
    pub(crate) fn end(&mut self, id: ConnectionId, reason: CloseReason, now: Now) {
        // The new owner will ask for what we know.
        let leaving = if reason == CloseReason::Fenced { Leaving::HandedOver } else { Leaving::Saved };
        self.end_as(id, reason, leaving, now);
    }

    /// Closes an older connection because its client has connected again, here.
    pub(crate) fn end_taken_over(&mut self, id: ConnectionId, session_ends: bool, now: Now) {
        let leaving = if session_ends { Leaving::Replaced } else { Leaving::Saved };
        if session_ends
            && let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
            && let Some(will) = &mut session.will
        {
            // The session ends with it, so there is nothing to delay the will for (MQTT-3.1.3-9).
            will.delay_s = 0;
        }
        self.end_as(id, CloseReason::SessionTakenOver, leaving, now);
    }

    pub(crate) fn end_as(&mut self, id: ConnectionId, reason: CloseReason, leaving: Leaving, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        self.shared.stats.closed.add(reason);
        let client = connection.client().cloned();
        say_goodbye(connection, id, &mut self.shared, reason);
        self.tear_down(id, reason, leaving, now);
        self.shared.actions.push_back(Action::Close { id, reason, client });
    }

    /// Takes everything of a connection out of the shard's tables.
    pub(super) fn tear_down(&mut self, id: ConnectionId, reason: CloseReason, leaving: Leaving, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.partial = None;
        if let Some(websocket) = &mut connection.websocket {
            websocket.waiting = Vec::new();
        }
        self.half_open -= u32::from(connection.is_half_open());
        let is_doubted = connection.doubted;
        match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::Opening(opening) => {
                self.leave_client(&opening.session.client, id.slot);
                if opening.is_waiting() {
                    self.leave_waiting(&opening, leaving, now);
                } else if leaving != Leaving::Lost {
                    self.leave_unclaimed(id, *opening, now);
                }
            }
            Phase::Established(session) => self.give_up(&session, id, reason, leaving, is_doubted, now),
            Phase::Free | Phase::Upgrading | Phase::Greeting | Phase::Closing => {}
        }
    }

    fn give_up(
        &mut self,
        session: &Session,
        id: ConnectionId,
        reason: CloseReason,
        leaving: Leaving,
        is_doubted: bool,
        now: Now,
    ) {
        self.leave_client(&session.client, id.slot);
        // While there is no link, frames wait for the next one that comes up.
        let link = session.link.filter(|link| self.shared.uplinks.is_up(*link));
        self.shared.last_words.note(id, &session.client, link, session.unsettled);
        self.shared.tell_ended(session, reason, now);
        let persistent = session.durable.is_some();
        let mut woken = Vec::new();
        for subscription in &session.subscriptions {
            woken.extend(subscribe::release(
                subscription,
                &session.client,
                persistent,
                id.slot,
                &mut self.shared,
            ));
        }
        retained::give_up(session, &mut self.shared);
        let is_kept =
            persistent && session.expiry_s > 0 && !matches!(leaving, Leaving::Replaced | Leaving::Lost);
        if let Some(sending) = &session.sending {
            let mut waiting = Vec::new();
            for item in sending.inflight.iter().filter_map(|inflight| inflight.item.as_ref()) {
                let outcome = match leaving {
                    Leaving::Lost => Outcome::ConnectionLost,
                    _ if !is_kept => of_quality(Outcome::InDoubt, item.qos),
                    _ if !item.positions.is_empty() => Outcome::Kept,
                    _ => {
                        waiting.extend(item.report.map(|report| (report, item.qos)));
                        continue;
                    }
                };
                deliver::report(&mut self.shared, item.report, outcome);
            }
            self.shared.report_once_kept(&session.client, session.epoch, waiting, now);
            for item in &sending.pending {
                // What was not sent is not saved with the session: it stands in a stream, or goes back to who sent it.
                let stands = is_kept && !item.positions.is_empty();
                let outcome = if stands { Outcome::Kept } else { Outcome::ConnectionLost };
                deliver::report(&mut self.shared, item.report, outcome);
            }
        }
        let mut will = session.will.as_deref().filter(|_| reason.leaves_will());
        self.give_up_doubts(session, id, is_doubted, is_kept && leaving == Leaving::Saved);
        let (client, epoch, progress) = (session.client.clone(), session.epoch, session.progress());
        match leaving {
            Leaving::Saved | Leaving::Replaced => {
                // The will of a session in doubt goes to the store even without a delay: it knows whether another owner has it. So does one for which there
                // is no room.
                let is_sent = |will: &mut &WillRecord| {
                    will.delay_s.min(session.expiry_s) == 0
                        && !is_doubted
                        && will::has_room(&mut self.shared, &client)
                };
                if let Some(will) = will.take_if(is_sent) {
                    will::publish(&mut self.shared, id, &client, Kind::Will, will, epoch.0, now);
                }
                self.close_session(client, epoch, session.expiry_s, progress, will.cloned(), now);
            }
            // The store will not take it any more, so its new owner has to ask.
            Leaving::HandedOver if reason == CloseReason::Fenced && (is_kept || will.is_some()) => {
                let progress = is_kept.then_some(progress);
                self.remember(client.clone(), epoch, Left { progress, owes_will: will.is_some() });
                self.forget_soon(client, epoch, now);
            }
            // Its next owner, which has asked for it, is waited for.
            Leaving::HandedOver if reason != CloseReason::Fenced => {}
            Leaving::HandedOver | Leaving::Lost => self.shared.keeping.forget_unconfirmed(&client, epoch),
        }
        self.wake(woken, now);
    }

    /// Lets a session rest in the store, or end there, once its client is silent; a will that is to be published later goes along. Until the store knows, a new
    /// owner may have to ask.
    pub(crate) fn close_session(
        &mut self,
        client: ClientId,
        epoch: Epoch,
        expiry_s: u32,
        progress: Progress,
        will: Option<WillRecord>,
        now: Now,
    ) {
        if expiry_s > 0 || will.is_some() {
            let left = Left { progress: (expiry_s > 0).then(|| progress.clone()), owes_will: will.is_some() };
            self.remember(client.clone(), epoch, left);
        }
        let closing = Closing { client, epoch, expiry_s, will, failures: 0, is_brought_back: false };
        self.shared.close_in_silence(closing, progress, now);
    }

    /// The store could not take it: a session that it believes connected would never expire.
    pub(crate) fn close_again_later(&mut self, mut closing: Closing, now: Now) {
        closing.failures += 1;
        if closing.failures > CLOSE_FAILURES_MAX || self.shared.unclosed.len() >= CLOSING_MAX {
            self.shared.closing.remove(&(closing.client, closing.epoch));
            return;
        }
        let after_ms = (CLOSE_AGAIN_MS << (closing.failures - 1)).min(CLOSE_AGAIN_MS_MAX);
        let number = self.shared.number();
        self.shared.unclosed.insert(now.monotonic_ms + after_ms, number, closing);
    }

    /// Asks the store again to close what it could not.
    pub(super) fn close_again(&mut self, now: Now) {
        while let Some(closing) = self.shared.unclosed.take_due(now.monotonic_ms) {
            self.shared.close_once_more(closing);
        }
    }

    /// The store takes no write of an ended session any more, as another owner has it. That one asks soon or never: a later owner must not be told what is
    /// old by then.
    pub(crate) fn forget_soon(&mut self, client: ClientId, epoch: Epoch, now: Now) {
        self.shared.closing_until_ms.push_back((now.monotonic_ms + ASKED_FOR_WITHIN_MS, (client, epoch)));
        self.forget_unasked(now);
    }

    /// Forgets ended sessions that nobody has asked for.
    pub(crate) fn forget_unasked(&mut self, now: Now) {
        let Shared { closing, closing_until_ms, keeping, .. } = &mut self.shared;
        while let Some((_, left)) =
            closing_until_ms.pop_front_if(|(until_ms, _)| *until_ms <= now.monotonic_ms)
        {
            closing.remove(&left);
            keeping.forget_unconfirmed(&left.0, left.1);
        }
    }

    fn remember(&mut self, client: ClientId, epoch: Epoch, left: Left) {
        if self.shared.closing.len() >= CLOSING_MAX {
            self.shared.closing.remove_oldest();
        }
        self.shared.closing.insert((client, epoch), left);
    }
}

impl Shared {
    /// Asks the store again to close what it could not, unless it was handed over to its new owner meanwhile.
    pub(crate) fn close_once_more(&mut self, closing: Closing) {
        let left = self.closing.find(&(closing.client.clone(), closing.epoch));
        if (closing.expiry_s > 0 || closing.will.is_some()) && left.is_none() {
            return;
        }
        let progress = left.and_then(|left| left.progress.clone()).unwrap_or_default();
        self.ask_to_close(closing, progress);
    }

    pub(crate) fn ask_to_close(&mut self, closing: Closing, progress: Progress) {
        let Closing { client, epoch, expiry_s, will, .. } = closing.clone();
        self.ask(Asked::Close(closing), Request::Close { client, epoch, expiry_s, progress, will });
    }
}

/// What the peer hears before its connection is closed.
fn say_goodbye(connection: &Connection, id: ConnectionId, shared: &mut Shared, reason: CloseReason) {
    let framing = connection.framing();
    match &connection.phase {
        Phase::Opening(opening)
            if matches!(
                reason,
                CloseReason::StoreUnavailable | CloseReason::ServerShuttingDown | CloseReason::NodeBuried
            ) && opening.session.protocol != Protocol::Json =>
        {
            let refusal = holdfast_wire::mqtt::ConnAck {
                session_present: false,
                reason_code: ReasonCode::ServerUnavailable,
                properties: holdfast_wire::mqtt::ConnAckProperties::default(),
            };
            let version = opening.session.protocol.version();
            framing.send(&mut shared.outbox, id, |out| refusal.encode(version, out));
        }
        Phase::Established(session) if session.protocol == Protocol::V5 => {
            if let Some(code) = reason.reason_code() {
                let mut goodbye = Disconnect::with_reason(code);
                // Says more than the code where several reasons share one, unless the client does not want it or cannot take it
                // (MQTT-3.14.2-3).
                if session.problem_information && session.maximum_packet_size >= GOODBYE_BYTES_MAX {
                    goodbye.properties.reason_string = Some(reason.label());
                }
                framing.send(&mut shared.outbox, id, |out| goodbye.encode(ProtocolVersion::V5, out));
            }
        }
        Phase::Opening(_) | Phase::Established(_)
            if connection.protocol == Protocol::Json && reason != CloseReason::ClientDisconnected =>
        {
            let retry_after_ms = match reason {
                // Spread over a while, so that those who leave together do not come back together.
                CloseReason::ServerShuttingDown | CloseReason::NodeBuried | CloseReason::StoreUnavailable => {
                    Some(500 + (shared.random() % 2_500) as u32)
                }
                _ => None,
            };
            let goodbye: Downlink<'_> = json::goodbye(reason, retry_after_ms);
            framing.send(&mut shared.outbox, id, |out| goodbye.encode(out));
        }
        _ => {}
    }
    if let Some(websocket) = &connection.websocket
        && !websocket.closed
    {
        shared
            .outbox
            .append(id, |out| ws::frame::write_close(out, Some(reason.close_code()), reason.label()));
    }
}
