//! A sink that takes nothing holds up frames and nothing else that a link brings.

mod shard;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::push::{PushOutcome, PushRequest, PushTarget};
use holdfast_bridge::sink::{Lane, OnSettled, Sent, Sink, SinkHealth, Verdict};
use holdfast_bridge::{Bridge, BridgeConfig, BridgeHandle};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{
    Handover, Hello, InterestKind, LINK_VERSION, Outcome, Report, Takeover, ToBridge, ToGateway, Uplink,
    WILL_BYTES_MAX, next_record,
};
use holdfast_wire::mqtt::{PacketId, QoS};
use shard::*;
use tokio::sync::Semaphore;

/// A sink that keeps all batches waiting until it is opened, and then takes them in the order in which they came.
#[derive(Clone)]
struct Gate {
    room: Arc<Semaphore>,
    /// Whoever waits for room. As every sink must, it lets one that comes just when there is room go behind one that was told of it and has not run.
    line: Arc<tokio::sync::Mutex<()>>,
    stored: Arc<Mutex<Vec<String>>>,
    /// Batches that wait or have waited.
    batches: Arc<AtomicUsize>,
}

struct GateLane {
    gate: Gate,
    gathered: Vec<String>,
}

impl Gate {
    fn closed() -> Self {
        Self {
            room: Arc::new(Semaphore::new(0)),
            line: Arc::default(),
            stored: Arc::default(),
            batches: Arc::default(),
        }
    }

    fn open(&self) {
        self.room.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn stored(&self) -> Vec<String> {
        self.stored.lock().unwrap().clone()
    }

    /// A bridge before it, and a shard one of whose frames waits for room.
    fn bridge(&self, config: BridgeConfig) -> (Rig, Shard) {
        let store = memory_store();
        let bridge = Bridge::start(config, Arc::clone(&store), Arc::new(self.clone())).unwrap();
        let rig = Rig { bridge, store, directory: tempfile::tempdir().unwrap() };
        let mut shard = rig.shard(1);
        shard.publish(uplink(1, "t", "1"));
        until("a frame waits for room", || self.batches.load(Ordering::SeqCst) == 1);
        (rig, shard)
    }
}

impl Sink for Gate {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(GateLane { gate: self.clone(), gathered: Vec::new() })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: self.room.available_permits() > 0, spool: None }
    }
}

impl Lane for GateLane {
    fn push(&mut self, frame: &LogRecord<'_>, _wants_receipt: bool) {
        self.gathered.push(text(&frame.message.payload[..frame.message.payload.len().min(8)]));
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let frames = std::mem::take(&mut self.gathered);
        Box::pin(async move {
            self.gate.batches.fetch_add(1, Ordering::SeqCst);
            let _turn = self.gate.line.lock().await;
            self.gate.room.acquire().await.unwrap().forget();
            let count = frames.len() as u32;
            self.gate.stored.lock().unwrap().extend(frames);
            settled(0..count, Verdict::Stored);
            Ok(())
        })
    }
}

fn by(client: &str, uplink: Uplink<'static>) -> Uplink<'static> {
    let mut uplink = uplink;
    uplink.message.publisher = Box::leak(client.into());
    uplink
}

fn handover(client: &str) -> ToBridge<'_> {
    ToBridge::Handover(Handover { client, epoch: Epoch(8), owner: owner(2), session: b"", owes_will: false })
}

fn handed_over(client: &str) -> Heard {
    Heard::Handover { client: client.into(), epoch: Epoch(8), session: vec![], owes_will: false }
}

fn push_in_background(bridge: &BridgeHandle, device: &str) -> std::thread::JoinHandle<PushOutcome> {
    let (bridge, target) = (bridge.clone(), PushTarget::Device(device.into()));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = PushRequest {
            target,
            topic: None,
            payload: b"x".to_vec(),
            qos: QoS::AtLeastOnce,
            ttl_s: None,
            content_type: None,
            retain: false,
            collapse_key: None,
            id: None,
            wait: Duration::from_secs(20),
        };
        runtime.block_on(bridge.push(request)).unwrap().outcome
    })
}

#[test]
fn all_that_is_no_frame_is_handled_behind_frames_that_wait() {
    let gate = Gate::closed();
    let (rig, mut shard) = gate.bridge(BridgeConfig::default());
    let mut other = rig.shard(2);
    for sequence in 2..=5 {
        shard.publish(uplink(sequence, "t", &sequence.to_string()));
    }
    shard.announce(InterestKind::Filter, "news/#", false);
    rig.session("d", owner(1), &[]);
    let pushed = push_in_background(&rig.bridge, "d");
    let Heard::Deliver { delivery, .. } = shard.hear() else { panic!("no delivery") };
    shard.say(&ToBridge::Report(Report { delivery, outcome: Outcome::Delivered }));
    assert_eq!(pushed.join().unwrap(), PushOutcome::Delivered);
    let takeover = Takeover { client: "c", epoch: Epoch(8), former: owner(2), owner: owner(1) };
    shard.say(&ToBridge::Takeover(takeover));
    assert_eq!(other.hear(), Heard::Takeover { client: "c".into(), epoch: Epoch(8) });
    shard.say(&handover("e"));
    assert_eq!(other.hear(), handed_over("e"));
    assert_eq!(gate.stored(), [""; 0]);
    gate.open();
    shard.until_settled(5);
    assert_eq!(gate.stored(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn who_subscribed_while_a_frame_waited_hears_it() {
    let gate = Gate::closed();
    let (_rig, mut shard) = gate.bridge(BridgeConfig::default());
    shard.publish(uplink(2, "news/1", "2"));
    shard.announce(InterestKind::Filter, "news/#", false);
    gate.open();
    while shard.hear() != Heard::deliver("subscribers", "news/1", "2") {}
}

#[test]
fn a_handover_does_not_overtake_frames_of_its_client() {
    let gate = Gate::closed();
    let (rig, mut former) = gate.bridge(BridgeConfig::default());
    let mut later = rig.shard(2);
    former.publish(by("c", uplink(2, "t", "2")));
    former.say(&handover("c"));
    former.say(&handover("e"));
    assert_eq!(later.hear(), handed_over("e"), "whose frames do not wait goes first");
    gate.open();
    assert_eq!(later.hear(), handed_over("c"));
    assert_eq!(gate.stored()[..2], ["1", "2"]);
}

#[test]
fn a_shard_with_a_full_window_is_heard_and_one_far_beyond_it_is_not_read_from() {
    let gate = Gate::closed();
    let config = BridgeConfig { window_bytes: 64 << 10, ..BridgeConfig::default() };
    let (_rig, mut shard) = gate.bridge(config);
    let payload = "x".repeat(64 << 10);
    shard.publish(uplink(2, "t", &payload));
    shard.announce(InterestKind::Filter, "news/#", false);

    let mut bytes = Vec::new();
    for sequence in 3..=400 {
        ToBridge::Uplink(uplink(sequence, "t", &payload)).encode(&mut bytes);
    }
    // 25 MiB: what neither the bridge nor the socket pair takes stays with the shard.
    let total = bytes.len();
    let mut stream = shard.stream.try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let written = loop {
        match stream.write(&bytes) {
            Ok(written) => {
                bytes.drain(..written);
            }
            Err(_) => break total - bytes.len(),
        }
    };
    assert!(written < 2 << 20, "{written} bytes were taken");
    gate.open();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&bytes));
    shard.until_settled(400);
    writer.join().unwrap().unwrap();
    assert_eq!(gate.stored().len(), 400);
}

#[test]
fn a_shard_is_heard_behind_as_many_wills_as_may_lie_beyond_its_window_and_no_more() {
    const WILL_BYTES: usize = 64 << 10;
    let gate = Gate::closed();
    let config = BridgeConfig { window_bytes: 64 << 10, ..BridgeConfig::default() };
    let (_rig, mut shard) = gate.bridge(config);
    let payload = "x".repeat(WILL_BYTES);
    let will = |sequence| {
        let mut will = uplink(sequence, "t", &payload);
        (will.packet_id, will.message.id) = (None, sequence);
        will
    };
    let wills = (WILL_BYTES_MAX / WILL_BYTES) as u64;
    for sequence in 2..2 + wills {
        shard.publish(will(sequence));
    }
    shard.announce(InterestKind::Filter, "news/#", false);

    let mut bytes = Vec::new();
    for sequence in 2 + wills..400 {
        ToBridge::Uplink(will(sequence)).encode(&mut bytes);
    }
    let total = bytes.len();
    let mut stream = shard.stream.try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Ok(written) = stream.write(&bytes) {
        bytes.drain(..written);
    }
    let written = total - bytes.len();
    assert!(written < 2 << 20, "{written} bytes more were taken");
    gate.open();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&bytes));
    shard.until_settled(399);
    writer.join().unwrap().unwrap();
}

/// The bridge takes a link for lost that is silent for 15 to 20 s; one that it does not read from is not silent.
#[test]
fn a_link_outlasts_a_tcp_window_of_zero() {
    const FRAMES: u64 = 400;
    const STANDSTILL: Duration = Duration::from_secs(21);
    let gate = Gate::closed();
    let config = BridgeConfig { window_bytes: 64 << 10, ..BridgeConfig::default() };
    let (rig, _other) = gate.bridge(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    rig.bridge.listen(listener).unwrap();
    let mut bytes = Vec::new();
    let hello = Hello { version: LINK_VERSION, shard: owner(3), receive_maximum: 32, secret: b"" };
    ToBridge::Hello(hello).encode(&mut bytes);
    let payload = "x".repeat(64 << 10);
    for sequence in 1..=FRAMES {
        let mut uplink = uplink(sequence, "t", &payload);
        uplink.message.publisher = "another";
        ToBridge::Uplink(uplink).encode(&mut bytes);
    }
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut taken_at = Instant::now();
    while taken_at.elapsed() < STANDSTILL {
        match stream.write(&bytes) {
            Ok(written) => {
                bytes.drain(..written);
                taken_at = Instant::now();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "the link stands"),
        }
    }
    assert!(!bytes.is_empty(), "all was read");
    gate.open();
    let mut listening = stream.try_clone().unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&bytes));
    listening.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut heard, mut chunk, mut settled) = (Vec::new(), vec![0; 64 << 10], 0);
    while settled < FRAMES {
        let length = listening.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "the link stands");
        heard.extend_from_slice(&chunk[..length]);
        let mut rest = &heard[..];
        while let Some(raw) = next_record(&mut rest).unwrap() {
            if let ToGateway::Settled(run) = ToGateway::decode(raw).unwrap() {
                settled += run.last - run.first + 1;
            }
        }
        let passed = heard.len() - rest.len();
        heard.drain(..passed);
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn of_frames_that_wait_when_their_shard_closes_the_link_those_are_stored_that_nobody_sends_again() {
    let gate = Gate::closed();
    let (rig, mut shard) = gate.bridge(BridgeConfig::default());
    let mut other = rig.shard(2);
    let unacknowledged = |mut uplink: Uplink<'static>| {
        (uplink.packet_id, uplink.message.qos) = (None, QoS::AtMostOnce);
        uplink
    };
    shard.publish(unacknowledged(uplink(2, "t", "2")));
    // Its gateway has sent it over another link by the time that there is room.
    shard.publish(uplink(3, "t", "3"));
    shard.publish(unacknowledged(uplink(4, "t", "it would overtake the third")));
    shard.publish(by("another", unacknowledged(uplink(5, "t", "5"))));
    shard.say(&handover("e"));
    assert_eq!(other.hear(), handed_over("e"), "all before it was read");
    drop(shard);
    // The bridge answers in its place as soon as it knows that it is gone.
    let mut asks = Vec::new();
    let takeover = Takeover { client: "c", epoch: Epoch(8), former: owner(1), owner: owner(2) };
    ToBridge::Takeover(takeover).encode(&mut asks);
    let mut asking = other.stream.try_clone().unwrap();
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                asking.write_all(&asks).unwrap();
                // Again and again, and not so fast that nothing else runs.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert_ne!(other.hear(), Heard::Closed);
        answered.store(true, Ordering::Relaxed);
    });
    gate.open();
    assert!(rig.bridge.shutdown(DEADLINE), "all that is to be stored is");
    assert_eq!(gate.stored(), ["1", "2", "5"]);
}

#[test]
fn frames_that_wait_on_a_link_that_is_replaced_are_taken_from_the_new_one() {
    let gate = Gate::closed();
    let (rig, mut shard) = gate.bridge(BridgeConfig::default());
    let mut other = rig.shard(2);
    let frame = |sequence: u64, qos| {
        let mut uplink = uplink(sequence, "t", ["", "1", "2", "3"][sequence as usize]);
        uplink.message.qos = qos;
        uplink.packet_id = PacketId::new(sequence as u16).filter(|_| qos > QoS::AtMostOnce);
        uplink
    };
    shard.publish(frame(2, QoS::AtLeastOnce));
    shard.publish(frame(3, QoS::AtMostOnce));
    shard.say(&handover("e"));
    assert_eq!(other.hear(), handed_over("e"), "all before it was read");
    let mut newer = rig.shard(1);
    while shard.hear() != Heard::Closed {}
    newer.publish(Uplink { resent: true, ..frame(1, QoS::AtLeastOnce) });
    newer.publish(Uplink { sequence: 2, resent: true, ..frame(2, QoS::AtLeastOnce) });
    until("it waits behind the first", || gate.batches.load(Ordering::SeqCst) == 2);
    gate.open();
    newer.until_settled(2);
    assert_eq!(gate.stored(), ["1", "2"]);
}

#[test]
fn a_bridge_that_drains_settles_what_waits_and_tells() {
    let gate = Gate::closed();
    let (rig, mut shard) = gate.bridge(BridgeConfig::default());
    for sequence in 2..=5 {
        shard.publish(uplink(sequence, "t", &sequence.to_string()));
    }
    shard.announce(InterestKind::Filter, "news/#", false);
    let mut idle = rig.shard(2);
    let bridge = rig.bridge.clone();
    let drained = std::thread::spawn(move || bridge.shutdown(DEADLINE));
    assert_eq!(idle.hear(), Heard::Closed, "the bridge drains");
    gate.open();
    shard.until_settled(5);
    assert_eq!(shard.hear(), Heard::Closed);
    assert!(drained.join().unwrap());
    assert_eq!(gate.stored(), ["1", "2", "3", "4", "5"]);
}
