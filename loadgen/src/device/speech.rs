//! What a device says and hears in its dialect: packets or JSON messages on one side, [`Sending`] and [`Heard`] on
//! the other. Pure; knows no socket and remembers nothing.

use std::borrow::Cow;
use std::time::Duration;

use holdfast_wire::json::{self, Data, Downlink, Subscription, Uplink};
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, Disconnect, DisconnectProperties, FixedHeader, Packet, PacketId,
    ProtocolVersion, PubAck, PubRel, Publish, PublishProperties, QoS, Subscribe, SubscribeFilters,
    SubscribeProperties, SubscriptionOptions,
};

use super::session::Sending;
use crate::payload::Form;
use crate::plan::Dialect;

/// How long a kept session outlives its connection, seconds.
const SESSION_EXPIRY_S: u32 = 3_600;

/// No gateway sends a device more than this in one packet; what announces more is an error of its own.
const PACKET_BYTES_MAX: usize = 4 << 20;

/// What the gateway said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// CONNACK with success, or `welcome`.
    Admitted { session_present: bool, receive_maximum: Option<u16> },
    /// CONNACK with a refusal, DISCONNECT or `goodbye`: the connection ends.
    Goodbye { retry_after: Option<Duration> },
    /// PUBACK, `ack`, or `error` with an id.
    Ack { packet_id: PacketId, refused: bool },
    /// PUBREC.
    Received { packet_id: PacketId, refused: bool },
    /// PUBCOMP.
    Completed { packet_id: PacketId },
    /// PUBLISH or `push`.
    Push { packet_id: Option<PacketId>, payload: Cow<'a, [u8]> },
    /// SUBACK or `subscribed`.
    Subscribed { granted: bool },
    /// PINGRESP or `pong`.
    Pong,
}

/// Bytes that the dialect does not allow; the connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unintelligible;

/// One device's voice.
#[derive(Debug)]
pub(super) struct Speech {
    pub(super) dialect: Dialect,
    pub(super) client_id: String,
    pub(super) frame_bytes: usize,
    pub(super) keep_alive_s: u16,
    pub(super) keep_session: bool,
    pub(super) qos: QoS,
    topic: String,
    push_topic: String,
}

impl Speech {
    pub(super) fn new(dialect: Dialect, client_id: String, plan: &crate::plan::FleetPlan) -> Self {
        Self {
            dialect,
            frame_bytes: plan.frame_bytes,
            keep_alive_s: plan.keep_alive_s,
            keep_session: plan.keep_session,
            qos: QoS::try_from(plan.qos).unwrap_or(QoS::AtLeastOnce),
            topic: format!("devices/{client_id}/frames"),
            push_topic: format!("devices/{client_id}/push"),
            client_id,
        }
    }

    /// Path and query of a WebSocket.
    pub(super) fn path(&self) -> String {
        match self.dialect {
            Dialect::Json => format!(
                "/v1/devices/{}/socket?clean_start={}&session_expiry_s={}&keep_alive_s={}",
                self.client_id,
                !self.keep_session,
                self.session_expiry_s(),
                self.keep_alive_s
            ),
            _ => "/mqtt".to_owned(),
        }
    }

    /// CONNECT; a JSON device has said all of it in its path.
    pub(super) fn hello(&self, out: &mut Vec<u8>) {
        let Some(version) = self.version() else { return };
        Connect {
            version,
            clean_start: !self.keep_session,
            keep_alive_s: self.keep_alive_s,
            client_id: &self.client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval_s: Some(self.session_expiry_s()),
                ..ConnectProperties::default()
            },
        }
        .encode(out);
    }

    /// Asks for the pushes to this device.
    pub(super) fn subscribe(&self, packet_id: PacketId, out: &mut Vec<u8>) {
        match self.version() {
            Some(version) => {
                let filters = [(self.push_topic.as_str(), SubscriptionOptions::at(QoS::AtLeastOnce))];
                let properties = SubscribeProperties::default();
                let filters = SubscribeFilters::from(&filters[..]);
                Subscribe { packet_id, properties, filters }.encode(version, out);
            }
            None => {
                let Some(id) = json_id(packet_id) else { return };
                let filter = Cow::Borrowed(self.push_topic.as_str());
                let topics = vec![Subscription { filter, qos: json::Qos::AtLeastOnce }];
                Uplink::Subscribe { id, topics }.encode(out);
            }
        }
    }

    /// A frame or a release.
    pub(super) fn sending(&self, sending: Sending, out: &mut Vec<u8>) {
        match (sending, self.version()) {
            (Sending::Frame { stamp, packet_id, dup }, Some(version)) => {
                let mut payload = Vec::with_capacity(self.frame_bytes);
                stamp.encode(Form::Binary, self.frame_bytes, &mut payload);
                Publish {
                    dup,
                    qos: if packet_id.is_some() { self.qos } else { QoS::AtMostOnce },
                    retain: false,
                    topic: &self.topic,
                    packet_id,
                    properties: PublishProperties::default(),
                    payload: &payload,
                }
                .encode(version, out);
            }
            (Sending::Frame { stamp, packet_id, dup }, None) => {
                let mut payload = Vec::with_capacity(self.frame_bytes);
                stamp.encode(Form::Json, self.frame_bytes, &mut payload);
                let Ok(data) = std::str::from_utf8(&payload) else { return };
                json::Frame {
                    id: packet_id.and_then(json_id),
                    dup,
                    topic: Cow::Borrowed(&self.topic),
                    event_time_ms: Some(stamp.intended_ns / 1_000_000),
                    retain: false,
                    content_type: None,
                    data: Data::Json(data),
                }
                .encode(out);
            }
            (Sending::Release(packet_id), Some(version)) => PubRel::success(packet_id).encode(version, out),
            // JSON has no QoS 2, so nothing is ever to be released.
            (Sending::Release(_), None) => {}
        }
    }

    /// The device has a push.
    pub(super) fn push_ack(&self, packet_id: PacketId, out: &mut Vec<u8>) {
        match self.version() {
            Some(version) => PubAck::success(packet_id).encode(version, out),
            None => {
                if let Some(id) = json_id(packet_id) {
                    Uplink::Ack { id }.encode(out);
                }
            }
        }
    }

    /// I live.
    pub(super) fn ping(&self, out: &mut Vec<u8>) {
        match self.version() {
            Some(version) => Packet::PingReq.encode(version, out),
            None => Uplink::Ping.encode(out),
        }
    }

    /// The device leaves for good, and its session with it where the protocol can say so.
    pub(super) fn goodbye(&self, out: &mut Vec<u8>) {
        let Some(version) = self.version() else { return };
        let session_expiry_interval_s = (version == ProtocolVersion::V5 && self.keep_session).then_some(0);
        let properties =
            DisconnectProperties { session_expiry_interval_s, ..DisconnectProperties::default() };
        Disconnect { properties, ..Disconnect::default() }.encode(version, out);
    }

    /// Reads one packet at the start of `bytes`; the second value is its length. `Ok(None)`: more bytes are needed.
    pub(super) fn hear_packet<'a>(
        &self,
        bytes: &'a [u8],
    ) -> Result<Option<(Heard<'a>, usize)>, Unintelligible> {
        let version = self.version().ok_or(Unintelligible)?;
        let Some(header) = FixedHeader::decode(bytes).map_err(|_| Unintelligible)? else { return Ok(None) };
        let length = header.packet_length();
        if length > PACKET_BYTES_MAX {
            return Err(Unintelligible);
        }
        let Some(body) = bytes.get(usize::from(header.header_length)..length) else { return Ok(None) };
        let packet = Packet::decode(header, body, version).map_err(|_| Unintelligible)?;
        let heard = match packet {
            Packet::ConnAck(connack) if connack.reason_code.is_error() => {
                Heard::Goodbye { retry_after: None }
            }
            Packet::ConnAck(connack) => Heard::Admitted {
                session_present: connack.session_present,
                receive_maximum: connack.properties.receive_maximum,
            },
            Packet::PubAck(ack) => {
                Heard::Ack { packet_id: ack.packet_id, refused: ack.reason_code.is_error() }
            }
            Packet::PubRec(ack) => {
                Heard::Received { packet_id: ack.packet_id, refused: ack.reason_code.is_error() }
            }
            Packet::PubComp(ack) => Heard::Completed { packet_id: ack.packet_id },
            // The subscription asks for QoS 1, so QoS 2 is a mistake of the gateway [MQTT-3.8.4-8].
            Packet::Publish(publish) if publish.qos <= QoS::AtLeastOnce => {
                Heard::Push { packet_id: publish.packet_id, payload: Cow::Borrowed(publish.payload) }
            }
            Packet::SubAck(suback) => {
                Heard::Subscribed { granted: suback.reason_codes.iter().all(|code| *code < 0x80) }
            }
            Packet::PingResp => Heard::Pong,
            Packet::Disconnect(_) => Heard::Goodbye { retry_after: None },
            _ => return Err(Unintelligible),
        };
        Ok(Some((heard, length)))
    }

    /// Reads one JSON message.
    pub(super) fn hear_message(text: &str) -> Result<Heard<'_>, Unintelligible> {
        let packet_id = |id: json::Id| PacketId::new(id.get()).ok_or(Unintelligible);
        Ok(match Downlink::decode(text).map_err(|_| Unintelligible)? {
            Downlink::Welcome(welcome) => Heard::Admitted {
                session_present: welcome.session_present,
                receive_maximum: Some(welcome.receive_maximum),
            },
            Downlink::Ack { id, .. } => Heard::Ack { packet_id: packet_id(id)?, refused: false },
            Downlink::Error { id: Some(id), .. } => Heard::Ack { packet_id: packet_id(id)?, refused: true },
            Downlink::Push(push) => Heard::Push {
                packet_id: push.id.map(packet_id).transpose()?,
                payload: match push.body.data {
                    Data::Json(text) => Cow::Borrowed(text.as_bytes()),
                    Data::Bytes(bytes) => bytes,
                },
            },
            Downlink::Subscribed { codes, .. } => {
                Heard::Subscribed { granted: codes.iter().all(|code| *code < 0x80) }
            }
            Downlink::Pong => Heard::Pong,
            Downlink::Goodbye { retry_after_ms, .. } => {
                Heard::Goodbye { retry_after: retry_after_ms.map(|ms| Duration::from_millis(ms.into())) }
            }
            // An error that belongs to no message, and answers to what was never asked.
            Downlink::Error { id: None, .. } | Downlink::Unsubscribed { .. } => return Err(Unintelligible),
        })
    }

    fn version(&self) -> Option<ProtocolVersion> {
        match self.dialect {
            Dialect::Mqtt311 => Some(ProtocolVersion::V311),
            Dialect::Mqtt5 | Dialect::MqttWebSocket => Some(ProtocolVersion::V5),
            Dialect::Json => None,
        }
    }

    fn session_expiry_s(&self) -> u32 {
        if self.keep_session { SESSION_EXPIRY_S } else { 0 }
    }
}

fn json_id(packet_id: PacketId) -> Option<json::Id> {
    json::Id::new(packet_id.get())
}

#[cfg(test)]
mod tests {
    use holdfast_wire::mqtt::{ConnAck, ConnAckProperties, ReasonCode};

    use super::*;
    use crate::plan::FleetPlan;

    fn speech(dialect: Dialect) -> Speech {
        Speech::new(dialect, "device-3".to_owned(), &FleetPlan::default())
    }

    #[test]
    fn a_json_device_says_who_it_is_in_its_path() {
        let path = speech(Dialect::Json).path();
        let (path, query) = path.split_once('?').unwrap();
        assert_eq!(json::socket_path(path).as_deref(), Some("device-3"));
        let options = json::SocketOptions::decode(query).unwrap();
        assert_eq!((options.clean_start, options.session_expiry_s), (false, Some(3_600)));
    }

    #[test]
    fn a_packet_is_heard_only_once_it_is_whole() {
        let speech = speech(Dialect::Mqtt5);
        let mut bytes = Vec::new();
        let properties = ConnAckProperties { receive_maximum: Some(9), ..ConnAckProperties::default() };
        ConnAck { session_present: true, reason_code: ReasonCode::Success, properties }
            .encode(ProtocolVersion::V5, &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(speech.hear_packet(&bytes[..cut]), Ok(None));
        }
        let heard = Heard::Admitted { session_present: true, receive_maximum: Some(9) };
        assert_eq!(speech.hear_packet(&bytes), Ok(Some((heard, bytes.len()))));
    }

    #[test]
    fn what_only_a_client_says_is_unintelligible_from_a_gateway() {
        let mut bytes = Vec::new();
        Packet::PingReq.encode(ProtocolVersion::V5, &mut bytes);
        assert_eq!(speech(Dialect::Mqtt5).hear_packet(&bytes), Err(Unintelligible));
        assert_eq!(speech(Dialect::Mqtt5).hear_packet(&[0xFF; 8]), Err(Unintelligible));
        assert_eq!(Speech::hear_message("{\"type\":\"frame\"}"), Err(Unintelligible));
    }
}
