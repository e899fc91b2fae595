//! Peers that mean no good: they send noise, damaged packets and halves of packets, and vanish. They have client ids and topics of their own, so all
//! they can cost others is time.

use holdfast_engine::{ConnectionId, Listener};
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, PubAck, PubRec, PubRel, Publish,
    PublishProperties, QoS, Subscribe, SubscribeProperties, SubscriptionOptions, Will, WillProperties,
};

use crate::random::Random;

/// Hostile peers at a time.
pub(crate) const HOSTILE: usize = 3;

/// One of them.
pub(crate) struct Hostile {
    pub(crate) shard: usize,
    pub(crate) id: ConnectionId,
    number: usize,
}

impl Hostile {
    /// Where it knocks.
    pub(crate) fn listener(random: &mut Random) -> Listener {
        if random.one_in(4) { Listener::WebSocket } else { Listener::Mqtt }
    }

    pub(crate) fn new(shard: usize, id: ConnectionId, number: usize) -> Self {
        Self { shard, id, number }
    }

    /// What it sends next.
    pub(crate) fn says(&self, random: &mut Random) -> Vec<u8> {
        let version = if self.number.is_multiple_of(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut bytes = Vec::new();
        for _ in 0..=random.below(4) {
            let start = bytes.len();
            match random.below(10) {
                0 => bytes.extend((0..random.below(60)).map(|_| random.next() as u8)),
                1..=4 => self.connect(version, &mut bytes),
                _ => packet(random).encode(version, &mut bytes),
            }
            let length = bytes.len() - start;
            if length > 0 && random.one_in(4) {
                bytes[start + random.below(length)] = random.next() as u8;
            }
            if length > 0 && random.one_in(10) {
                bytes.truncate(start + random.below(length));
            }
        }
        bytes
    }

    fn connect(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let client_id = format!("hostile-{}", self.number);
        let properties =
            ConnectProperties { session_expiry_interval_s: Some(1), ..ConnectProperties::default() };
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "hostile/will",
            payload: b"will",
            properties: WillProperties { delay_interval_s: Some(1), ..WillProperties::default() },
        };
        let connect = Connect {
            version,
            clean_start: false,
            keep_alive_s: 1,
            client_id: &client_id,
            will: Some(will),
            username: None,
            password: None,
            properties,
        };
        connect.encode(out);
    }
}

const FILTERS: [(&str, SubscriptionOptions); 2] = [
    ("hostile/#", SubscriptionOptions::at(QoS::ExactlyOnce)),
    ("site/+", SubscriptionOptions::at(QoS::AtLeastOnce)),
];

fn packet(random: &mut Random) -> Packet<'static> {
    let packet_id = PacketId::new(1 + random.below(3) as u16).expect("it is not zero");
    let publish = |qos, packet_id| Publish {
        dup: false,
        qos,
        retain: false,
        topic: "hostile/topic",
        packet_id,
        properties: PublishProperties::default(),
        payload: b"hostile:0",
    };
    match random.below(8) {
        0 => Packet::Publish(publish(QoS::AtMostOnce, None)),
        1 => Packet::Publish(publish(QoS::AtLeastOnce, Some(packet_id))),
        2 => Packet::Publish(publish(QoS::ExactlyOnce, Some(packet_id))),
        3 => Packet::PubAck(PubAck::success(packet_id)),
        4 => Packet::PubRec(PubRec::success(packet_id)),
        5 => Packet::PubRel(PubRel::success(packet_id)),
        6 => Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            filters: FILTERS[..].into(),
        }),
        _ => Packet::PingReq,
    }
}
