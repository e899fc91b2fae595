//! What a connection with a session may send, packet by packet.

use holdfast_wire::mqtt::{
    Disconnect, FixedHeader, Packet, PacketType, PubAck, PubComp, PubRec, PubRel, ReasonCode, Subscribe,
    Unsubscribe,
};

use super::close::CloseReason;
use super::publish::Taken;
use super::{deliver, publish, subscribe};
use crate::engine::Engine;
use crate::input::{ConnectionId, Now};
use crate::session::Protocol;

const PINGRESP: [u8; 2] = [PacketType::PingResp.first_byte(), 0];

impl Engine {
    /// One whole packet of an established connection.
    pub(crate) fn handle_packet(
        &mut self,
        id: ConnectionId,
        header: FixedHeader,
        body: &[u8],
        now: Now,
    ) -> Result<Taken, CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(Taken::Yes) };
        let shared = &mut self.shared;
        let version = connection.protocol.version();
        match header.packet_type {
            PacketType::Publish => {
                return publish::handle_publish(connection, id, shared, header, body, now);
            }
            PacketType::PubAck => {
                let packet = PubAck::decode(header, body, version)?;
                deliver::handle_acknowledged(
                    connection,
                    id,
                    shared,
                    packet.packet_id,
                    packet.reason_code,
                    now,
                );
            }
            PacketType::PubRec => {
                let packet = PubRec::decode(header, body, version)?;
                deliver::handle_received(connection, id, shared, packet.packet_id, packet.reason_code, now);
            }
            PacketType::PubRel => {
                let packet = PubRel::decode(header, body, version)?;
                publish::handle_release(connection, id, shared, packet.packet_id, now);
            }
            PacketType::PubComp => {
                let packet = PubComp::decode(header, body, version)?;
                deliver::handle_completed(connection, id, shared, packet.packet_id, now);
            }
            PacketType::Subscribe | PacketType::Unsubscribe if subscribe::must_wait(connection, shared) => {
                return Ok(Taken::Stalled);
            }
            PacketType::Subscribe => {
                let packet = Subscribe::decode(header, body, version)?;
                let waiters = subscribe::handle_subscribe(connection, id, shared, &packet);
                self.wake(waiters, now);
            }
            PacketType::Unsubscribe => {
                let packet = Unsubscribe::decode(header, body, version)?;
                let waiters = subscribe::handle_unsubscribe(connection, id, shared, &packet);
                self.wake(waiters, now);
            }
            PacketType::PingReq => {
                Packet::decode(header, body, version)?;
                let framing = connection.framing();
                framing.send(&mut shared.outbox, id, |out| out.extend_from_slice(&PINGRESP));
            }
            PacketType::Disconnect => {
                let packet = Disconnect::decode(header, body, version)?;
                return Err(self.handle_disconnect(id, &packet));
            }
            PacketType::Connect => return Err(CloseReason::SecondConnect),
            // No authentication method was agreed on, so there is nothing to go on with (section 4.12).
            PacketType::Auth => return Err(CloseReason::ProtocolError),
            PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
                return Err(CloseReason::ServerPacketFromClient);
            }
        }
        Ok(Taken::Yes)
    }

    /// The client says goodbye.
    fn handle_disconnect(&mut self, id: ConnectionId, packet: &Disconnect<'_>) -> CloseReason {
        let Some(session) = self.connections.find_mut(id).and_then(|connection| connection.session_mut())
        else {
            return CloseReason::ClientDisconnected;
        };
        if let Some(expiry_s) = packet.properties.session_expiry_interval_s {
            // A session that was to end with its connection cannot be made to outlive it now (MQTT-3.14.2-2 and its error).
            if session.expiry_s == 0 && expiry_s != 0 {
                return CloseReason::ProtocolError;
            }
            session.expiry_s = expiry_s.min(self.shared.config.mqtt.session_expiry_s_max);
        }
        if session.protocol == Protocol::V5 && packet.reason_code != ReasonCode::Success {
            // Anything but a normal disconnection leaves the will standing (MQTT-3.14.4-3).
            return CloseReason::ClientDisconnectedWithWill;
        }
        session.will = None;
        CloseReason::ClientDisconnected
    }
}
