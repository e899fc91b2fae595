//! The WebSocket way in: the upgrade, then frames around MQTT packets or JSON messages.

use holdfast_wire::ws::{self, DataKind, Event, HandshakeStep, Refusal, Subprotocol};

use super::close::CloseReason;
use super::{Phase, json};
use crate::engine::Engine;
use crate::input::{ConnectionId, Now};
use crate::session::Protocol;

/// What a WebSocket connection has beyond a plain one.
#[derive(Debug)]
pub(crate) struct WebSocket {
    pub(crate) stream: ws::Stream,
    /// The close frame was sent or answered.
    pub(crate) closed: bool,
    /// JSON messages that wait for the connection's link to take more. At most what one read brought.
    pub(crate) waiting: Vec<Box<str>>,
}

/// Paths on which MQTT is spoken.
const MQTT_PATHS: [&str; 2] = ["/mqtt", "/"];

impl Engine {
    /// Bytes before the upgrade is done.
    pub(crate) fn read_upgrade(
        &mut self,
        id: ConnectionId,
        bytes: &mut [u8],
        now: Now,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let Some(mut head) = connection.partial.take() else {
            return match self.take_upgrade(id, bytes, now)? {
                Some(consumed) => self.read_frames(id, &mut bytes[consumed..], now),
                None => {
                    self.keep(id, bytes);
                    Ok(())
                }
            };
        };
        head.extend_from_slice(bytes);
        match self.take_upgrade(id, &head, now)? {
            Some(consumed) => self.read_frames(id, &mut head[consumed..], now),
            None => {
                self.keep(id, &head);
                Ok(())
            }
        }
    }

    /// Judges the request; the length of its head once it is accepted.
    fn take_upgrade(
        &mut self,
        id: ConnectionId,
        head: &[u8],
        now: Now,
    ) -> Result<Option<usize>, CloseReason> {
        let upgrade = match ws::read_request(head) {
            HandshakeStep::NeedMore => return Ok(None),
            HandshakeStep::Accepted(upgrade) => upgrade,
            HandshakeStep::Refused(refusal) => return Err(self.refuse_upgrade(id, refusal)),
        };
        let json_client = json::client_of_path(upgrade.path, self.shared.config.limits.client_id_bytes_max);
        let json_client = match (json_client, upgrade.subprotocol) {
            (Ok(Some(client)), Some(Subprotocol::HoldfastV1)) => Some(client),
            (Ok(Some(_)), _) => {
                return Err(
                    self.refuse_upgrade(id, Refusal::BadRequest("the subprotocol here is holdfast.v1"))
                );
            }
            (Err(refusal), _) => return Err(self.refuse_upgrade(id, refusal)),
            (Ok(None), Some(Subprotocol::Mqtt)) if MQTT_PATHS.contains(&upgrade.path) => None,
            (Ok(None), _) if MQTT_PATHS.contains(&upgrade.path) => {
                // MQTT-6.0.0-3: the client must have offered it.
                return Err(self.refuse_upgrade(id, Refusal::BadRequest("the subprotocol here is mqtt")));
            }
            (Ok(None), _) => return Err(self.refuse_upgrade(id, Refusal::NotFound)),
        };
        let open = match &json_client {
            Some(client) => match json::open_request(client, upgrade.query, &self.shared.config) {
                Ok(open) => Some(open),
                Err(refusal) => return Err(self.refuse_upgrade(id, refusal)),
            },
            None => None,
        };
        self.shared.outbox.append(id, |out| upgrade.write_response(out));
        let message_bytes_max = match open {
            // An MQTT packet may come in any number of frames and a frame may hold any number of packets, so a message of one WebSocket
            // is not what is bounded.
            None => u32::MAX,
            Some(_) => self.shared.config.mqtt.maximum_packet_size,
        };
        let Some(connection) = self.connections.find_mut(id) else { return Ok(None) };
        connection.websocket = Some(Box::new(WebSocket {
            stream: ws::Stream::new(message_bytes_max),
            closed: false,
            waiting: Vec::new(),
        }));
        connection.phase = Phase::Greeting;
        if let Some(open) = open {
            connection.protocol = Protocol::Json;
            self.open_session(id, open, now);
        }
        Ok(Some(upgrade.consumed))
    }

    fn refuse_upgrade(&mut self, id: ConnectionId, refusal: Refusal) -> CloseReason {
        self.shared.outbox.append(id, |out| refusal.write_response(out));
        CloseReason::UpgradeRefused
    }

    /// Bytes behind the upgrade.
    pub(crate) fn read_frames(
        &mut self,
        id: ConnectionId,
        mut bytes: &mut [u8],
        now: Now,
    ) -> Result<(), CloseReason> {
        let Some(mut websocket) =
            self.connections.find_mut(id).and_then(|connection| connection.websocket.take())
        else {
            return Ok(());
        };
        loop {
            let event = websocket.stream.read(&mut bytes);
            // Handling an event may look at the connection as a whole, so its reader is put back meanwhile.
            let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
            let is_json = connection.protocol == Protocol::Json;
            connection.websocket = Some(websocket);
            match event? {
                None => return Ok(()),
                Some(Event::Data { kind: DataKind::Text, bytes, end_of_message }) if is_json => {
                    self.read_text(id, bytes, end_of_message, now)?;
                }
                Some(Event::Data { kind: DataKind::Binary, bytes, .. }) if !is_json => {
                    self.read_packets(id, bytes, now)?;
                }
                Some(Event::Data { .. }) => return Err(CloseReason::WebSocketWrongKind),
                Some(Event::Ping(payload)) => {
                    if let Some(connection) = self.connections.find_mut(id)
                        && is_json
                    {
                        connection.hear(now.monotonic_ms);
                    }
                    self.shared.outbox.append(id, |out| ws::frame::write_pong(out, &payload));
                }
                Some(Event::Pong(_)) => {}
                Some(Event::Close { code, .. }) => {
                    self.shared.outbox.append(id, |out| ws::frame::write_close(out, code, ""));
                    if let Some(websocket) =
                        self.connections.find_mut(id).and_then(|connection| connection.websocket.as_mut())
                    {
                        websocket.closed = true;
                    }
                    // For MQTT a DISCONNECT should have come first; a JSON device says goodbye like this.
                    return Err(if is_json {
                        CloseReason::ClientDisconnected
                    } else {
                        CloseReason::PeerClosed
                    });
                }
            }
            let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
            let (Some(taken), false) =
                (connection.websocket.take(), matches!(connection.phase, Phase::Closing))
            else {
                return Ok(());
            };
            websocket = taken;
        }
    }
}
