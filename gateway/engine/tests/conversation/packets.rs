//! Packets and messages as most stories want them; what matters to a story it changes by struct update.

use holdfast_engine::{CloseReason, MqttConfig};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    AckProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, SubAck, Subscribe, SubscribeProperties,
    SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeProperties, Will, WillProperties,
};

use crate::stage::EPOCH_UNIX_MS;

/// MQTT 5, clean start, no keep alive, session ends with the connection.
pub(crate) fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// MQTT 3.1.1, clean session, no keep alive.
pub(crate) fn connect_311(client_id: &str) -> Connect<'_> {
    Connect { version: ProtocolVersion::V311, ..connect(client_id) }
}

/// MQTT 5, a session that outlives the connection by an hour and is resumed.
pub(crate) fn resume(client_id: &str) -> Connect<'_> {
    Connect { clean_start: false, properties: expiring(3_600), ..connect(client_id) }
}

/// MQTT 3.1.1, clean session 0.
pub(crate) fn resume_311(client_id: &str) -> Connect<'_> {
    Connect { clean_start: false, ..connect_311(client_id) }
}

pub(crate) fn expiring(session_expiry_s: u32) -> ConnectProperties<'static> {
    ConnectProperties { session_expiry_interval_s: Some(session_expiry_s), ..ConnectProperties::default() }
}

/// What an MQTT 5 client hears that gets what it asked for.
pub(crate) fn accepted() -> ConnAck<'static> {
    let announced = MqttConfig::default();
    let properties = ConnAckProperties {
        receive_maximum: Some(announced.receive_maximum),
        maximum_packet_size: Some(announced.maximum_packet_size),
        topic_alias_maximum: Some(announced.topic_alias_maximum),
        ..ConnAckProperties::default()
    };
    ConnAck { session_present: false, reason_code: ReasonCode::Success, properties }
}

/// The same when its session was there.
pub(crate) fn resumed() -> ConnAck<'static> {
    ConnAck { session_present: true, ..accepted() }
}

pub(crate) fn refused(reason_code: ReasonCode) -> ConnAck<'static> {
    ConnAck { session_present: false, reason_code, properties: ConnAckProperties::default() }
}

/// What a 3.1.1 client hears that is accepted.
pub(crate) fn accepted_311(session_present: bool) -> ConnAck<'static> {
    ConnAck { session_present, ..refused(ReasonCode::Success) }
}

/// The DISCONNECT that goes with a reason.
#[track_caller]
pub(crate) fn goodbye(reason: CloseReason) -> Disconnect<'static> {
    let mut goodbye = Disconnect::with_reason(reason.reason_code().expect("it is told to the peer"));
    goodbye.properties.reason_string = Some(reason.label());
    goodbye
}

#[track_caller]
pub(crate) fn id(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).expect("a packet id is not zero")
}

pub(crate) fn qos0<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

pub(crate) fn qos1<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { qos: QoS::AtLeastOnce, packet_id: Some(id(packet_id)), ..qos0(topic, payload) }
}

pub(crate) fn qos2<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { qos: QoS::ExactlyOnce, ..qos1(packet_id, topic, payload) }
}

/// A will with QoS 1.
pub(crate) fn will<'a>(topic: &'a str, payload: &'a str) -> Will<'a> {
    Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        payload: payload.as_bytes(),
        properties: WillProperties::default(),
    }
}

/// A message from a bridge, published with QoS 1 by somebody else.
pub(crate) fn message<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    Message {
        id: 0,
        topic,
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "somebody",
        published_at_ms: EPOCH_UNIX_MS,
        expires_at_ms: 0,
        properties: &[],
        payload: payload.as_bytes(),
    }
}

/// The same with QoS 0.
pub(crate) fn message0<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    Message { qos: QoS::AtMostOnce, ..message(topic, payload) }
}

/// The same with QoS 2.
pub(crate) fn message2<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    Message { qos: QoS::ExactlyOnce, ..message(topic, payload) }
}

pub(crate) const AT_MOST_ONCE: SubscriptionOptions = SubscriptionOptions::at(QoS::AtMostOnce);
pub(crate) const AT_LEAST_ONCE: SubscriptionOptions = SubscriptionOptions::at(QoS::AtLeastOnce);
pub(crate) const EXACTLY_ONCE: SubscriptionOptions = SubscriptionOptions::at(QoS::ExactlyOnce);

pub(crate) fn subscribe<'a>(packet_id: u16, filters: &'a [(&'a str, SubscriptionOptions)]) -> Subscribe<'a> {
    Subscribe {
        packet_id: id(packet_id),
        properties: SubscribeProperties::default(),
        filters: filters.into(),
    }
}

pub(crate) fn suback(packet_id: u16, reason_codes: &[u8]) -> SubAck<'_> {
    SubAck { packet_id: id(packet_id), properties: AckProperties::default(), reason_codes }
}

pub(crate) fn unsubscribe<'a>(packet_id: u16, filters: &'a [&'a str]) -> Unsubscribe<'a> {
    Unsubscribe {
        packet_id: id(packet_id),
        properties: UnsubscribeProperties::default(),
        filters: filters.into(),
    }
}

pub(crate) fn unsuback(packet_id: u16, reason_codes: &[u8]) -> UnsubAck<'_> {
    UnsubAck { packet_id: id(packet_id), properties: AckProperties::default(), reason_codes }
}
