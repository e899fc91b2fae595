//! An honest device: it keeps its side of MQTT to the letter, over connections that break anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holdfast_engine::ConnectionId;
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, FixedHeader, Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties, SubscriptionOptions,
};

use crate::network::Socket;

/// What a device noticed that the world has to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// Its subscriptions stand.
    Subscribed,
    /// A frame of its own was acknowledged.
    Acknowledged(Vec<u8>),
    /// A message came.
    Received { payload: Vec<u8>, qos: QoS },
}

impl fmt::Display for Noticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribed => write!(f, "is subscribed"),
            Self::Acknowledged(payload) => write!(f, "is acknowledged {}", String::from_utf8_lossy(payload)),
            Self::Received { payload, qos } => {
                write!(f, "receives {} ({qos:?})", String::from_utf8_lossy(payload))
            }
        }
    }
}

struct Unacked {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    /// PUBREC came.
    released: bool,
}

pub(crate) struct Device {
    pub(crate) client: String,
    version: ProtocolVersion,
    pub(crate) persistent: bool,
    filters: Vec<(String, QoS)>,
    topic: String,
    pub(crate) socket: Option<Socket>,
    subscribed: bool,
    /// How often the store has lost writes, and how often it had when the last SUBSCRIBE was sent.
    pub(crate) losses: u32,
    losses_at_subscribe: u32,
    unacked: BTreeMap<u16, Unacked>,
    /// QoS 2 ids received and not released.
    received: BTreeSet<u16>,
    next_id: u16,
    pub(crate) sent: u32,
    /// Frames it wants to send in all.
    pub(crate) frames: u32,
}

/// So that a connection whose device has left it without a word does not stay.
const KEEP_ALIVE_S: u16 = 3;

/// Frames with QoS > 0 that a device has unacknowledged at most.
const WINDOW: usize = 5;

impl Device {
    pub(crate) fn new(
        client: String,
        version: ProtocolVersion,
        persistent: bool,
        filters: Vec<(String, QoS)>,
        topic: String,
        frames: u32,
    ) -> Self {
        Self {
            client,
            version,
            persistent,
            filters,
            topic,
            socket: None,
            subscribed: false,
            losses: 0,
            losses_at_subscribe: 0,
            unacked: BTreeMap::new(),
            received: BTreeSet::new(),
            next_id: 1,
            sent: 0,
            frames,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sent == self.frames && self.unacked.is_empty() && self.subscribed && self.is_connected()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.connected && socket.is_read())
    }

    pub(crate) fn subscribes_to(&self, topic: &str) -> Option<QoS> {
        self.filters
            .iter()
            .filter(|(filter, _)| holdfast_wire::topic::matches(filter, topic))
            .map(|(_, qos)| *qos)
            .max()
    }

    /// A new connection: CONNECT is on its way.
    pub(crate) fn dial(&mut self, shard: usize, id: ConnectionId) {
        let mut bytes = Vec::new();
        let mut properties = ConnectProperties::default();
        if self.version == ProtocolVersion::V5 && self.persistent {
            properties.session_expiry_interval_s = Some(100_000);
        }
        let connect = Connect {
            version: self.version,
            clean_start: !self.persistent,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &self.client,
            will: None,
            username: None,
            password: None,
            properties,
        };
        connect.encode(&mut bytes);
        let mut socket = Socket::new(shard, id);
        socket.send(&bytes);
        self.socket = Some(socket);
        if !self.persistent {
            self.forget();
        }
    }

    /// Its connection is gone.
    pub(crate) fn lose(&mut self) {
        self.socket = None;
    }

    /// A sign of life. It owes one from its CONNECT on, though it may not have read the answer.
    pub(crate) fn ping(&mut self) {
        let version = self.version;
        if self.socket.as_ref().is_some_and(Socket::is_read) {
            self.send(|out| Packet::PingReq.encode(version, out));
        }
    }

    fn forget(&mut self) {
        self.unacked.clear();
        self.received.clear();
        self.subscribed = false;
    }

    /// Publishes one more frame, if it may. Returns topic, payload and QoS.
    pub(crate) fn publish(&mut self, qos: QoS) -> Option<(String, Vec<u8>, QoS)> {
        let may =
            self.subscribed && self.is_connected() && self.sent < self.frames && self.unacked.len() < WINDOW;
        if !may {
            return None;
        }
        self.sent += 1;
        let payload = format!("{}:{}", self.client, self.sent).into_bytes();
        let topic = self.topic.clone();
        let id = (qos > QoS::AtMostOnce).then(|| {
            while self.unacked.contains_key(&self.next_id) {
                self.next_id = self.next_id % 50 + 1;
            }
            let id = self.next_id;
            self.next_id = self.next_id % 50 + 1;
            self.unacked
                .insert(id, Unacked { topic: topic.clone(), payload: payload.clone(), qos, released: false });
            id
        });
        self.send_publish(false, qos, &topic.clone(), id, &payload.clone());
        Some((topic, payload, qos))
    }

    fn send_publish(&mut self, dup: bool, qos: QoS, topic: &str, id: Option<u16>, payload: &[u8]) {
        let version = self.version;
        let packet_id = id.and_then(PacketId::new);
        let properties = PublishProperties::default();
        let publish = Publish { dup, qos, retain: false, topic, packet_id, properties, payload };
        self.send(|out| publish.encode(version, out));
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(socket) = &mut self.socket {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            socket.send(&bytes);
        }
    }

    /// Reads what came from the gateway.
    pub(crate) fn receive(&mut self) -> Vec<Noticed> {
        let mut noticed = Vec::new();
        let Some(socket) = &mut self.socket else { return noticed };
        let down = socket.receive();
        let mut rest = &down[..];
        while let Some(header) = FixedHeader::decode(rest).expect("the gateway writes headers") {
            let Some((packet, behind)) = rest.split_at_checked(header.packet_length()) else { break };
            let body = &packet[usize::from(header.header_length)..];
            let packet = Packet::decode(header, body, self.version).expect("the gateway writes MQTT");
            self.handle(&packet, &mut noticed);
            rest = behind;
        }
        if let Some(socket) = &mut self.socket {
            socket.put_back(rest.to_vec());
        }
        noticed
    }

    fn handle(&mut self, packet: &Packet<'_>, noticed: &mut Vec<Noticed>) {
        let version = self.version;
        match packet {
            Packet::ConnAck(accepted) => {
                if accepted.reason_code.is_error() {
                    return;
                }
                if !accepted.session_present {
                    self.forget();
                }
                if let Some(socket) = &mut self.socket {
                    socket.connected = true;
                }
                self.greet();
            }
            // The store did not take them.
            Packet::SubAck(ack) if ack.reason_codes.iter().any(|code| *code >= 0x80) => self.subscribe(),
            Packet::SubAck(_) => {
                self.subscribed = true;
                noticed.push(Noticed::Subscribed);
            }
            Packet::Publish(publish) => {
                let id = publish.packet_id.map_or(0, PacketId::get);
                let is_new = publish.qos != QoS::ExactlyOnce || self.received.insert(id);
                if is_new {
                    noticed.push(Noticed::Received { payload: publish.payload.to_vec(), qos: publish.qos });
                }
                if let Some(id) = publish.packet_id {
                    self.send(|out| match publish.qos {
                        QoS::ExactlyOnce => PubRec::success(id).encode(version, out),
                        _ => PubAck::success(id).encode(version, out),
                    });
                }
            }
            Packet::PubRel(release) => {
                self.received.remove(&release.packet_id.get());
                self.send(|out| PubComp::success(release.packet_id).encode(version, out));
            }
            Packet::PubAck(ack) => {
                let settled = self.unacked.remove(&ack.packet_id.get());
                let settled = settled.expect("a PUBACK is for something that was sent");
                assert_eq!(settled.qos, QoS::AtLeastOnce);
                noticed.push(Noticed::Acknowledged(settled.payload));
            }
            Packet::PubRec(ack) => {
                if let Some(unacked) = self.unacked.get_mut(&ack.packet_id.get()) {
                    if !unacked.released {
                        noticed.push(Noticed::Acknowledged(unacked.payload.clone()));
                    }
                    unacked.released = true;
                }
                self.send(|out| PubRel::success(ack.packet_id).encode(version, out));
            }
            Packet::PubComp(ack) => {
                let done = self.unacked.remove(&ack.packet_id.get());
                assert!(done.is_none_or(|done| done.released), "PUBCOMP before PUBREC");
            }
            Packet::Disconnect(_) | Packet::PingResp | Packet::UnsubAck(_) => {}
            other => panic!("a client is never sent {:?}", other.packet_type()),
        }
    }

    /// Connected: what is unacknowledged goes out again in its order, then subscriptions if they do not stand.
    fn greet(&mut self) {
        let version = self.version;
        // By the order of sending: sequence numbers are in the payload.
        let mut again: Vec<_> = self
            .unacked
            .iter()
            .map(|(id, unacked)| (sequence(&unacked.payload), *id, unacked.qos, unacked.released))
            .collect();
        again.sort_unstable();
        for (_, id, qos, released) in again {
            if released {
                let id = PacketId::new(id).expect("ids are not zero");
                self.send(|out| PubRel::success(id).encode(version, out));
            } else {
                let Unacked { topic, payload, .. } = &self.unacked[&id];
                let (topic, payload) = (topic.clone(), payload.clone());
                self.send_publish(true, qos, &topic, Some(id), &payload);
            }
        }
        if !self.subscribed {
            self.subscribe();
        }
    }

    /// Whether the store has lost nothing since this device asked for its subscriptions.
    pub(crate) fn is_known(&self) -> bool {
        self.losses == self.losses_at_subscribe
    }

    fn subscribe(&mut self) {
        self.losses_at_subscribe = self.losses;
        let version = self.version;
        {
            let filters: Vec<_> = self.filters.clone();
            let filters: Vec<_> =
                filters.iter().map(|(filter, qos)| (&**filter, SubscriptionOptions::at(*qos))).collect();
            let packet_id = PacketId::new(60_000).expect("not zero");
            let properties = SubscribeProperties::default();
            let subscribe = Subscribe { packet_id, properties, filters: filters[..].into() };
            self.send(|out| subscribe.encode(version, out));
        }
    }
}

/// The number in a payload `client:number`.
pub(crate) fn sequence(payload: &[u8]) -> u32 {
    let text = std::str::from_utf8(payload).expect("devices write text");
    text.rsplit(':').next().and_then(|number| number.parse().ok()).expect("and a number")
}
