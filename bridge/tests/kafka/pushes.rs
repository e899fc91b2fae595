//! Pushes that come as records, their receipts, and the book of events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::config::{EventsConfig, PushConfig, PushTopicConfig};
use holdfast_bridge::kafka::{KafkaConfig, KafkaPushes, keep_events};
use holdfast_bridge::push::{PushRequest, PushTarget};
use holdfast_store::{Bounds, MemoryStore, ReplyTo, Store, StreamBounds, clock};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Event, EventKind, InterestKind, Outcome, ToBridge};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Record, count, create, name, read, shared, until};
use crate::shard::{Delivered, Heard, Rig, Shard, memory_store, owner};

/// A bridge that reads a topic of its own.
struct Way {
    rig: Rig,
    kafka: KafkaConfig,
    config: PushTopicConfig,
    reading: Option<KafkaPushes>,
}

impl Way {
    fn start() -> Self {
        Self::start_with(PushTopicConfig::default(), BridgeConfig::default(), memory_store())
    }

    fn start_with(mut config: PushTopicConfig, bridge: BridgeConfig, store: Arc<dyn Store>) -> Self {
        let (topic, receipts) = (name("pushes"), name("receipts"));
        create(&shared().brokers, &topic, &[]);
        create(&shared().brokers, &receipts, &[]);
        config.group.clone_from(&topic);
        (config.topic, config.receipts) = (topic, receipts);
        let kafka = KafkaConfig { brokers: shared().brokers.clone(), ..KafkaConfig::default() };
        let rig = Rig::start_with(bridge, store);
        let mut way = Self { rig, kafka, config, reading: None };
        way.read();
        way
    }

    fn read(&mut self) {
        self.reading = Some(KafkaPushes::start(&self.rig.bridge, &self.kafka, &self.config).unwrap());
    }

    fn ask(&self, pushes: &[Value]) {
        let texts: Vec<String> = pushes.iter().map(ToString::to_string).collect();
        self.ask_bytes(texts.iter().map(|text| ("", text.as_bytes())));
    }

    /// Records of the same moment, in ms of Unix time.
    fn ask_at(&self, at_ms: u64, pushes: &[Value]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create().unwrap();
        for push in pushes {
            let payload = push.to_string();
            let at_ms = i64::try_from(at_ms).unwrap();
            let record: BaseRecord<'_, str, _> =
                BaseRecord::to(&self.config.topic).payload(&payload).partition(0).timestamp(at_ms);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
    }

    /// Records with a key, all in one partition if it is empty.
    fn ask_bytes<'a>(&self, records: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create().unwrap();
        for (key, payload) in records {
            let mut record = BaseRecord::to(&self.config.topic).key(key).payload(payload);
            if key.is_empty() {
                record = record.partition(0);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
    }

    /// So many receipts, in the order of the records they are for.
    fn receipts(&self, expected: usize) -> Vec<Value> {
        until("the receipts are there", || count(&self.kafka.brokers, &self.config.receipts) >= expected);
        let parse = |record: Record| serde_json::from_slice::<Value>(&record.payload).unwrap();
        let records = read(&self.kafka.brokers, &self.config.receipts, expected);
        let mut receipts: Vec<Value> = records.into_iter().map(parse).collect();
        receipts.sort_by_key(|receipt| {
            let source = &receipt["source"];
            (source["partition"].as_i64(), source["offset"].as_i64())
        });
        receipts
    }

    /// The sum of the offsets that are committed.
    fn committed(&self) -> usize {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.brokers)
            .set("group.id", &self.config.group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.config.topic, 0, 2);
        let committed = consumer.committed_offsets(list, DEADLINE).unwrap();
        let offset = |offset| match offset {
            Offset::Offset(offset) => usize::try_from(offset).unwrap(),
            _ => 0,
        };
        committed.elements().iter().map(|element| offset(element.offset())).sum()
    }

    fn until_committed(&self, expected: usize) {
        until("the offsets are committed", || self.committed() == expected);
    }
}

fn now_ms() -> u64 {
    u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

fn delivery(shard: &mut Shard) -> (u64, String, String) {
    match shard.hear() {
        Heard::Deliver { delivery, target, payload, .. } => (delivery, target, payload),
        other => panic!("no delivery: {other:?}"),
    }
}

#[test]
fn a_push_by_kafka_reaches_its_device_and_leaves_a_receipt() {
    let way = Way::start();
    let mut shard = way.rig.shard(1);
    way.rig.session("d", owner(1), &[]);
    way.ask(&[json!({ "id": "push-1", "device": "d", "payload": { "score": 1 } })]);
    let (number, target, payload) = delivery(&mut shard);
    assert_eq!((&*target, &*payload), ("d", r#"{"score":1}"#));
    assert_eq!(way.committed(), 0, "its outcome is not known yet");
    shard.report(number, Outcome::Delivered);
    let receipt = way.receipts(1).remove(0);
    assert_eq!(
        (&receipt["id"], &receipt["device"], &receipt["outcome"]),
        (&json!("push-1"), &json!("d"), &json!("delivered"))
    );
    assert_eq!(receipt["source"], json!({ "topic": way.config.topic, "partition": 0, "offset": 0 }));
    assert_eq!(read(&way.kafka.brokers, &way.config.receipts, 1)[0].key, "d");
    way.until_committed(1);
}

#[test]
fn a_push_by_kafka_is_delivered_as_it_was_asked_for() {
    let way = Way::start();
    let mut shard = way.rig.shard(1);
    way.rig.session("d", owner(1), &[]);
    let asked_ms = now_ms() - 5_000;
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
        way.ask_at(
            asked_ms,
            &[json!({ "device": "d", "topic": "devices/d/commands", "payload": "go", "qos": number, "ttl_s": 3_600, "content_type": "text/plain" })],
        );
        let heard = shard.hear_delivery();
        let expected = Delivered {
            number: heard.number,
            topic: "devices/d/commands".into(),
            payload: "go".into(),
            qos,
            retain: false,
            // From the record's timestamp, not from when it is read.
            expires_at_ms: asked_ms + 3_600_000,
            content_type: Some("text/plain".into()),
        };
        assert_eq!(heard, expected);
        shard.report(heard.number, Outcome::Delivered);
        assert_eq!(way.receipts(number + 1)[number]["outcome"], "delivered");
    }
    way.until_committed(3);
}

#[test]
fn a_push_by_kafka_to_a_topic_reaches_its_subscribers_and_says_how_many() {
    let way = Way::start();
    let mut shard = way.rig.shard(1);
    let epoch = way.rig.session("away", owner(1), &["news/#"]);
    way.rig.rest("away", epoch);
    shard.announce(InterestKind::Filter, "news/#", true);
    way.ask(&[
        json!({ "topic": "news/today", "payload": "kept", "qos": 2, "id": "kept" }),
        json!({ "topic": "news/today", "payload": "passing", "qos": 0, "retain": true }),
    ]);
    let mut heard = [shard.hear_delivery(), shard.hear_delivery()];
    heard.sort_by_key(|heard| heard.qos);
    let [passing, kept] = &heard;
    assert_eq!((&*passing.payload, passing.qos), ("passing", QoS::AtMostOnce));
    assert_eq!((&*kept.payload, kept.qos, &*kept.topic), ("kept", QoS::ExactlyOnce, "news/today"));
    let receipts = way.receipts(2);
    let kept =
        json!({ "id": "kept", "topic": "news/today", "outcome": "accepted", "shards": 1, "streams": 1 });
    for (field, expected) in kept.as_object().unwrap() {
        assert_eq!(&receipts[0][field], expected, "{field} of {}", receipts[0]);
    }
    assert_eq!((&receipts[1]["outcome"], &receipts[1]["streams"]), (&json!("accepted"), &json!(0)));
    assert_eq!(way.rig.stream(StreamKey::Filter("news/#".into())), ["kept"]);
    let read =
        Request::ReadRetained { filter: "news/#".into(), after: None, messages_max: 9, bytes_max: u32::MAX };
    let Ok(Reply::Retained(retained)) = way.rig.ask(read) else { panic!("no answer") };
    assert_eq!(retained.len(), 1);
    way.until_committed(2);
}

#[test]
fn a_push_by_kafka_whose_time_has_passed_is_not_sent() {
    let way = Way::start();
    let mut shard = way.rig.shard(1);
    way.rig.session("d", owner(1), &[]);
    let epoch = way.rig.session("away", owner(1), &["devices/away/push"]);
    way.rig.rest("away", epoch);
    let late = |target: &str, name: &str| json!({ target: name, "payload": "late", "ttl_s": 10 });
    way.ask_at(now_ms() - 60_000, &[late("device", "d"), late("device", "away"), late("topic", "t")]);
    let outcomes: Vec<_> = way.receipts(3).iter().map(|receipt| receipt["outcome"].clone()).collect();
    assert_eq!(outcomes, ["expired"; 3]);
    assert_eq!(way.rig.stream(StreamKey::Device("away".into())), [""; 0]);
    // Nothing of it was sent: what comes next is the first that the shard hears.
    way.ask(&[json!({ "device": "d", "payload": "in time", "ttl_s": 600 })]);
    let (number, _, payload) = delivery(&mut shard);
    assert_eq!(payload, "in time");
    shard.report(number, Outcome::Delivered);
    way.until_committed(4);
}

#[test]
fn a_push_by_kafka_that_no_stream_can_hold_is_refused_instead_of_being_tried_for_ever() {
    let stream = StreamBounds { bytes_max: 1_000, ..StreamBounds::default() };
    let store = Arc::new(MemoryStore::new(clock::system(), Bounds { stream, ..Bounds::default() }));
    let push = PushConfig { stream_bytes_max: 1_000, ..PushConfig::default() };
    let bridge = BridgeConfig { push, ..BridgeConfig::default() };
    let way = Way::start_with(PushTopicConfig::default(), bridge, store);
    let epoch = way.rig.session("away", owner(1), &["devices/away/push"]);
    way.rig.rest("away", epoch);
    way.ask(&[json!({ "device": "away", "payload": "x".repeat(1_000) })]);
    assert_eq!(way.receipts(1)[0]["reason"], "too_large");
    way.until_committed(1);
}

#[test]
fn a_push_by_kafka_waits_for_a_device_that_is_away() {
    let way = Way::start();
    let epoch = way.rig.session("away", owner(1), &["devices/away/push"]);
    way.rig.rest("away", epoch);
    way.ask(&[json!({ "device": "away", "payload": "1" }), json!({ "device": "nobody", "payload": "1" })]);
    let receipts = way.receipts(2);
    let source = format!("{}/0/0", way.config.topic);
    assert_eq!((&receipts[0]["outcome"], &receipts[0]["id"]), (&json!("queued"), &json!(source)));
    assert_eq!(
        (&receipts[1]["outcome"], &receipts[1]["reason"]),
        (&json!("refused"), &json!("no_such_session"))
    );
    assert_eq!(way.rig.stream(StreamKey::Device("away".into())), ["1"]);
    way.until_committed(2);
}

#[test]
fn what_is_no_push_is_refused_and_holds_up_nothing() {
    let push = PushConfig { body_bytes_max: 300, ..PushConfig::default() };
    let bridge = BridgeConfig { push, ..BridgeConfig::default() };
    let way = Way::start_with(PushTopicConfig::default(), bridge, memory_store());
    let mut shard = way.rig.shard(1);
    way.rig.session("d", owner(1), &[]);
    let large = json!({ "device": "d", "payload": "x".repeat(300) }).to_string();
    let records = [
        r#"{"device":"d","payload":"first","id":"same"}"#,
        "not JSON",
        "",
        r#"{"id":"mine","device":"d","payload":1,"ttl":5}"#,
        &*large,
        r#"{"device":"d","payload":"another","id":"same"}"#,
        r#"{"device":"d","payload":"last"}"#,
    ];
    way.ask_bytes(records.iter().map(|record| ("", record.as_bytes())));
    for expected in ["first", "last"] {
        let (number, _, payload) = delivery(&mut shard);
        assert_eq!(payload, expected);
        shard.report(number, Outcome::Delivered);
    }
    let receipts = way.receipts(records.len());
    let ends: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt["reason"].as_str().or(receipt["outcome"].as_str()).unwrap())
        .collect();
    let expected = ["delivered", "invalid", "invalid", "invalid", "too_large", "id_reused", "delivered"];
    assert_eq!(ends, expected);
    assert_eq!((&receipts[3]["id"], &receipts[3]["device"]), (&json!("mine"), &json!("d")));
    assert!(receipts[3]["detail"].as_str().unwrap().contains("unknown field `ttl`"), "{}", receipts[3]);
    way.until_committed(records.len());
}

#[test]
fn a_bridge_that_dies_before_an_outcome_leaves_the_push_to_the_next() {
    let mut way = Way::start();
    let store = Arc::clone(&way.rig.store);
    let mut shard = way.rig.shard(1);
    way.rig.session("d", owner(1), &[]);
    way.ask(&[json!({ "device": "d", "payload": "1" }), json!({ "device": "d", "payload": "2" })]);
    delivery(&mut shard);
    let (second, _, payload) = delivery(&mut shard);
    assert_eq!(payload, "2");
    // The second one has its outcome, the first one in the same partition has not.
    shard.report(second, Outcome::Delivered);
    assert_eq!(way.receipts(1)[0]["source"]["offset"], 1);
    drop(way.reading.take());
    way.rig = Rig::start_with(BridgeConfig::default(), store);
    let mut shard = way.rig.shard(1);
    way.read();
    for expected in ["1", "2"] {
        let (number, _, payload) = delivery(&mut shard);
        assert_eq!(payload, expected, "nothing was committed past the first");
        shard.report(number, Outcome::Delivered);
    }
    way.until_committed(2);
}

#[test]
fn ten_thousand_pushes_are_carried_out_and_committed_whatever_the_order_of_their_ends() {
    const PUSHES: usize = 10_000;
    let config = PushTopicConfig { in_flight_max: 300, ..PushTopicConfig::default() };
    let mut way = Way::start_with(config, BridgeConfig::default(), memory_store());
    let mut shard = way.rig.shard(1);
    let devices: Vec<String> = (0..20).map(|number| format!("device-{number}")).collect();
    for device in &devices {
        way.rig.session(device, owner(1), &[]);
    }
    let push =
        |number: usize| json!({ "device": devices[number % 20], "payload": number.to_string() }).to_string();
    let pushes: Vec<String> = (0..PUSHES).map(push).collect();
    let records = pushes.iter().enumerate();
    way.ask_bytes(records.map(|(number, push)| (&*devices[number % 20], push.as_bytes())));
    let mut last = HashMap::new();
    for _ in 0..PUSHES / 10 {
        let mut numbers = Vec::new();
        for _ in 0..10 {
            let (number, device, payload) = delivery(&mut shard);
            let payload: usize = payload.parse().unwrap();
            let before = last.insert(device, payload);
            assert!(before < Some(payload), "{before:?}, {payload}");
            numbers.push(number);
        }
        for &number in numbers.iter().rev() {
            shard.report(number, Outcome::Delivered);
        }
    }
    let receipts = way.receipts(PUSHES);
    assert!(receipts.iter().all(|receipt| receipt["outcome"] == "delivered"));
    assert!(way.reading.take().unwrap().stop(DEADLINE));
    assert_eq!(way.committed(), PUSHES);
}

#[test]
fn a_device_that_does_not_answer_holds_up_its_partition_for_a_bounded_time() {
    let config = PushTopicConfig {
        in_flight_max: 1,
        acknowledged_within: Duration::from_millis(500),
        ..PushTopicConfig::default()
    };
    let way = Way::start_with(config, BridgeConfig::default(), memory_store());
    let mut shard = way.rig.shard(1);
    way.rig.session("mute", owner(1), &["#"]);
    way.rig.session("d", owner(1), &[]);
    way.ask(&[json!({ "device": "mute", "payload": "1" }), json!({ "device": "d", "payload": "2" })]);
    assert_eq!(delivery(&mut shard).1, "mute");
    let (number, target, _) = delivery(&mut shard);
    assert_eq!(target, "d");
    shard.report(number, Outcome::Delivered);
    let receipts = way.receipts(2);
    assert_eq!((&receipts[0]["outcome"], &receipts[1]["outcome"]), (&json!("expired"), &json!("delivered")));
    way.until_committed(2);
}

#[test]
fn pushes_wait_for_a_store_that_is_away() {
    let store = Arc::new(Away { store: memory_store(), absent: AtomicBool::new(true), ..Away::default() });
    let way = Way::start_with(
        PushTopicConfig::default(),
        BridgeConfig::default(),
        Arc::clone(&store) as Arc<dyn Store>,
    );
    way.rig.session("d", owner(1), &["#"]);
    let long_ago = json!({ "device": "d", "payload": "1", "id": "1" });
    way.ask(&[long_ago, json!({ "device": "nobody", "payload": "2", "id": "2" })]);
    until("the store was asked again", || store.was_asked.load(Ordering::Acquire));
    assert_eq!((way.committed(), count(&way.kafka.brokers, &way.config.receipts)), (0, 0));
    let mut shard = way.rig.shard(1);
    store.absent.store(false, Ordering::Release);
    let (number, _, _) = delivery(&mut shard);
    shard.report(number, Outcome::Delivered);
    let receipts = way.receipts(2);
    assert_eq!(
        (&receipts[0]["outcome"], &receipts[1]["reason"]),
        (&json!("delivered"), &json!("no_such_session"))
    );
    way.until_committed(2);
}

/// Does not say where sessions are while it is away.
struct Away {
    store: Arc<dyn Store>,
    absent: AtomicBool,
    was_asked: AtomicBool,
}

impl Default for Away {
    fn default() -> Self {
        Self { store: memory_store(), absent: AtomicBool::new(false), was_asked: AtomicBool::new(false) }
    }
}

impl Store for Away {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if matches!(request, Request::Lookup { .. }) && self.absent.load(Ordering::Acquire) {
            self.was_asked.store(true, Ordering::Release);
            return reply(Err(StoreError::Unavailable("it is away".to_owned())));
        }
        self.store.submit(request, reply);
    }
}

#[test]
fn of_two_bridges_the_one_that_stays_reads_what_the_other_leaves() {
    const PUSHES: usize = 300;
    let mut way = Way::start();
    let epoch = way.rig.session("d", owner(1), &["#"]);
    way.rig.rest("d", epoch);
    let other = Rig::start_with(BridgeConfig::default(), Arc::clone(&way.rig.store));
    let other_reading = KafkaPushes::start(&other.bridge, &way.kafka, &way.config).unwrap();
    let ask = |numbers: std::ops::Range<usize>| {
        let push = |number: usize| {
            let text = number.to_string();
            (json!({ "device": "d", "payload": text, "id": text }).to_string(), text)
        };
        let records: Vec<_> = numbers.map(push).collect();
        way.ask_bytes(records.iter().map(|(push, key)| (&**key, push.as_bytes())));
    };
    ask(0..PUSHES);
    way.until_committed(PUSHES);
    ask(PUSHES..2 * PUSHES);
    assert!(way.reading.take().unwrap().stop(DEADLINE));
    way.until_committed(2 * PUSHES);
    assert!(other_reading.stop(DEADLINE));
    // One that moved from bridge to bridge while it was under way may be there twice.
    let kept: BTreeSet<usize> = way
        .rig
        .stream(StreamKey::Device("d".into()))
        .iter()
        .map(|payload| payload.parse().unwrap())
        .collect();
    assert!(kept.into_iter().eq(0..2 * PUSHES));
}

#[test]
fn a_push_by_kafka_to_a_group_leaves_one_receipt_with_the_counts() {
    let way = Way::start();
    let mut shard = way.rig.shard(1);
    way.rig.session("here", owner(1), &[]);
    let epoch = way.rig.session("away", owner(1), &["devices/away/push"]);
    way.rig.rest("away", epoch);
    let add = ["here", "away", "nobody"].map(ClientId::new).to_vec();
    way.rig.ask(Request::ChangeGroup { group: "fans".into(), add, remove: Vec::new() }).unwrap();
    way.ask(&[
        json!({ "group": "fans", "payload": "1", "collapse_key": "k", "id": "goal" }),
        json!({ "group": "a b", "payload": "1" }),
        json!({ "device": "away", "payload": "2", "collapse_key": "k" }),
    ]);
    let (number, target, _) = delivery(&mut shard);
    assert_eq!(target, "here");
    shard.report(number, Outcome::Delivered);
    let receipts = way.receipts(3);
    assert_eq!(
        (&receipts[0]["group"], &receipts[0]["outcome"], &receipts[0]["members"]),
        (&json!("fans"), &json!("done"), &json!(3))
    );
    let outcomes = json!({ "delivered": 1, "queued": 1, "expired": 0, "refused": 1 });
    assert_eq!((&receipts[0]["outcomes"], &receipts[0]["id"]), (&outcomes, &json!("goal")));
    assert_eq!((&receipts[1]["reason"], &receipts[1]["group"]), (&json!("invalid"), &json!("a b")));
    way.until_committed(3);
    let kept = way.rig.stream(StreamKey::Device("away".into()));
    assert!(kept == ["1"] || kept == ["2"], "one takes the place of the other: {kept:?}");
}

#[test]
fn a_push_by_http_leaves_a_receipt_if_that_is_wanted() {
    let push = PushConfig { receipts: true, ..PushConfig::default() };
    let bridge = BridgeConfig { push, ..BridgeConfig::default() };
    let way = Way::start_with(PushTopicConfig::default(), bridge, memory_store());
    let request = PushRequest {
        target: PushTarget::Device("nobody".into()),
        topic: None,
        payload: b"1".to_vec(),
        qos: QoS::AtLeastOnce,
        ttl_s: None,
        content_type: None,
        collapse_key: None,
        retain: false,
        id: Some("asked".into()),
        wait: DEADLINE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(way.rig.bridge.push(request)).unwrap();
    let receipt = way.receipts(1).remove(0);
    assert_eq!(
        (&receipt["id"], &receipt["reason"], receipt.get("source")),
        (&json!("asked"), &json!("no_such_session"), None)
    );
}

#[test]
fn connections_that_begin_and_end_stand_in_the_book_of_events() {
    let topic = name("events");
    create(&shared().brokers, &topic, &[]);
    let rig = Rig::start();
    let kafka = KafkaConfig { brokers: shared().brokers.clone(), ..KafkaConfig::default() };
    keep_events(&rig.bridge, &kafka, &EventsConfig { topic: topic.clone(), ..EventsConfig::default() })
        .unwrap();
    let mut shard = rig.shard(1);
    let connected = EventKind::Connected { protocol: "mqtt-5", session_present: true, session_expiry_s: 60 };
    let disconnected = EventKind::Disconnected { reason: "keep_alive_timeout", session_ended: false };
    for (at_ms, kind) in [(1, connected), (2, disconnected), (3, EventKind::TakenOver)] {
        shard.say(&ToBridge::Event(Event { client: "d", epoch: Epoch(7), at_ms, kind }));
    }
    until("the events are there", || count(&kafka.brokers, &topic) == 3);
    let records = read(&kafka.brokers, &topic, 3);
    assert!(records.iter().all(|record| record.key == "d"));
    let parse = |record: &Record| serde_json::from_slice::<Value>(&record.payload).unwrap();
    let events: Vec<Value> = records.iter().map(parse).collect();
    assert_eq!(
        events[0],
        json!({ "event": "connected", "client_id": "d", "epoch": 7, "node": owner(1).node.to_string(), "shard": 0, "at": 1,
            "protocol": "mqtt-5", "session_present": true, "session_expiry_s": 60 })
    );
    assert_eq!(
        (&events[1]["event"], &events[1]["reason"]),
        (&json!("disconnected"), &json!("keep_alive_timeout"))
    );
    assert_eq!((&events[2]["event"], &events[2]["at"]), (&json!("taken_over"), &json!(3)));
}

#[test]
fn the_bridge_that_buries_a_gateway_writes_that_its_connections_have_ended() {
    let topic = name("events");
    create(&shared().brokers, &topic, &[]);
    let rig = Rig::start();
    let kafka = KafkaConfig { brokers: shared().brokers.clone(), ..KafkaConfig::default() };
    keep_events(&rig.bridge, &kafka, &EventsConfig { topic: topic.clone(), ..EventsConfig::default() })
        .unwrap();
    let before = now_ms();
    rig.ask(Request::RenewLease { node: owner(1).node, for_ms: 100 }).unwrap();
    let (kept, ends) = (rig.session("kept", owner(1), &["#"]), rig.session("ends", owner(1), &[]));
    let back = rig.session("back", owner(1), &["#"]);
    assert!(rig.session("back", owner(2), &["#"]) > back, "it came back before anyone knew");
    // The other node lives.
    rig.ask(Request::RenewLease { node: owner(2).node, for_ms: 3_600_000 }).unwrap();
    until("the events are there", || count(&kafka.brokers, &topic) == 2);
    let mut records = read(&kafka.brokers, &topic, 2);
    records.sort_by(|a, b| a.key.cmp(&b.key));
    for (record, (client, epoch, ended)) in records.iter().zip([("ends", ends, true), ("kept", kept, false)])
    {
        let mut event: Value = serde_json::from_slice(&record.payload).unwrap();
        let at = event["at"].take().as_u64().unwrap();
        assert!((before..=now_ms()).contains(&at), "{at}");
        let expected = json!({
            "event": "disconnected", "client_id": client, "epoch": epoch.0, "node": owner(1).node.to_string(), "shard": 0,
            "at": null, "reason": "node_died", "session_ended": ended,
        });
        assert_eq!((&*record.key, event), (client, expected));
    }
    assert_eq!(count(&kafka.brokers, &topic), 2, "nothing is told of the one that came back");
}
