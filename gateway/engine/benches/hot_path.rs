//! What the engine costs for each message, without sockets: CPU time and allocations, and the heap of idle connections.
//!
//! `cargo bench -p holdfast-engine` prints one line for each measure.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench measures real time; the engine has none"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use holdfast_engine::{Action, ConnectionId, Engine, EngineConfig, LinkIndex, Listener, Now, RequestId};
use holdfast_wire::ids::{BridgeId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::link::{
    Deliver, InterestKind, Settled, Target, ToBridge, ToGateway, Welcome, next_record,
};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, Subscribe,
    SubscribeProperties, SubscriptionOptions,
};
use holdfast_wire::store::{Opened, Reply, Request};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const LINK: LinkIndex = LinkIndex(0);
const CONNECTIONS: usize = 5_000;
const ROUNDS: usize = 100;

fn now() -> Now {
    Now { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 }
}

/// An engine with connected clients, and the answers that store and bridge owe it.
struct Shard {
    engine: Engine,
    connections: Vec<ConnectionId>,
    epoch: u64,
    next_settled: u64,
}

impl Shard {
    fn new() -> Self {
        let owner = Owner { node: NodeId(1), shard: ShardId(0) };
        let mut engine = Engine::new(EngineConfig::default(), owner, 1, 7);
        let welcome = Welcome { version: 1, bridge: BridgeId(1), window_bytes: u32::MAX };
        engine.handle_link_up(LINK, welcome, now());
        Self { engine, connections: Vec::new(), epoch: 0, next_settled: 1 }
    }

    fn connect(&mut self, client: &str) {
        let id = self.engine.handle_accept(Listener::Mqtt, now()).expect("there is room");
        let mut bytes = Vec::new();
        let connect = Connect {
            version: ProtocolVersion::V311,
            clean_start: true,
            keep_alive_s: 60,
            client_id: client,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        connect.encode(&mut bytes);
        self.engine.handle_bytes(id, &mut bytes, now());
        self.answer();
        self.connections.push(id);
    }

    /// Answers what the store was asked and what the bridge was told.
    fn answer(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            if let Action::Store { request, body: Request::Open { .. } } = action {
                self.epoch += 1;
                let opened = Opened { epoch: Epoch(self.epoch), session: None, former: None, will: None };
                self.reply(request, Reply::Opened(opened));
            }
        }
        let output = std::mem::take(self.engine.link_output(LINK));
        let mut bytes = &output[..];
        while let Some(raw) = next_record(&mut bytes).expect("the engine writes whole records") {
            if let Ok(ToBridge::Interest(interest)) = ToBridge::decode(raw) {
                assert!(matches!(interest.kind, InterestKind::Filter | InterestKind::Personal { .. }));
                self.engine.handle_link_record(LINK, &ToGateway::InterestKnown(interest.token), now());
            }
        }
        self.engine.flush(|_, bytes| {
            black_box(bytes);
        });
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.engine.handle_store_reply(request, Ok(reply), now());
    }

    fn publish_everywhere(&mut self, packet: &[u8], scratch: &mut Vec<u8>) {
        for at in 0..self.connections.len() {
            scratch.clear();
            scratch.extend_from_slice(packet);
            self.engine.handle_bytes(self.connections[at], scratch, now());
        }
        black_box(self.engine.link_output(LINK)).clear();
        let last = self.next_settled + self.connections.len() as u64 - 1;
        let settled = Settled { first: self.next_settled, last, reason_code: 0 };
        self.next_settled = last + 1;
        self.engine.handle_link_record(LINK, &ToGateway::Settled(settled), now());
        self.engine.flush(|_, bytes| {
            black_box(bytes);
        });
    }
}

fn publish(qos: QoS) -> Vec<u8> {
    let mut packet = Vec::new();
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: "plant/7/line/3/temperature",
        packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: PublishProperties::default(),
        payload: &[7; 128],
    };
    publish.encode(ProtocolVersion::V311, &mut packet);
    packet
}

/// Runs `work` and prints nanoseconds and allocations for each of its units.
fn measure(name: &str, units: usize, mut work: impl FnMut()) {
    work();
    let allocations = ALLOCATIONS.load(Relaxed);
    let started = Instant::now();
    work();
    let elapsed = started.elapsed();
    let allocations = ALLOCATIONS.load(Relaxed) - allocations;
    println!(
        "{name:<52} {:>8.0} ns {:>8.2} allocations",
        elapsed.as_nanos() as f64 / units as f64,
        allocations as f64 / units as f64
    );
}

fn main() {
    let mut shard = Shard::new();
    let client = |number: usize| format!("device-{number:06}");
    (0..1_000).for_each(|number| shard.connect(&client(number)));
    let before = LIVE_BYTES.load(Relaxed);
    (1_000..CONNECTIONS).for_each(|number| shard.connect(&client(number)));
    let each = (LIVE_BYTES.load(Relaxed) - before) as f64 / (CONNECTIONS - 1_000) as f64;
    println!("{:<52} {each:>8.0} bytes of heap, without the allocator's own", "an idle MQTT connection");

    let mut scratch = Vec::new();
    for (name, qos) in
        [("QoS 0 up", QoS::AtMostOnce), ("QoS 1 up, settled and acknowledged", QoS::AtLeastOnce)]
    {
        let packet = publish(qos);
        measure(name, ROUNDS * CONNECTIONS, || {
            (0..ROUNDS).for_each(|_| shard.publish_everywhere(&packet, &mut scratch));
        });
    }

    for at in 0..shard.connections.len() {
        let mut bytes = Vec::new();
        let filters = [("news/#", SubscriptionOptions::at(QoS::AtMostOnce))];
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: SubscribeProperties::default(),
            filters: filters[..].into(),
        };
        subscribe.encode(ProtocolVersion::V311, &mut bytes);
        shard.engine.handle_bytes(shard.connections[at], &mut bytes, now());
        shard.answer();
    }
    let news = Message {
        id: 1,
        topic: "news/sport",
        qos: QoS::AtMostOnce,
        retain: false,
        publisher: "",
        published_at_ms: 0,
        expires_at_ms: 0,
        properties: &[],
        payload: &[7; 128],
    };
    let deliver = ToGateway::Deliver(Deliver {
        delivery: 0,
        target: Target::Subscribers,
        positions: Vec::new(),
        message: news,
    });
    measure("QoS 0 down, one message to all, each delivery", ROUNDS * CONNECTIONS, || {
        for _ in 0..ROUNDS {
            shard.engine.handle_link_record(LINK, &deliver, now());
            while shard.engine.has_work() {
                shard.engine.handle_work(now());
                shard.engine.flush(|_, bytes| {
                    black_box(bytes);
                });
            }
            shard.engine.flush(|_, bytes| {
                black_box(bytes);
            });
        }
    });
}
