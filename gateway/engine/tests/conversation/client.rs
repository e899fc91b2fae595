//! A client: sends packets or bytes, and hears packets.

use holdfast_engine::{CloseReason, ConnectionId, DeviceView, SocketEnd};
use holdfast_wire::mqtt::{
    Auth, ConnAck, Connect, Disconnect, FixedHeader, Packet, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, ReasonCode, SubAck, Subscribe, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe,
};

use crate::packets::{goodbye, id, suback};
use crate::stage::Shard;

/// A client, by its connection.
pub(crate) struct Client {
    shard: Shard,
    pub(crate) id: ConnectionId,
    version: ProtocolVersion,
}

/// Anything that is a packet.
pub(crate) trait Sayable {
    fn packet(&self) -> Packet<'_>;
}

macro_rules! sayable {
    ($($packet:ident),+) => {
        $(impl Sayable for $packet<'_> {
            fn packet(&self) -> Packet<'_> {
                Packet::$packet(*self)
            }
        })+
    };
}

sayable!(
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    PubAck,
    PubComp,
    PubRec,
    PubRel,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe
);

impl Sayable for Packet<'_> {
    fn packet(&self) -> Packet<'_> {
        *self
    }
}

impl Client {
    pub(crate) fn new(shard: Shard, id: ConnectionId, version: ProtocolVersion) -> Self {
        Self { shard, id, version }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a story reads better without references")]
    pub(crate) fn sends(&self, packet: impl Sayable) {
        self.sends_bytes(&self.bytes_of(&packet));
    }

    /// The packet as this client would send it.
    pub(crate) fn bytes_of(&self, packet: &impl Sayable) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet.packet().encode(self.version, &mut bytes);
        bytes
    }

    pub(crate) fn sends_bytes(&self, bytes: &[u8]) {
        let mut stage = self.shard.stage();
        let socket = stage.sockets.get_mut(&self.id).expect("it was accepted");
        socket.unread.extend_from_slice(bytes);
        stage.read(self.id);
        stage.turn();
    }

    /// The next packet that it hears is this one.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a story reads better without references")]
    pub(crate) fn hears(&self, expected: impl Sayable) {
        let bytes = self.hears_packet();
        assert_eq!(decode(&bytes, self.version), expected.packet());
    }

    /// The bytes of the next packet that it hears.
    #[track_caller]
    pub(crate) fn hears_packet(&self) -> Vec<u8> {
        let mut stage = self.shard.stage();
        let socket = stage.sockets.get_mut(&self.id).expect("it was accepted");
        let heard = &mut socket.heard;
        let header = FixedHeader::decode(heard).expect("the engine writes packets");
        let Some(header) = header else { panic!("nothing is heard; closed: {:?}", socket.closed) };
        heard.drain(..header.packet_length()).collect()
    }

    #[track_caller]
    pub(crate) fn hears_acceptance(&self) {
        let bytes = self.hears_packet();
        match decode(&bytes, self.version) {
            Packet::ConnAck(ConnAck { reason_code: ReasonCode::Success, .. }) => {}
            other => panic!("it is not accepted but hears {other:?}"),
        }
    }

    /// The packet id of a PUBLISH with this payload.
    #[track_caller]
    pub(crate) fn packet_id_of(&self, bytes: &[u8], payload: &str) -> u16 {
        match decode(bytes, self.version) {
            Packet::Publish(Publish { packet_id: Some(packet_id), payload: found, .. }) => {
                assert_eq!(found, payload.as_bytes());
                packet_id.get()
            }
            other => panic!("it hears {other:?}, not a PUBLISH with QoS > 0"),
        }
    }

    #[track_caller]
    pub(crate) fn hears_nothing(&self) {
        let stage = self.shard.stage();
        let socket = &stage.sockets[&self.id];
        assert_eq!(socket.closed, None);
        assert_eq!(socket.heard, b"", "nothing should be heard");
    }

    /// The connection ends with this reason and no further word.
    #[track_caller]
    pub(crate) fn hears_the_end(&self, reason: CloseReason) {
        let stage = self.shard.stage();
        let socket = &stage.sockets[&self.id];
        assert_eq!(socket.heard, b"", "nothing more should be heard before the end");
        assert_eq!(socket.closed, Some(reason));
    }

    /// An MQTT 5 client is told why, then the connection ends.
    #[track_caller]
    pub(crate) fn hears_goodbye(&self, reason: CloseReason) {
        self.hears(goodbye(reason));
        self.hears_the_end(reason);
    }

    /// Subscribes to one filter and is granted what it asked for.
    #[track_caller]
    pub(crate) fn subscribes(&self, filter: &str, options: SubscriptionOptions) {
        self.subscribes_as(filter, options, None);
    }

    /// The same with a subscription identifier.
    #[track_caller]
    pub(crate) fn subscribes_as(&self, filter: &str, options: SubscriptionOptions, identifier: Option<u32>) {
        let properties =
            SubscribeProperties { subscription_identifier: identifier, ..SubscribeProperties::default() };
        let filters = [(filter, options)];
        self.sends(Subscribe { packet_id: id(999), properties, filters: filters[..].into() });
        self.hears(suback(999, &[u8::from(options.qos)]));
    }

    /// The socket ends, and nobody said goodbye.
    pub(crate) fn vanishes(&self) {
        let id = self.id;
        let mut stage = self.shard.stage();
        let socket = stage.sockets.get_mut(&id).expect("it was accepted");
        socket.closed = Some(CloseReason::PeerReset);
        let now = stage.now;
        stage.engine.handle_closed(id, SocketEnd::Reset, now);
        stage.turn();
    }

    /// The kernel takes no more for it.
    pub(crate) fn stops_reading(&self) {
        self.shard.input(|engine, _| engine.handle_blocked(self.id));
    }

    /// The kernel has taken everything.
    pub(crate) fn reads_again(&self) {
        self.shard.input(|engine, now| engine.handle_unblocked(self.id, now));
    }

    /// How often its socket was written to.
    pub(crate) fn writes(&self) -> usize {
        self.shard.stage().sockets[&self.id].writes
    }

    /// Bytes that it has sent and the shard has not read.
    pub(crate) fn unread(&self) -> usize {
        self.shard.stage().sockets[&self.id].unread.len()
    }

    /// Everything it has heard and not looked at.
    pub(crate) fn takes_bytes(&self) -> Vec<u8> {
        let mut stage = self.shard.stage();
        std::mem::take(&mut stage.sockets.get_mut(&self.id).expect("it was accepted").heard)
    }

    #[track_caller]
    pub(crate) fn acknowledges(&self, packet_id: u16) {
        self.sends(PubAck::success(id(packet_id)));
    }
}

impl Shard {
    /// What an operator sees of a device.
    #[track_caller]
    pub(crate) fn device(&self, client: &str) -> DeviceView {
        self.stage().engine.device(client).expect("it is connected here")
    }
}

#[track_caller]
fn decode(bytes: &[u8], version: ProtocolVersion) -> Packet<'_> {
    let header = FixedHeader::decode(bytes).expect("a fixed header").expect("a whole one");
    let body = &bytes[usize::from(header.header_length)..];
    Packet::decode(header, body, version).expect("the engine writes packets that a client takes")
}
