//! Conversations on the way up: frames are settled once they are where they have to be, and not before.

mod shard;

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, OnSettled, Receipt, Sent, Sink, SinkHealth, Verdict};
use holdfast_bridge::{Bridge, BridgeConfig, SinkName, TopicRule};
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Hello, InterestKind, LINK_VERSION, Settled, ToBridge, Uplink};
use holdfast_wire::mqtt::{PacketId, QoS, ReasonCode};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};
use shard::*;

#[test]
fn a_settled_frame_is_in_the_log() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    for sequence in 1..=1_000 {
        shard.publish(uplink(sequence, "accel", &sequence.to_string()));
    }
    shard.until_settled(1_000);
    assert_eq!(rig.logged(), (1..=1_000).map(|sequence| sequence.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_link_of_another_version_or_with_another_secret_is_told_how_to_mend_it() {
    let config = BridgeConfig { link_secret: b"secret".to_vec(), ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    for (version, secret) in
        [(LINK_VERSION + 1, &b"secret"[..]), (LINK_VERSION, b"wrong!"), (LINK_VERSION, b"")]
    {
        let mut shard = Shard::dial(&rig.bridge, 1);
        shard.say(&ToBridge::Hello(Hello { version, shard: owner(1), receive_maximum: 32, secret }));
        let Heard::Refused(why) = shard.hear() else { panic!("not refused") };
        assert!(why.contains("same release") || why.contains("link.secret"), "{why}");
        assert_eq!(shard.hear(), Heard::Closed);
    }
}

#[test]
fn garbage_costs_only_its_own_link() {
    let rig = Rig::start();
    let mut good = rig.shard(1);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[1, 0, 0, 0, 99], &[2, 0, 0, 0, 2, 2]] {
        let mut bad = rig.shard(2);
        // What came before it is still seen through.
        bad.publish(uplink(1, "t", "before"));
        bad.stream.write_all(garbage).unwrap();
        while bad.hear() != Heard::Closed {}
    }
    let mut endless = Shard::dial(&rig.bridge, 3);
    // A record of 200 MiB is announced by someone who has not said who it is.
    let _ = endless.stream.write_all(&(200_u32 << 20).to_le_bytes());
    let _ = endless.stream.write_all(&vec![1; 1 << 20]);
    assert_eq!(endless.hear(), Heard::Closed);
    let mut early = Shard::dial(&rig.bridge, 3);
    early.publish(uplink(1, "t", "before hello"));
    assert_eq!(early.hear(), Heard::Closed);
    good.publish(uplink(1, "t", "after"));
    good.until_settled(1);
    assert_eq!(rig.logged(), ["before", "before", "before", "before", "after"]);
}

#[test]
fn a_frame_sent_again_is_not_stored_again_whatever_link_it_takes() {
    let rig = Rig::start();
    let mut first = rig.shard(1);
    first.publish(uplink(1, "t", "x"));
    first.until_settled(1);
    first.publish(uplink(2, "t", "x"));
    first.until_settled(1);

    let mut second = rig.shard(2);
    let again = |sequence, packet_id, dup, resent| {
        let mut uplink = uplink(sequence, "t", "x");
        uplink.packet_id = PacketId::new(packet_id);
        (uplink.dup, uplink.resent) = (dup, resent);
        uplink
    };
    second.publish(again(1, 1, true, false));
    second.publish(again(2, 2, false, true));
    second.until_settled(2);
    assert_eq!(rig.logged(), ["x", "x"], "the packet ids 1 and 2, each once");
    second.publish(again(3, 1, false, false));
    second.until_settled(1);
    assert_eq!(rig.logged().len(), 3, "without a mark it is a new frame");
}

#[test]
fn an_original_that_is_read_behind_its_copy_is_not_stored_again() {
    let rig = Rig::start();
    let (mut former, mut later) = (rig.shard(1), rig.shard(2));
    later.publish(Uplink { dup: true, epoch: Epoch(2), ..uplink(1, "t", "1") });
    later.publish(Uplink { epoch: Epoch(2), ..uplink(2, "t", "2") });
    later.until_settled(2);
    former.publish(uplink(1, "t", "1"));
    former.until_settled(1);
    assert_eq!(rig.logged(), ["1", "2"]);
}

#[test]
fn a_former_owner_that_wakes_up_late_writes_nothing() {
    const LATER: u16 = 50;
    let rig = Rig::start();
    let (mut former, mut later) = (rig.shard(1), rig.shard(2));
    for number in 1..=LATER {
        let text = number.to_string();
        let uplink = Uplink { dup: number == 1, epoch: Epoch(2), ..uplink(u64::from(number), "t", &text) };
        later.publish(Uplink { packet_id: PacketId::new(number), ..uplink });
        later.until_settled(1);
    }
    // Its copy is forgotten by now, or there never was one.
    former.publish(uplink(1, "t", "1"));
    former.publish(Uplink { packet_id: PacketId::new(60_000), ..uplink(2, "t", "lost") });
    let mut refused = 0;
    while refused < 2 {
        let Heard::Settled(run) = former.hear() else { panic!("not settled") };
        assert_eq!(run.reason_code, u8::from(ReasonCode::SessionTakenOver));
        refused = run.last;
    }
    assert_eq!(rig.logged(), (1..=LATER).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn traffic_between_devices_leaves_the_log_alone() {
    let config = BridgeConfig {
        topic_map: vec![TopicRule { filter: "chat/#".into(), sink: SinkName::None }],
        ..BridgeConfig::default()
    };
    let rig = Rig::start_with(config, memory_store());
    let mut shard = rig.shard(1);
    shard.publish(uplink(1, "chat/1", "hello"));
    shard.publish(uplink(2, "accel", "1"));
    shard.until_settled(2);
    assert_eq!(rig.logged(), ["1"]);
}

#[test]
fn traffic_between_devices_is_heard_and_settled_though_no_sink_speaks_of_it() {
    let config = BridgeConfig {
        topic_map: vec![TopicRule { filter: "chat/#".into(), sink: SinkName::None }],
        ..BridgeConfig::default()
    };
    let rig = Rig::start_with(config, memory_store());
    let mut shard = rig.shard(1);
    shard.announce(InterestKind::Filter, "chat/#", false);
    for sequence in 1..=3 {
        shard.publish(uplink(sequence, "chat/1", "hello"));
        assert_eq!(shard.hear(), Heard::deliver("subscribers", "chat/1", "hello"));
        assert_eq!(shard.hear(), Heard::Settled(stored(sequence, sequence)));
    }
}

/// A store that answers with errors before it works.
struct Flaky {
    store: Arc<dyn Store>,
    failures: AtomicU32,
    error: StoreError,
}

impl Store for Flaky {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let writes = matches!(request, Request::Append { .. } | Request::Retain { .. });
        let fails = |left: u32| left.checked_sub(1);
        if writes && self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return reply(Err(self.error.clone()));
        }
        self.store.submit(request, reply);
    }
}

fn flaky(failures: u32, error: StoreError) -> Rig {
    let store = Flaky { store: memory_store(), failures: failures.into(), error };
    Rig::start_with(BridgeConfig::default(), Arc::new(store))
}

#[test]
fn a_frame_for_persistent_sessions_is_settled_once_their_stream_has_it() {
    let rig = flaky(3, StoreError::Unavailable("away".into()));
    let mut shard = rig.shard(1);
    rig.session("reader", owner(7), &["alerts/#"]);
    shard.announce(InterestKind::Filter, "alerts/#", true);
    shard.publish(uplink(1, "alerts/fire", "now"));
    shard.publish(uplink(2, "accel", "1"));
    // The frame that owes nothing to the store does not wait for the one that does.
    assert_eq!(shard.hear(), Heard::Settled(stored(2, 2)));
    let Heard::Deliver { positions, .. } = shard.hear() else { panic!("no delivery") };
    let stream = StreamKey::Filter("alerts/#".into());
    assert_eq!(positions.len(), 1);
    assert_eq!(positions[0].stream, stream);
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
    assert_eq!(rig.stream(stream), ["now"]);
}

/// A store that lost its data a moment ago, for as long as the story says so.
struct Emptied {
    store: Arc<dyn Store>,
    has_just_begun: AtomicBool,
}

impl Store for Emptied {
    fn submit(&self, request: Request, reply: ReplyTo) {
        self.store.submit(request, reply);
    }

    fn has_just_begun(&self) -> bool {
        self.has_just_begun.load(Ordering::SeqCst)
    }
}

fn emptied() -> (Rig, Arc<Emptied>) {
    let store = Arc::new(Emptied { store: memory_store(), has_just_begun: true.into() });
    (Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>), store)
}

#[test]
fn a_frame_waits_for_a_stream_that_a_store_has_lost_and_is_about_to_be_given_back() {
    let (rig, _) = emptied();
    let mut shard = rig.shard(1);
    shard.announce(InterestKind::Filter, "alerts/#", true);
    rig.session("other", owner(7), &["alerts/fire"]);
    shard.announce(InterestKind::Filter, "alerts/fire", true);
    shard.publish(uplink(1, "alerts/fire", "1"));
    shard.publish(uplink(2, "alerts/fire", "2"));
    shard.publish(uplink(3, "accel", "what owes nothing to the store"));
    assert_eq!(shard.hear(), Heard::Settled(stored(3, 3)));
    rig.session("reader", owner(7), &["alerts/#"]);
    let mut delivered = Vec::new();
    loop {
        match shard.hear() {
            Heard::Deliver { positions, payload, .. } => delivered.push((positions.len(), payload)),
            Heard::Settled(settled) if settled.last == 2 => break,
            Heard::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, [(2, "1".to_owned()), (2, "2".to_owned())]);
    for filter in ["alerts/#", "alerts/fire"] {
        assert_eq!(rig.stream(StreamKey::Filter(filter.into())), ["1", "2"]);
    }
}

#[test]
fn a_frame_waits_for_a_device_that_a_store_has_lost_and_is_about_to_be_given_back() {
    let (rig, _) = emptied();
    let mut shard = rig.shard(7);
    shard.announce(InterestKind::Personal { level: 1 }, "devices/+/push", true);
    shard.publish(uplink(1, "devices/d/push", "for d"));
    shard.publish(uplink(2, "accel", "what owes nothing to the store"));
    assert_eq!(shard.hear(), Heard::Settled(stored(2, 2)));
    rig.session("d", shard.owner, &["devices/d/push"]);
    let Heard::Deliver { positions, payload, .. } = shard.hear() else { panic!("no delivery") };
    assert_eq!((positions.len(), &*payload), (1, "for d"));
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
}

#[test]
fn nobody_waits_for_streams_once_everyone_has_had_the_time_to_come_back() {
    let (rig, store) = emptied();
    let mut shard = rig.shard(1);
    shard.announce(InterestKind::Filter, "alerts/#", true);
    shard.publish(uplink(1, "alerts/fire", "now"));
    shard.publish(uplink(2, "accel", "1"));
    assert_eq!(shard.hear(), Heard::Settled(stored(2, 2)));
    store.has_just_begun.store(false, Ordering::SeqCst);
    let Heard::Deliver { positions, .. } = shard.hear() else { panic!("no delivery") };
    assert_eq!(positions, []);
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
}

/// A session takes two messages with one id for one message that stands in two streams.
#[test]
fn no_two_messages_have_one_id_whichever_bridge_took_them() {
    const FRAMES: u64 = 400;
    let first = Rig::start();
    let second = Rig::start_with(BridgeConfig::default(), Arc::clone(&first.store));
    first.session("reader", owner(7), &["accel/#"]);
    let shards = [(&first, 1), (&second, 2)].map(|(rig, node)| {
        let mut shard = rig.shard(node);
        shard.announce(InterestKind::Filter, "accel/#", true);
        shard
    });
    std::thread::scope(|scope| {
        for mut shard in shards {
            scope.spawn(move || {
                for sequence in 1..=FRAMES {
                    shard.publish(uplink(sequence, "accel/x", "1"));
                    shard.until_settled(1);
                }
            });
        }
    });
    let stream = StreamKey::Filter("accel/#".into());
    let read = Request::Read { stream, after: 0, messages_max: 10_000, bytes_max: 1 << 30 };
    let Ok(Reply::Messages { messages, .. }) = first.ask(read) else { panic!("the stream is read") };
    assert_eq!(messages.len() as u64, 2 * FRAMES);
    let ids: HashSet<_> = messages.iter().map(|(_, message)| message.view().id).collect();
    assert_eq!(ids.len(), messages.len());
}

#[test]
fn what_the_store_refuses_for_good_is_told_to_the_publisher() {
    let rig = flaky(1, StoreError::Unreadable("damage".into()));
    let mut shard = rig.shard(1);
    let mut retained = uplink(1, "t", "x");
    retained.message.retain = true;
    shard.publish(retained);
    assert_eq!(shard.hear(), Heard::Settled(Settled { first: 1, last: 1, reason_code: 0x83 }));
}

#[test]
fn a_full_store_holds_frames_back_and_refuses_none() {
    let rig = flaky(3, StoreError::Full("disk".into()));
    let mut shard = rig.shard(1);
    rig.session("reader", owner(7), &["alerts/#"]);
    shard.announce(InterestKind::Filter, "alerts/#", true);
    let mut retained = uplink(1, "alerts/fire", "kept");
    retained.message.retain = true;
    shard.publish(retained);
    shard.until_settled(1);
    assert_eq!(rig.stream(StreamKey::Filter("alerts/#".into())), ["kept"]);
    let page =
        Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9, bytes_max: u32::MAX };
    let Ok(Reply::Retained(kept)) = rig.ask(page) else { panic!("retained messages are read") };
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_frame_that_the_store_is_asked_for_again_keeps_its_place() {
    // The store is back as soon as it has refused once: whatever asks next would be first.
    let rig = flaky(1, StoreError::Unavailable("away".into()));
    let mut shard = rig.shard(1);
    rig.session("reader", owner(7), &["alerts/#"]);
    shard.announce(InterestKind::Filter, "alerts/#", true);
    let payloads: Vec<_> = (1..=200).map(|sequence| sequence.to_string()).collect();
    for (sequence, payload) in (1..).zip(&payloads) {
        let mut uplink = uplink(sequence, "alerts/fire", payload);
        uplink.message.retain = true;
        shard.publish(uplink);
    }
    shard.until_settled(200);
    assert_eq!(rig.stream(StreamKey::Filter("alerts/#".into())), payloads);
    let page =
        Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9, bytes_max: u32::MAX };
    let Ok(Reply::Retained(kept)) = rig.ask(page) else { panic!("retained messages are read") };
    assert_eq!(text(kept[0].view().payload), "200", "the last one is kept");
}

/// A sink that is told by the test what becomes of each frame.
#[derive(Clone, Default)]
struct Manual(Arc<Mutex<Vec<Held>>>);

struct Held {
    payload: String,
    batch: Arc<Mutex<OnSettled>>,
    at: u32,
}

#[derive(Default)]
struct ManualLane {
    gathered: Vec<String>,
    sink: Manual,
}

impl Manual {
    fn payloads(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|held| held.payload.clone()).collect()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn settle(&self, frame: usize, verdict: Verdict) {
        let held = self.0.lock().unwrap();
        let Held { batch, at, .. } = &held[frame];
        batch.lock().unwrap()(*at..at + 1, verdict);
    }
}

impl Sink for Manual {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(ManualLane { sink: self.clone(), ..ManualLane::default() })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }
}

impl Lane for ManualLane {
    fn push(&mut self, frame: &LogRecord<'_>, _wants_receipt: bool) {
        self.gathered.push(text(frame.message.payload));
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        let batch = Arc::new(Mutex::new(settled));
        let mut held = self.sink.0.lock().unwrap();
        for (at, payload) in (0..).zip(self.gathered.drain(..)) {
            held.push(Held { payload, batch: Arc::clone(&batch), at });
        }
        Box::pin(async { Ok(()) })
    }
}

/// The same without room for what is called so.
struct Narrow(Manual);

struct NarrowLane {
    lane: Box<dyn Lane>,
    is_full: bool,
}

impl Sink for Narrow {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(NarrowLane { lane: self.0.lane(), is_full: false })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }
}

impl Lane for NarrowLane {
    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        self.is_full |= frame.message.payload == b"no room";
        self.lane.push(frame, wants_receipt);
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        let sent = self.lane.send(settled);
        if self.is_full { Box::pin(std::future::pending()) } else { sent }
    }
}

#[test]
fn what_is_stored_is_told_while_the_sink_has_no_room_for_more() {
    let sink = Manual::default();
    let narrow = Arc::new(Narrow(sink.clone()));
    let bridge = Bridge::start(BridgeConfig::default(), memory_store(), narrow).unwrap();
    let mut shard = Shard::open(&bridge, 1);
    shard.publish(uplink(1, "t", "1"));
    until("it is taken", || sink.count() == 1);
    shard.publish(uplink(2, "t", "no room"));
    until("it waits", || sink.count() == 2);
    sink.settle(0, Verdict::Stored);
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
    sink.settle(1, Verdict::Stored);
    assert_eq!(shard.hear(), Heard::Settled(stored(2, 2)));
}

#[test]
fn a_frame_sent_again_while_pending_is_settled_with_the_first_and_refusals_keep_their_code() {
    let sink = Manual::default();
    let bridge = Bridge::start(BridgeConfig::default(), memory_store(), Arc::new(sink.clone())).unwrap();
    let mut first = Shard::open(&bridge, 1);
    for sequence in 1..=3 {
        first.publish(uplink(sequence, "t", &sequence.to_string()));
    }
    until("three frames reach the sink", || sink.count() == 3);
    // The link is lost; the shard sends what is unsettled over a new one.
    drop(first);
    let mut second = Shard::open(&bridge, 1);
    for sequence in 1..=3 {
        second.publish(Uplink { resent: true, ..uplink(sequence, "t", &sequence.to_string()) });
    }
    second.publish(uplink(4, "t", "4"));
    until("the new frame reaches the sink", || sink.count() == 4);
    assert_eq!(sink.payloads(), ["1", "2", "3", "4"]);

    sink.settle(3, Verdict::Stored);
    assert_eq!(second.hear(), Heard::Settled(stored(4, 4)), "it does not wait for those before it");
    sink.settle(0, Verdict::Refused(0x97));
    assert_eq!(second.hear(), Heard::Settled(Settled { first: 1, last: 1, reason_code: 0x97 }));
    sink.settle(2, Verdict::Stored);
    assert_eq!(second.hear(), Heard::Settled(stored(3, 3)));
    sink.settle(1, Verdict::Stored);
    assert_eq!(second.hear(), Heard::Settled(stored(2, 2)));
}

#[test]
fn a_shard_beyond_its_window_is_not_read_from() {
    let sink = Manual::default();
    let config = BridgeConfig { window_bytes: 64 << 10, ..BridgeConfig::default() };
    let bridge = Bridge::start(config, memory_store(), Arc::new(sink.clone())).unwrap();
    let mut shard = Shard::open(&bridge, 1);
    let payload = "x".repeat(8 << 10);
    let mut bytes = Vec::new();
    for sequence in 1..=4_000 {
        ToBridge::Uplink(uplink(sequence, "t", &payload)).encode(&mut bytes);
    }
    // 32 MiB: the socket pair takes some hundred KiB of it, the bridge its window and one read.
    let mut stream = shard.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&bytes));
    until("the window is used up", || sink.count() >= 8);
    // Each settled frame makes room for another one; nothing is taken but for what is settled.
    let mut settled = 0;
    while settled < 4_000 {
        until("a frame reaches the sink", || sink.count() > settled);
        assert!(sink.count() - settled <= 8 + 64 + 1, "more than the window and one read is held");
        sink.settle(settled, Verdict::Stored);
        settled += 1;
    }
    shard.until_settled(4_000);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_drained_bridge_has_settled_and_told_everything_it_took() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    for sequence in 1..=100 {
        shard.publish(uplink(sequence, "t", "x"));
    }
    let Heard::Settled(first) = shard.hear() else { panic!() };
    assert!(rig.bridge.shutdown(DEADLINE));
    let mut settled = first.last;
    loop {
        match shard.hear() {
            Heard::Settled(run) => settled += run.last - run.first + 1,
            Heard::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.logged().len() as u64, settled);
    let mut late = Shard::dial(&rig.bridge, 2);
    assert_eq!(late.hear(), Heard::Closed);
}

#[test]
fn frames_with_qos_0_are_settled_too() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    for sequence in 1..=3 {
        let mut uplink = uplink(sequence, "t", "x");
        (uplink.packet_id, uplink.message.qos) = (None, QoS::AtMostOnce);
        shard.publish(uplink);
    }
    shard.until_settled(3);
    assert_eq!(rig.logged().len(), 3);
}

#[test]
fn a_frame_that_asked_hears_where_it_is_kept_also_when_it_is_sent_again() {
    let sink = Manual::default();
    let bridge = Bridge::start(BridgeConfig::default(), memory_store(), Arc::new(sink.clone())).unwrap();
    let mut shard = Shard::open(&bridge, 1);
    let asking = Uplink { wants_receipt: true, ..uplink(1, "t", "1") };
    shard.publish(asking);
    shard.publish(uplink(2, "t", "2"));
    until("two frames reach the sink", || sink.count() == 2);
    let receipt = |offset| Verdict::StoredAt(Receipt { topic: "frames".into(), partition: 3, offset });
    sink.settle(0, receipt(8));
    let at = |sequence, duplicate| Heard::SettledAt(sequence, duplicate, "frames".into(), 3, 8);
    assert_eq!(shard.hear(), at(1, false));
    sink.settle(1, receipt(9));
    assert_eq!(shard.hear(), Heard::Settled(stored(2, 2)), "it did not ask");
    let mut again = Uplink { sequence: 3, dup: true, ..asking };
    shard.publish(again);
    assert_eq!(shard.hear(), at(3, true));
    (again.sequence, again.wants_receipt) = (4, false);
    shard.publish(again);
    assert_eq!(shard.hear(), Heard::Settled(stored(4, 4)));
    assert_eq!(sink.count(), 2);
}

#[test]
fn the_log_gives_receipts_too() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    shard.publish(Uplink { wants_receipt: true, ..uplink(1, "t", "1") });
    assert_eq!(shard.hear(), Heard::SettledAt(1, false, "log".into(), 0, 1));
}
