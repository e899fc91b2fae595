//! From CONNECT to CONNACK.
//!
//! CONNECT is judged, an older connection of the same client is closed, the store opens the session, and CONNACK says what was granted. A resumed
//! session takes up its subscriptions and sends again what it had inflight.

use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::{
    ConnAck, ConnAckProperties, Connect, DecodeError, FixedHeader, ProtocolVersion, QoS, ReasonCode,
};
use holdfast_wire::session_record::{InflightState, SessionRecord};
use holdfast_wire::store::Opened;

use super::close::CloseReason;
use super::{Opening, Phase, deliver, json, subscribe};
use crate::engine::Engine;
use crate::engine::endings::Leaving;
use crate::input::{ConnectionId, Now};
use crate::output::Action;
use crate::session::durable::{self, Durable};
use crate::session::receipts;
use crate::session::sending::{Inflight, Item};
use crate::session::subscription::Subscription;
use crate::session::{Protocol, Session};
use crate::topics::interest::Waiter;
use crate::will;

/// What a client asks of its session, whatever protocol it came by.
pub(crate) struct OpenRequest {
    pub(crate) session: Box<Session>,
    pub(crate) clean_start: bool,
    pub(crate) assigned_id: bool,
    pub(crate) changed_expiry: bool,
    pub(crate) changed_keep_alive: bool,
}

impl Engine {
    /// The first packet of an MQTT connection.
    pub(crate) fn handle_connect(
        &mut self,
        id: ConnectionId,
        header: FixedHeader,
        body: &[u8],
        now: Now,
    ) -> Result<(), CloseReason> {
        let version = Connect::answer_version(body);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.protocol = version.into();
        }
        let connect = Connect::decode(header, body).map_err(|error| self.refuse(id, error))?;
        let open = self.judge_connect(&connect, now).inspect_err(|reason| {
            if let Some(code) = reason.reason_code() {
                self.send_refusal(id, version, code);
            }
        })?;
        self.open_session(id, open, now);
        Ok(())
    }

    /// A CONNECT that cannot be read. 3.1.1 is answered only where it has a return code for it (3.1.1, MQTT-3.2.2-4 and table 3.1).
    fn refuse(&mut self, id: ConnectionId, error: DecodeError) -> CloseReason {
        let version = self
            .connections
            .find(id)
            .map_or(ProtocolVersion::V311, |connection| connection.protocol.version());
        let code = error.reason_code();
        let has_return_code =
            matches!(code, ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid);
        if version == ProtocolVersion::V5 || has_return_code {
            self.send_refusal(id, version, code);
        }
        error.into()
    }

    pub(crate) fn send_refusal(
        &mut self,
        id: ConnectionId,
        version: ProtocolVersion,
        reason_code: ReasonCode,
    ) {
        let Some(connection) = self.connections.find(id) else { return };
        let refusal =
            ConnAck { session_present: false, reason_code, properties: ConnAckProperties::default() };
        connection.framing().send(&mut self.shared.outbox, id, |out| refusal.encode(version, out));
    }

    fn judge_connect(&mut self, connect: &Connect<'_>, now: Now) -> Result<OpenRequest, CloseReason> {
        let mqtt = self.shared.config.mqtt.clone();
        let properties = &connect.properties;
        // None is configured, so none is known (MQTT-4.12.0-1).
        if properties.authentication_method.is_some() {
            return Err(CloseReason::BadAuthenticationMethod);
        }
        if connect.client_id.len() > usize::from(self.shared.config.limits.client_id_bytes_max) {
            return Err(CloseReason::ClientIdentifierNotValid);
        }
        if let Some(will) = &connect.will {
            if will.qos > mqtt.maximum_qos {
                return Err(CloseReason::QosNotSupported);
            }
            if will.retain && !mqtt.retain_available {
                return Err(CloseReason::RetainNotSupported);
            }
        }
        let assigned_id = connect.client_id.is_empty();
        let client = if assigned_id {
            ClientId::new(&format!("holdfast-{:016x}{:016x}", self.shared.random(), self.shared.random()))
        } else {
            ClientId::new(connect.client_id)
        };
        let wanted_expiry_s = match connect.version {
            ProtocolVersion::V5 => properties.session_expiry_interval_s.unwrap_or(0),
            ProtocolVersion::V311 if connect.clean_start => 0,
            ProtocolVersion::V311 => mqtt.session_expiry_311_s,
        };
        let expiry_s = wanted_expiry_s.min(mqtt.session_expiry_s_max);
        // 3.1.1 has no way to be told of another keep alive, so its own holds.
        let keep_alive_s = match (connect.version, mqtt.server_keep_alive_s_max, connect.keep_alive_s) {
            (ProtocolVersion::V311, _, own) | (ProtocolVersion::V5, 0, own) => own,
            (ProtocolVersion::V5, max, 0) => max,
            (ProtocolVersion::V5, max, own) => own.min(max),
        };
        let mut session = Box::new(Session::new(client.clone(), connect.version.into()));
        session.expiry_s = expiry_s;
        session.keep_alive_s = keep_alive_s;
        session.maximum_packet_size = properties.maximum_packet_size.unwrap_or(u32::MAX);
        session.send_maximum =
            properties.receive_maximum.unwrap_or(u16::MAX).min(self.shared.config.limits.inflight_max);
        session.alias_maximum =
            properties.topic_alias_maximum.unwrap_or(0).min(mqtt.topic_alias_maximum_outbound);
        session.problem_information = properties.request_problem_information.unwrap_or(true);
        // Nobody who wants no problem information can be told in a PUBACK (MQTT-3.1.2-29), so it is not asked for either.
        if session.problem_information
            && properties.user_properties.find(receipts::ASKED_BY) == Some(receipts::ASKED_FOR)
        {
            session.receiving.ask_receipts();
        }
        session.will = connect.will.as_ref().map(|will| Box::new(will::from_connect(will, &client, now)));
        Ok(OpenRequest {
            session,
            clean_start: connect.clean_start,
            assigned_id,
            changed_expiry: expiry_s != wanted_expiry_s,
            changed_keep_alive: keep_alive_s != connect.keep_alive_s,
        })
    }

    /// Closes an older connection of the same client here; then the session is opened in its turn.
    pub(crate) fn open_session(&mut self, id: ConnectionId, open: OpenRequest, now: Now) {
        let OpenRequest { session, clean_start, assigned_id, changed_expiry, changed_keep_alive } = open;
        let client = session.client.clone();
        if let Some(former) = self.find_client(&client) {
            self.shared.stats.takeovers += 1;
            self.end_taken_over(former, clean_start, now);
        }
        let may_be_open = self.forget_stray(&client);
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.protocol = session.protocol;
        connection.phase = Phase::Opening(Box::new(Opening {
            session,
            assigned_id,
            changed_expiry,
            changed_keep_alive,
            clean_start,
            is_asked: false,
            may_be_open,
            successor: None,
            inherited: None,
            opened: None,
        }));
        connection.hear(now.monotonic_ms);
        self.half_open -= 1;
        self.enter_client(&client, id.slot);
        self.await_session(id, now);
    }

    /// The store opened the session. If another shard holds its connection, that one is told, and asked what it knows beyond the store.
    pub(crate) fn handle_opened(&mut self, id: ConnectionId, mut opened: Opened, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Opening(opening) = &mut connection.phase else { return };
        let client = opening.session.client.clone();
        let mut successor = opening.successor.take();
        if self.shared.is_answered_again(&client, &opened) {
            (opened.former, opened.will) = (None, None);
        }
        self.sort_out_successor(&client, opened.epoch, &mut successor, now);
        if let Some(Phase::Opening(opening)) =
            self.connections.find_mut(id).map(|connection| &mut connection.phase)
        {
            opening.successor = successor;
        }
        let Some(former) = opened.former.filter(|former| *former != self.shared.owner) else {
            return match self.adopt(&client, &mut opened, now) {
                Some(epoch) => self.await_handover(id, opened, Some(epoch), now),
                None => self.establish(id, opened, now),
            };
        };
        self.pass_over_unclaimed(&client);
        if self.shared.say_takeover(&client, opened.epoch, former) {
            self.await_handover(id, opened, None, now);
        } else {
            self.establish(id, opened, now);
        }
    }

    /// The session stands: CONNACK, and everything that waited for it.
    pub(crate) fn establish(&mut self, id: ConnectionId, mut opened: Opened, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if let Phase::Opening(opening) = &connection.phase
            && let Some(successor) = opening.successor.filter(|successor| successor.epoch > opened.epoch)
        {
            let client = opening.session.client.clone();
            self.shared.publish_owed(id, &mut opened, now);
            self.shared.report_once_saved_elsewhere(&client, opened.epoch, successor.epoch, now);
            self.pass_on(&client, successor, opened.session, false, now);
            return self.end_as(id, CloseReason::SessionTakenOver, Leaving::Lost, now);
        }
        let Phase::Opening(opening) = std::mem::replace(&mut connection.phase, Phase::Closing) else {
            return;
        };
        let Opening { mut session, assigned_id, changed_expiry, changed_keep_alive, .. } = *opening;
        let client = session.client.clone();
        session.epoch = opened.epoch;
        session.connected_at_unix_ms = now.unix_ms;
        // Ahead of everything that this connection will say, and on its link.
        self.shared.publish_owed(id, &mut opened, now);
        // No version at which it was found yet.
        session.links_version = self.shared.uplinks.version.wrapping_sub(1);
        self.shared.find_link(&mut session);
        // One that ends with this connection is still the session it was until then.
        if session.expiry_s > 0 || opened.session.is_some() {
            session.durable = Some(Box::new(Durable::new(&session.client)));
        }
        let session_present = opened.session.is_some();
        self.shared.stats.connects += 1;
        self.shared.stats.resumes += u64::from(session_present);
        let framing = connection.framing();
        let mqtt = &self.shared.config.mqtt;
        match session.protocol {
            Protocol::Json => {
                json::send_welcome(&session, session_present, framing, id, &mut self.shared);
            }
            Protocol::V311 | Protocol::V5 => {
                let properties = ConnAckProperties {
                    session_expiry_interval_s: changed_expiry.then_some(session.expiry_s),
                    receive_maximum: (mqtt.receive_maximum != u16::MAX).then_some(mqtt.receive_maximum),
                    // 2 is not said but meant by silence (MQTT-3.2.2-9 and its note).
                    maximum_qos: (mqtt.maximum_qos < QoS::ExactlyOnce).then_some(mqtt.maximum_qos),
                    retain_available: (!mqtt.retain_available).then_some(false),
                    maximum_packet_size: Some(mqtt.maximum_packet_size),
                    assigned_client_identifier: assigned_id.then_some(&*session.client),
                    topic_alias_maximum: (mqtt.topic_alias_maximum > 0).then_some(mqtt.topic_alias_maximum),
                    wildcard_subscription_available: (!mqtt.wildcard_subscription_available).then_some(false),
                    subscription_identifiers_available: (!mqtt.subscription_identifier_available)
                        .then_some(false),
                    shared_subscription_available: (!mqtt.shared_subscription_available).then_some(false),
                    server_keep_alive_s: changed_keep_alive.then_some(session.keep_alive_s),
                    ..ConnAckProperties::default()
                };
                let version = session.protocol.version();
                let accepted = ConnAck { session_present, reason_code: ReasonCode::Success, properties };
                framing.send(&mut self.shared.outbox, id, |out| accepted.encode(version, out));
            }
        }
        self.shared.tell_connected(&session, session_present, now);
        connection.phase = Phase::Established(session);
        connection.hear(now.monotonic_ms);
        if let Some(silence_ms) = connection.silence_ms_max(0) {
            connection.timer_tick = self.shared.timers.schedule(id, now.monotonic_ms + silence_ms);
        }
        if let Some(record) = opened.session {
            self.take_up(id, record, now);
        }
        if let Some(connection) = self.connections.find_mut(id) {
            let woken = json::subscribe_to_pushes(connection, id, &mut self.shared);
            deliver::pump(connection, id, &mut self.shared, now);
            self.wake(woken, now);
        }
        self.shared.ownership.note_established(id, now);
        if self.shared.keeping.is_unconfirmed(&client, opened.epoch) {
            self.save_at_once(id, now);
        }
        // What came behind CONNECT has waited.
        self.shared.actions.push_back(Action::ResumeRead(id));
        self.go_on(id, now);
    }

    /// Restores what a resumed session was.
    fn take_up(&mut self, id: ConnectionId, record: SessionRecord, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Established(session) = &mut connection.phase else { return };
        let shared = &mut self.shared;
        let mut waits = 0;
        for subscription in &record.subscriptions {
            let subscription = Subscription::from_record(subscription, &session.client);
            let waiter = Waiter::Resume(id);
            waits += u32::from(subscribe::hold(session, id, shared, subscription, waiter, &mut false));
        }
        session.receiving.restore(record.received);
        let Some(durable) = &mut session.durable else { return };
        record.cursors.into_iter().for_each(|cursor| durable.open_stream(cursor));
        durable.ask_all = true;
        durable.phase = durable::Phase::Announcing(waits);
        for inflight in record.inflight {
            let positions: Box<[_]> = inflight
                .positions
                .iter()
                .filter_map(|place| durable.find(&place.stream).map(|stream| (stream, place.acked)))
                .collect();
            durable.mark_delivered(&positions);
            if let Some(message) = &inflight.message {
                // Who sent it may not have heard that it was saved, and have put it into one of the streams as well.
                durable.note_read(message.view().id);
            }
            let item = inflight.message.map(|message| Item {
                message,
                qos: match inflight.state {
                    InflightState::AwaitingPubAck => QoS::AtLeastOnce,
                    InflightState::AwaitingPubRec | InflightState::AwaitingPubComp => QoS::ExactlyOnce,
                },
                retain: inflight.retain,
                subscription_ids: inflight.subscription_ids,
                report: None,
                positions,
            });
            session.sending.get_or_insert_default().inflight.push_back(Inflight {
                packet_id: inflight.packet_id,
                state: inflight.state,
                resend: true,
                item,
            });
        }
        // The client may hold QoS 2 ids that a node which died had used since it last saved: under one of those a new message would be taken for
        // an old one. Multiples of the golden ratio keep successive epochs far apart.
        // Where the row begins does not matter; the lowest epoch that can be a resume, 2, begins at 1.
        session.next_packet_id =
            (session.epoch.0.wrapping_sub(2).wrapping_mul(40_503).wrapping_add(1) & 0xffff) as u16;
        if waits == 0 {
            self.start_reading(id, now);
        }
    }

    /// Every live bridge knows the filters of a resumed session: what its streams hold is read, then it is live.
    pub(crate) fn start_reading(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if let Some(durable) = connection.session_mut().and_then(|session| session.durable.as_mut()) {
            durable.phase = durable::Phase::Reading { stream: 0, asked: false };
        }
        deliver::pump(connection, id, &mut self.shared, now);
    }
}
