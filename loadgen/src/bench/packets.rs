//! Packets that are built once, before anything is measured. MQTT 3.1.1, which every broker speaks alike.

use holdfast_wire::mqtt::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, PubAck, Publish, PublishProperties, QoS,
    Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, publish,
};

const VERSION: ProtocolVersion = ProtocolVersion::V311;

pub(super) fn client_id(index: usize) -> String {
    format!("bench-{index:06}")
}

/// Longer than any measure, so that an idle connection stays without a packet. Not 0: rumqttd takes that for no
/// patience at all.
const KEEP_ALIVE_S: u16 = 3_600;

/// A clean session.
pub(super) fn connect(index: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Connect {
        version: VERSION,
        clean_start: true,
        keep_alive_s: KEEP_ALIVE_S,
        client_id: &client_id(index),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
    .encode(&mut out);
    out
}

pub(super) fn subscribe(topic: &str, qos: QoS) -> Vec<u8> {
    let mut out = Vec::new();
    let filters = [(topic, SubscriptionOptions::at(qos))];
    Subscribe {
        packet_id: PacketId::MIN,
        properties: SubscribeProperties::default(),
        filters: SubscribeFilters::from(&filters[..]),
    }
    .encode(VERSION, &mut out);
    out
}

/// A PUBLISH; at `QoS` 1 with packet id 1, to be set by [`set_packet_id`].
pub(super) fn publish(topic: &str, qos: QoS, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: PublishProperties::default(),
        payload,
    }
    .encode(VERSION, &mut out);
    out
}

pub(super) fn set_packet_id(encoded: &mut [u8], packet_id: u16) {
    let is_set = PacketId::new(packet_id).is_some_and(|packet_id| publish::set_packet_id(encoded, packet_id));
    debug_assert!(is_set, "only a PUBLISH at QoS 1 and a packet id above 0 come here");
}

pub(super) fn puback(packet_id: u16, out: &mut Vec<u8>) {
    if let Some(packet_id) = PacketId::new(packet_id) {
        PubAck::success(packet_id).encode(VERSION, out);
    }
}

pub(super) fn pingreq() -> Vec<u8> {
    let mut out = Vec::new();
    Packet::PingReq.encode(VERSION, &mut out);
    out
}

/// CONNACK with success and without a session.
pub(super) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// A goodbye, so that nobody waits for this client.
pub(super) fn disconnect() -> Vec<u8> {
    vec![0xE0, 0]
}

/// The packet id in a PUBACK or SUBACK.
pub(super) fn ack_packet_id(packet: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]))
}

/// Topic, packet id and payload of a PUBLISH without properties; `None` if it is cut short.
pub(super) fn split_publish(packet: &[u8]) -> Option<(&[u8], u16, &[u8])> {
    let header = holdfast_wire::mqtt::FixedHeader::decode(packet).ok()??;
    let body = packet.get(usize::from(header.header_length)..)?;
    let (length, body) = body.split_at_checked(2)?;
    let (topic, body) = body.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
    if header.qos() == QoS::AtMostOnce {
        return Some((topic, 0, body));
    }
    let (packet_id, payload) = body.split_at_checked(2)?;
    Some((topic, u16::from_be_bytes([packet_id[0], packet_id[1]]), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_id_is_set_in_a_packet_that_was_built_before() {
        let mut packet = publish("bench/1", QoS::AtLeastOnce, b"payload");
        set_packet_id(&mut packet, 515);
        assert_eq!(split_publish(&packet), Some((&b"bench/1"[..], 515, &b"payload"[..])));
        for cut in 0..packet.len() - b"payload".len() {
            assert_eq!(split_publish(&packet[..cut]), None);
        }
    }

    #[test]
    fn an_ack_names_its_packet() {
        let mut out = Vec::new();
        puback(7, &mut out);
        assert_eq!(ack_packet_id(&out), Some(7));
    }
}
