//! Bytes as nobody should send them, on every kind of connection and in every split: the engine neither panics nor grows (promises P7, P8, P9).
//!
//! A peer sends valid packets, damaged ones and noise, mixed. While it does, the memory that the engine holds for it stays below what its
//! limits add up to; once it is gone, and bridge and store have answered, nothing of it is left.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use holdfast_engine::{
    Action, ConnectionId, Engine, EngineConfig, LeaseWord, Limits, LinkIndex, Listener, MqttConfig, Now,
    SocketEnd,
};
use holdfast_store::{Bounds, MemoryStore, Store};
use holdfast_wire::ids::{BridgeId, NodeId, Owner, ShardId};
use holdfast_wire::link::{Deliver, Settled, Target, ToBridge, ToGateway, Welcome, next_record};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Auth, Connect, ConnectProperties, Disconnect, Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties, SubscriptionOptions,
    Unsubscribe, UnsubscribeProperties, UserProperties,
};
use proptest::prelude::*;

/// Counts what lives on the heap of each thread, as tests run on one each.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.set(LIVE_BYTES.get() + layout.size().cast_signed());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.set(LIVE_BYTES.get() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const LINK: LinkIndex = LinkIndex(0);
/// Where the clocks begin.
const START: Now = Now { monotonic_ms: 1_000_000, unix_ms: 1_700_000_000_000 };
const PACKET_BYTES_MAX: u32 = 1_024;
const WINDOW_BYTES: u32 = 8 * 1_024;
/// What one peer may make the engine hold: a partial packet and a read, 16 filters of a packet's length in four tables, 16 pending and 16
/// inflight messages, aliases both ways, the link's window with its chunk, and the store's row of it all.
const HELD_BYTES_MAX: isize = 512 * 1_024;
/// What tables may keep of their capacity once it is gone.
const LEFT_BYTES_MAX: isize = 96 * 1_024;

/// An engine whose bridge and store answer everything, but settle no frame before the end.
struct Shard {
    engine: Engine,
    now: Now,
    clock: Arc<AtomicU64>,
    store: MemoryStore,
    last_sequence: u64,
    closed: Vec<ConnectionId>,
    /// Bridge and store say nothing more.
    is_ignored: bool,
}

impl Shard {
    fn new() -> Self {
        let mqtt = MqttConfig {
            maximum_packet_size: PACKET_BYTES_MAX,
            receive_maximum: 16,
            topic_alias_maximum: 4,
            topic_alias_maximum_outbound: 4,
            ..MqttConfig::default()
        };
        let limits = Limits {
            subscriptions_max: 16,
            inflight_max: 16,
            pending_messages_max: 16,
            pending_bytes_max: 16 * 1_024,
            ..Limits::default()
        };
        let config = EngineConfig { mqtt, limits, ..EngineConfig::default() };
        let owner = Owner { node: NodeId(1), shard: ShardId(0) };
        let clock = Arc::new(AtomicU64::new(START.unix_ms));
        let store_clock = Arc::clone(&clock);
        let mut shard = Self {
            engine: Engine::new(config, owner, 1, 1),
            now: START,
            clock,
            store: MemoryStore::new(Arc::new(move || store_clock.load(Ordering::Relaxed)), Bounds::default()),
            last_sequence: 0,
            closed: Vec::new(),
            is_ignored: false,
        };
        let welcome = Welcome { version: 1, bridge: BridgeId(1), window_bytes: WINDOW_BYTES };
        shard.engine.handle_link_up(LINK, welcome, START);
        // Whoever comes first pays for tables that stay.
        let first = shard.engine.handle_accept(Listener::Mqtt, START).expect("there is room");
        shard.sends(first, &mut connect(ProtocolVersion::V5, true));
        shard.ends(first);
        shard
    }

    fn sends(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        if !self.closed.contains(&id) && self.engine.may_read(id) {
            self.engine.handle_bytes(id, bytes, self.now);
        }
        self.turn();
    }

    fn clock_advances_ms(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ms += ms;
        self.clock.store(self.now.unix_ms, Ordering::Relaxed);
        self.engine.handle_timers(self.now);
        self.turn();
    }

    /// The peer is gone, and everything it has begun comes to its end.
    fn ends(&mut self, id: ConnectionId) {
        if !self.closed.contains(&id) {
            self.engine.handle_closed(id, SocketEnd::Reset, self.now);
        }
        self.turn();
        while self.last_sequence > 0 {
            let settled = Settled { first: 1, last: self.last_sequence, reason_code: 0 };
            self.last_sequence = 0;
            self.engine.handle_link_record(LINK, &ToGateway::Settled(settled), self.now);
            self.turn();
        }
        self.closed = Vec::new();
    }

    fn turn(&mut self) {
        loop {
            let mut is_quiet = true;
            while let Some(action) = self.engine.poll_action() {
                is_quiet = false;
                match action {
                    Action::Close { id, .. } => self.closed.push(id),
                    Action::ResumeRead(_) => {}
                    Action::AskLease => self.engine.handle_lease(LeaseWord::Renewed, self.now),
                    Action::Store { .. } if self.is_ignored => {}
                    Action::Store { request, body } => {
                        let (reply, answer) = mpsc::channel();
                        self.store.submit(body, Box::new(move |result| drop(reply.send(result))));
                        let answer = answer.recv().expect("a memory store answers at once");
                        self.engine.handle_store_reply(request, answer, self.now);
                    }
                }
            }
            self.engine.flush(|_, _| ());
            for at in 0..self.closed.len() {
                // Told twice of the same end, the engine takes it once.
                self.engine.handle_closed(self.closed[at], SocketEnd::ByUs, self.now);
            }
            let output = std::mem::take(self.engine.link_output(LINK));
            let mut records = &output[..];
            while let Some(raw) = next_record(&mut records).expect("the engine writes records") {
                is_quiet = false;
                let answer = match ToBridge::decode(raw).expect("the engine writes what a bridge takes") {
                    ToBridge::Uplink(uplink) => {
                        self.last_sequence = uplink.sequence;
                        continue;
                    }
                    ToBridge::Interest(interest) => ToGateway::InterestKnown(interest.token),
                    ToBridge::RetainedRead(read) => ToGateway::RetainedEnd { token: read.token, more: false },
                    _ => continue,
                };
                if !self.is_ignored {
                    self.engine.handle_link_record(LINK, &answer, self.now);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Something for whoever subscribed to anything here.
    fn publishes(&mut self) {
        for (topic, target) in [("a/b", Target::Subscribers), ("t", Target::Device("hostile"))] {
            let message = Message {
                id: 0,
                topic,
                qos: QoS::ExactlyOnce,
                retain: true,
                publisher: "somebody",
                published_at_ms: START.unix_ms,
                expires_at_ms: 0,
                properties: &[],
                payload: &[7; 300],
            };
            let deliver = Deliver { delivery: 1, target, positions: Vec::new(), message };
            self.engine.handle_link_record(LINK, &ToGateway::Deliver(deliver), self.now);
            while self.engine.has_work() {
                self.engine.handle_work(self.now);
            }
            self.turn();
        }
    }
}

/// What kind of connection the bytes arrive on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Before a CONNECT.
    Stranger,
    /// Behind a CONNECT of this version, of a session that persists or not.
    Connected(ProtocolVersion, bool),
    /// Before an upgrade.
    Upgrading,
    /// MQTT in WebSocket frames.
    WebSocket,
    /// JSON in WebSocket frames.
    Json,
}

const WAYS: [Way; 8] = [
    Way::Stranger,
    Way::Connected(ProtocolVersion::V311, false),
    Way::Connected(ProtocolVersion::V311, true),
    Way::Connected(ProtocolVersion::V5, false),
    Way::Connected(ProtocolVersion::V5, true),
    Way::Upgrading,
    Way::WebSocket,
    Way::Json,
];

fn connect(version: ProtocolVersion, persistent: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = ConnectProperties {
        session_expiry_interval_s: persistent.then_some(60),
        topic_alias_maximum: Some(8),
        ..ConnectProperties::default()
    };
    let connect = Connect {
        version,
        clean_start: !persistent,
        keep_alive_s: 10,
        client_id: "hostile",
        will: None,
        username: None,
        password: None,
        properties,
    };
    connect.encode(&mut bytes);
    bytes
}

fn upgrade(path: &str, subprotocol: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
    .into_bytes()
}

/// Wraps a message for WebSocket, masked with zeroes so that damage to it stays readable.
fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0xFE);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// One of each packet that a client may send, and some that it may not.
fn packets(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let id = |id| PacketId::new(id).expect("it is not zero");
    let pairs = [("event-time", "17"), ("k", "v")];
    let filters = [
        ("a/#", SubscriptionOptions::at(QoS::ExactlyOnce)),
        ("$share/g/a/+", SubscriptionOptions::at(QoS::AtLeastOnce)),
        ("devices/hostile/push", SubscriptionOptions::at(QoS::AtMostOnce)),
        ("t", SubscriptionOptions::at(QoS::AtLeastOnce)),
    ];
    let publish = |qos, packet_id, topic, alias| Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id,
        properties: PublishProperties {
            topic_alias: alias,
            message_expiry_interval_s: Some(60),
            user_properties: UserProperties::from(&pairs[..]),
            ..PublishProperties::default()
        },
        payload: b"payload",
    };
    let all = [
        Packet::Publish(publish(QoS::AtMostOnce, None, "a/b", None)),
        Packet::Publish(publish(QoS::AtLeastOnce, Some(id(1)), "a/b", Some(1))),
        Packet::Publish(publish(QoS::AtLeastOnce, Some(id(2)), "t", Some(2))),
        Packet::Publish(publish(QoS::ExactlyOnce, Some(id(3)), "a/b", None)),
        Packet::PubAck(PubAck::success(id(1))),
        Packet::PubRec(PubRec::success(id(1))),
        Packet::PubRel(PubRel::success(id(3))),
        Packet::PubComp(PubComp::success(id(1))),
        Packet::Subscribe(Subscribe {
            packet_id: id(5),
            properties: SubscribeProperties { subscription_identifier: Some(9), ..Default::default() },
            filters: filters[..].into(),
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(6),
            properties: UnsubscribeProperties::default(),
            filters: ["a/#", "nothing"][..].into(),
        }),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect(Disconnect::default()),
    ];
    let mut encoded: Vec<Vec<u8>> = all
        .iter()
        .map(|packet| {
            let mut bytes = Vec::new();
            packet.encode(version, &mut bytes);
            bytes
        })
        .collect();
    encoded.push(connect(version, true));
    if version == ProtocolVersion::V5 {
        let mut bytes = Vec::new();
        Auth::default().encode(version, &mut bytes);
        encoded.push(bytes);
    }
    encoded
}

const TEXTS: [&str; 8] = [
    r#"{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{"x":[1,2,3]}}"#,
    r#"{"type":"frame","topic":"accel","data_base64":"AQIDBA=="}"#,
    r#"{"type":"subscribe","id":1,"topics":["a/#",{"filter":"t","qos":0},"$share/g/a"]}"#,
    r#"{"type":"unsubscribe","id":2,"topics":["a/#"]}"#,
    r#"{"type":"ack","id":1}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"frame","id":8,"topic":"a/+","data":null}"#,
    r#"{"type":"\ud800","id":65536}"#,
];

/// What a peer of this kind would say if it were honest.
fn words(way: Way) -> Vec<Vec<u8>> {
    match way {
        Way::Stranger => vec![connect(ProtocolVersion::V5, true), connect(ProtocolVersion::V311, false)],
        Way::Connected(version, _) => packets(version),
        Way::Upgrading => {
            vec![upgrade("/mqtt", "mqtt"), upgrade("/v1/devices/hostile/socket", "holdfast.v1")]
        }
        Way::WebSocket => {
            let packets = packets(ProtocolVersion::V5).into_iter().map(|packet| framed(0x2, &packet));
            packets.chain([framed(0x9, b"ping"), framed(0x8, &[3, 232])]).collect()
        }
        Way::Json => TEXTS.iter().map(|text| framed(0x1, text.as_bytes())).collect(),
    }
}

/// One stretch of what a peer sends.
#[derive(Clone, Debug)]
enum Stretch {
    Word(usize),
    /// Damaged by writing a byte over another.
    Damaged(usize, usize, u8),
    /// Broken off.
    Cut(usize, usize),
    Noise(Vec<u8>),
}

fn stretch() -> impl Strategy<Value = Stretch> {
    prop_oneof![
        6 => any::<usize>().prop_map(Stretch::Word),
        3 => (any::<usize>(), any::<usize>(), any::<u8>()).prop_map(|(word, at, byte)| Stretch::Damaged(word, at, byte)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(word, length)| Stretch::Cut(word, length)),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Stretch::Noise),
    ]
}

fn bytes_of(stretches: &[Stretch], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stretch in stretches {
        match stretch {
            Stretch::Word(word) => bytes.extend(&words[word % words.len()]),
            Stretch::Damaged(word, at, byte) => {
                let start = bytes.len();
                let word = &words[word % words.len()];
                bytes.extend(word);
                bytes[start + at % word.len()] = *byte;
            }
            Stretch::Cut(word, length) => {
                let word = &words[word % words.len()];
                bytes.extend(&word[..length % word.len()]);
            }
            Stretch::Noise(noise) => bytes.extend(noise),
        }
    }
    bytes
}

/// Comes so far that the bytes arrive where `way` says.
fn comes(shard: &mut Shard, way: Way) -> ConnectionId {
    let listener = match way {
        Way::Stranger | Way::Connected(..) => Listener::Mqtt,
        Way::Upgrading | Way::WebSocket | Way::Json => Listener::WebSocket,
    };
    let id = shard.engine.handle_accept(listener, shard.now).expect("there is room");
    match way {
        Way::Stranger | Way::Upgrading => {}
        Way::Connected(version, persistent) => shard.sends(id, &mut connect(version, persistent)),
        Way::WebSocket => {
            shard.sends(id, &mut upgrade("/mqtt", "mqtt"));
            shard.sends(id, &mut framed(0x2, &connect(ProtocolVersion::V5, true)));
        }
        Way::Json => {
            shard.sends(id, &mut upgrade("/v1/devices/hostile/socket?session_expiry_s=60", "holdfast.v1"));
        }
    }
    assert!(matches!(way, Way::Stranger | Way::Upgrading) || shard.engine.device("hostile").is_some());
    id
}

/// One peer says all this, `times` over, in pieces of these sizes.
fn endures(way: Way, stretches: &[Stretch], pieces: &[usize], times: usize) {
    let bytes = bytes_of(stretches, &words(way));
    let mut shard = Shard::new();
    let before = LIVE_BYTES.get();
    let mut sizes = pieces.iter().cycle();
    let mut id = comes(&mut shard, way);
    for _ in 0..times {
        let mut rest = bytes.clone();
        let mut left = &mut rest[..];
        while !left.is_empty() {
            let size = sizes.next().map_or(1, |size| size % left.len() + 1);
            let (piece, behind) = left.split_at_mut(size);
            shard.sends(id, piece);
            left = behind;
        }
        drop(rest);
        shard.publishes();
        shard.clock_advances_ms(100);
        let held = LIVE_BYTES.get() - before - bytes.capacity().cast_signed();
        assert!(held <= HELD_BYTES_MAX, "{way:?} makes the engine hold {held} bytes");
        if shard.closed.contains(&id) {
            // It comes again, as such peers do.
            shard.closed.clear();
            id = comes(&mut shard, way);
        }
    }
    shard.ends(id);
    // Timers of connections that are gone come up, and a persistent session expires; the store clears it away when it is asked next.
    shard.clock_advances_ms(300_000);
    let again = shard.engine.handle_accept(Listener::Mqtt, shard.now).expect("there is room");
    shard.sends(again, &mut connect(ProtocolVersion::V5, false));
    shard.ends(again);
    shard.clock_advances_ms(300_000);
    assert_eq!((shard.engine.connections(), shard.engine.half_open()), (0, 0));
    let left = LIVE_BYTES.get() - before;
    assert!(left <= LEFT_BYTES_MAX, "{way:?} leaves {left} bytes behind");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_peer_can_make_the_engine_panic_or_grow(
        way in prop::sample::select(&WAYS[..]),
        stretches in prop::collection::vec(stretch(), 1..40),
        pieces in prop::collection::vec(1..3_000_usize, 1..8),
    ) {
        endures(way, &stretches, &pieces, 2);
    }

    #[test]
    fn no_split_of_honest_bytes_matters(
        way in prop::sample::select(&WAYS[1..5]),
        pieces in prop::collection::vec(1..60_usize, 1..20),
    ) {
        let stretches: Vec<_> = (0..11).map(Stretch::Word).collect();
        endures(way, &stretches, &pieces, 1);
    }
}

#[test]
fn whoever_repeats_itself_for_long_is_held_no_more_than_before() {
    for way in WAYS {
        for word in 0..words(way).len() {
            endures(way, &[Stretch::Word(word)], &[70_000], 3_000);
        }
    }
}

#[test]
fn noise_in_any_amount_is_no_reason_to_panic() {
    for way in WAYS {
        for seed in 0..40_u64 {
            let mut state = seed;
            let noise = (0..4_000).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            });
            endures(way, &[Stretch::Noise(noise.collect())], &[1, 17, 4_096], 1);
        }
    }
}

#[test]
fn whoever_asks_for_much_waits_while_nobody_answers() {
    for way in [
        Way::Connected(ProtocolVersion::V311, false),
        Way::Connected(ProtocolVersion::V5, true),
        Way::WebSocket,
        Way::Json,
    ] {
        for word in words(way) {
            let mut shard = Shard::new();
            let before = LIVE_BYTES.get();
            let id = comes(&mut shard, way);
            shard.is_ignored = true;
            for _ in 0..20_000 {
                shard.sends(id, &mut word.clone());
            }
            let held = LIVE_BYTES.get() - before;
            assert!(held <= HELD_BYTES_MAX, "{way:?} makes the engine hold {held} bytes by {word:?}");
        }
    }
}
