//! `POST /v1/push`, to a device and to a topic.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::config::PushConfig;
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{InterestKind, Outcome};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};
use serde_json::{Value, json};

use crate::api::{Api, bounded, numbered, post};
use crate::shard::{DEADLINE, Delivered, Heard, Rig, memory_store, owner};

#[test]
fn a_push_is_delivered_with_its_qos_content_type_and_time_to_live() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    shard.announce(InterestKind::Filter, "news/#", false);
    let now_ms = || u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
        for (target, topic) in [("device", "devices/d/push"), ("topic", "news/today")] {
            let name = if target == "device" { "d" } else { topic };
            let push =
                json!({ target: name, "payload": "x", "qos": number, "content_type": "text/ü", "ttl_s": 60 });
            let before = now_ms();
            let asked = api.post_later(push);
            let heard = shard.hear_delivery();
            let ttl = before + 60_000..=now_ms() + 60_000;
            assert!(ttl.contains(&heard.expires_at_ms), "{heard:?}, {ttl:?}");
            if target == "device" {
                shard.report(heard.number, Outcome::Delivered);
            }
            assert_eq!(asked.join().unwrap().0, if target == "device" { 200 } else { 202 });
            let expected = Delivered {
                number: heard.number,
                topic: topic.into(),
                payload: "x".into(),
                qos,
                retain: false,
                expires_at_ms: heard.expires_at_ms,
                content_type: Some("text/ü".into()),
            };
            assert_eq!(heard, expected);
        }
    }
    // By default, and with neither.
    let asked = api.post_later(json!({ "device": "d", "payload": null }));
    let heard = shard.hear_delivery();
    assert_eq!((heard.qos, heard.expires_at_ms, heard.content_type), (QoS::AtLeastOnce, 0, None));
    assert_eq!(heard.payload, "");
    shard.report(heard.number, Outcome::Delivered);
    asked.join().unwrap();
}

#[test]
fn what_the_shard_reports_is_what_the_sender_hears() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    for (outcome, status, word, reason) in [
        (Outcome::Delivered, 200, "delivered", None),
        (Outcome::Kept, 202, "queued", None),
        (Outcome::Expired, 410, "expired", None),
        (Outcome::QueueFull, 429, "refused", Some("queue_full")),
        (Outcome::NotSubscribed, 409, "refused", Some("not_subscribed")),
        (Outcome::TooLarge, 413, "refused", Some("too_large")),
        (Outcome::RefusedByDevice, 409, "refused", Some("refused_by_device")),
        (Outcome::ConnectionLost, 404, "refused", Some("no_such_session")),
        (Outcome::NotHere, 404, "refused", Some("no_such_session")),
    ] {
        let sender = api.post_later(json!({ "device": "d", "payload": { "score": [1, 2] } }));
        let (delivery, topic, payload) = numbered(shard.hear());
        assert_eq!((&*topic, &*payload), ("devices/d/push", "{\"score\":[1,2]}"));
        shard.report(delivery, outcome);
        let (heard_status, body) = sender.join().unwrap();
        assert_eq!((heard_status, body["outcome"].as_str()), (status, Some(word)), "{outcome:?}: {body}");
        assert_eq!(body["reason"].as_str(), reason);
    }
}

#[test]
fn a_payload_is_taken_as_it_was_meant() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    for (body, meant) in [
        (json!({ "device": "d", "payload": "tëxt \"x\"" }), "tëxt \"x\""),
        (json!({ "device": "d", "payload": 1.50 }), "1.5"),
        (json!({ "device": "d", "payload_base64": "aGVsbG8=" }), "hello"),
        (json!({ "device": "d", "payload": null }), ""),
        (json!({ "device": "d", "payload_base64": "" }), ""),
    ] {
        let sender = api.post_later(body);
        let (delivery, _, payload) = numbered(shard.hear());
        assert_eq!(payload, meant);
        shard.report(delivery, Outcome::Delivered);
        assert_eq!(sender.join().unwrap().0, 200);
    }
}

#[test]
fn a_device_that_is_away_finds_its_pushes_when_it_comes_back() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    let (status, body) = api.post(&json!({ "device": "away", "payload": "1" }));
    assert_eq!((status, &body["outcome"]), (202, &json!("queued")));
    let refused = |body: Value| {
        let (_, answer) = api.post(&body);
        answer["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(json!({ "device": "away", "topic": "other", "payload": "1" })), "not_subscribed");
    assert_eq!(refused(json!({ "device": "away", "qos": 0, "payload": "1" })), "not_connected");
    assert_eq!(refused(json!({ "device": "nobody", "payload": "1" })), "no_such_session");
    assert_eq!(rig.stream(StreamKey::Device("away".into())), ["1"]);
}

#[test]
fn a_push_in_flight_outlives_its_link() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("kept", owner(1), &["devices/kept/push"]);
    rig.session("clean", owner(1), &[]);
    let kept = api.post_later(json!({ "device": "kept", "payload": "1" }));
    shard.hear();
    let clean = api.post_later(json!({ "device": "clean", "payload": "1" }));
    shard.hear();
    drop(shard);
    assert_eq!(kept.join().unwrap().1["outcome"], "queued");
    assert_eq!(clean.join().unwrap().1["reason"], "no_such_session");
    assert_eq!(rig.stream(StreamKey::Device("kept".into())), ["1"]);
}

#[test]
fn a_push_follows_a_session_that_moves() {
    let rig = Rig::start();
    let (api, mut first, mut second) = (Api::of(&rig), rig.shard(1), rig.shard(2));
    rig.session("d", owner(1), &[]);
    let sender = api.post_later(json!({ "device": "d", "payload": "1" }));
    let (delivery, _, _) = numbered(first.hear());
    rig.session("d", owner(2), &[]);
    first.report(delivery, Outcome::NotHere);
    let (delivery, _, payload) = numbered(second.hear());
    assert_eq!(payload, "1");
    second.report(delivery, Outcome::Delivered);
    assert_eq!(sender.join().unwrap().0, 200);
}

#[test]
fn the_same_id_is_pushed_once_whoever_asks() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let body = json!({ "device": "d", "payload": "1", "id": "push-1" });
    let (one, other) = (api.post_later(body.clone()), api.post_later(body.clone()));
    let (delivery, _, _) = numbered(shard.hear());
    // A third one that does not wait is told how to go on.
    let (status, problem) = api.post(&json!({ "device": "d", "payload": "1", "id": "push-1", "wait_ms": 0 }));
    assert_eq!((status, &problem["id"]), (504, &json!("push-1")));
    shard.report(delivery, Outcome::Delivered);
    for sender in [one, other] {
        assert_eq!(sender.join().unwrap(), (200, json!({ "id": "push-1", "outcome": "delivered" })));
    }
    let by_header = json!({ "device": "d", "payload": "1" }).to_string();
    assert_eq!(post(api.address, &by_header, "Idempotency-Key: push-1\r\n").0, 200);
    assert_eq!(api.post(&json!({ "device": "d", "payload": "2", "id": "push-1" })).0, 422);
    // Nothing but the first was ever sent.
    shard.announce(InterestKind::Filter, "x", false);
}

#[test]
fn beyond_the_bound_a_push_is_turned_away_with_a_hint() {
    let push = PushConfig { in_flight_max: 1, ..PushConfig::default() };
    let rig = bounded(push);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let sender = api.post_later(json!({ "device": "d", "payload": "1" }));
    let (delivery, _, _) = numbered(shard.hear());
    assert_eq!(api.post(&json!({ "device": "d", "payload": "1", "id": "again" })).0, 503);
    shard.report(delivery, Outcome::Delivered);
    assert_eq!(sender.join().unwrap().0, 200);
    let sender = api.post_later(json!({ "device": "d", "payload": "1", "id": "again" }));
    let (delivery, _, _) = numbered(shard.hear());
    shard.report(delivery, Outcome::Delivered);
    assert_eq!(sender.join().unwrap().0, 200, "what was turned away may come again");
}

#[test]
fn a_push_to_a_topic_reaches_subscribers_streams_and_those_who_come_later() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("reader", owner(1), &["scores/#"]);
    shard.announce(InterestKind::Filter, "scores/#", true);
    let (status, body) = api.post(&json!({ "topic": "scores/1", "payload": "2:1", "retain": true }));
    assert_eq!(status, 202);
    assert_eq!(
        (&body["outcome"], &body["shards"], &body["streams"]),
        (&json!("accepted"), &json!(1), &json!(1))
    );
    let Heard::Deliver { target, positions, payload, .. } = shard.hear() else { panic!("no delivery") };
    assert_eq!((&*target, positions.len(), &*payload), ("subscribers", 1, "2:1"));
    let read = holdfast_wire::link::RetainedRead { token: 1, filter: "scores/1", after: "", messages_max: 9 };
    shard.say(&holdfast_wire::link::ToBridge::RetainedRead(read));
    assert!(matches!(shard.hear(), Heard::Retained { payload, .. } if payload == "2:1"));
}

#[test]
fn a_push_that_a_device_does_not_acknowledge_in_time_has_expired() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &["devices/d/push"]);
    let sender = api.post_later(json!({ "device": "d", "payload": "1", "ttl_s": 1, "id": "late" }));
    let (delivery, _, _) = numbered(shard.hear());
    let (status, body) = sender.join().unwrap();
    assert_eq!((status, &body["outcome"]), (410, &json!("expired")));
    // It has one outcome, whatever comes later.
    shard.report(delivery, Outcome::Delivered);
    let again = api.post(&json!({ "device": "d", "payload": "1", "ttl_s": 1, "id": "late" }));
    assert_eq!((again.0, &again.1["outcome"]), (410, &json!("expired")));
}

#[test]
fn what_the_store_may_have_kept_is_not_refused() {
    let store = Arc::new(Doubtful { store: memory_store(), answers: AtomicBool::new(false) });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let api = Api::of(&rig);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    let body = json!({ "device": "away", "payload": "1", "id": "in doubt", "wait_ms": 300 });
    let (status, problem) = api.post(&body);
    assert_eq!((status, &problem["id"]), (503, &json!("in doubt")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("its outcome is not known"), "{problem}");
    rig.shard(1).announce(InterestKind::Filter, "news", true);
    let (status, problem) = api.post(&json!({ "topic": "news", "payload": "1" }));
    assert_eq!((status, &problem["type"]), (507, &json!("/v1/problems/store-full")), "{problem}");
    let (status, body_expired) =
        api.post(&json!({ "device": "away", "payload": "2", "ttl_s": 1, "id": "short" }));
    assert_eq!((status, &body_expired["outcome"]), (410, &json!("expired")));
    store.answers.store(true, Ordering::Release);
    let patient = json!({ "device": "away", "payload": "1", "id": "in doubt" });
    assert_eq!(api.post(&patient), (202, json!({ "id": "in doubt", "outcome": "queued" })));
}

#[test]
fn a_newer_push_takes_the_place_of_one_that_waits_under_the_same_key() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    for (payload, key) in [("1", Some("score")), ("2", None), ("3", Some("score")), ("4", Some("weather"))] {
        let mut body = json!({ "device": "away", "payload": payload });
        if let Some(key) = key {
            body["collapse_key"] = json!(key);
        }
        assert_eq!(api.post(&body).1["outcome"], "queued");
    }
    assert_eq!(rig.stream(StreamKey::Device("away".into())), ["2", "3", "4"]);
}

#[test]
fn what_a_full_stream_does_not_take_is_refused() {
    let rig = Rig::start_with(BridgeConfig::default(), Arc::new(Full(memory_store())));
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    shard.announce(InterestKind::Filter, "news", true);
    let epoch = rig.session("away", owner(1), &["devices/away/push", "news"]);
    rig.rest("away", epoch);
    let (status, body) = api.post(&json!({ "device": "away", "payload": "1" }));
    assert_eq!((status, &body["reason"]), (429, &json!("queue_full")));
    let (status, body) = api.post(&json!({ "topic": "news", "payload": "1" }));
    assert_eq!((status, &body["streams"], &body["streams_full"]), (202, &json!(0), &json!(1)), "{body}");
}

#[test]
fn a_push_waits_for_a_session_that_a_store_has_lost_and_is_about_to_be_given_back() {
    let store = Arc::new(Emptied {
        store: memory_store(),
        has_just_begun: true.into(),
        loses: Mutex::default(),
        misses: AtomicUsize::new(0),
    });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    // Nothing was sent yet, so its sender may ask again.
    let (status, problem) = api.post(&json!({ "device": "d", "payload": "1" }));
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/store-away")), "{problem}");

    // It is lost while its shard has the push.
    rig.session("d", owner(1), &["devices/d/push"]);
    let sender = api.post_later(json!({ "device": "d", "payload": "2" }));
    let (delivery, ..) = numbered(shard.hear());
    store.lose("d");
    shard.report(delivery, Outcome::ConnectionLost);
    store.until_missed();
    store.give_back();
    assert_eq!(sender.join().unwrap().1["outcome"], "queued");

    // It is lost between the look at a session that rests and the append.
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    store.lose_stream("away");
    let sender = api.post_later(json!({ "device": "away", "payload": "3" }));
    store.until_missed();
    store.give_back();
    assert_eq!(sender.join().unwrap().1["outcome"], "queued");
    assert_eq!(rig.stream(StreamKey::Device("away".into())), ["3"]);

    store.has_just_begun.store(false, Ordering::Release);
    assert_eq!(api.post(&json!({ "device": "nobody", "payload": "4" })).1["reason"], "no_such_session");
}

/// A store that began with nothing a moment ago, for as long as the story says so, and has not been given back all that it is to have.
struct Emptied {
    store: Arc<dyn Store>,
    has_just_begun: AtomicBool,
    loses: Mutex<Option<Lost>>,
    misses: AtomicUsize,
}

/// What is not there.
enum Lost {
    Session(ClientId),
    /// The session is lost once it was looked at.
    Stream(ClientId),
}

impl Emptied {
    fn lose(&self, client: &str) {
        *self.loses.lock().unwrap() = Some(Lost::Session(ClientId::new(client)));
    }

    fn lose_stream(&self, client: &str) {
        *self.loses.lock().unwrap() = Some(Lost::Stream(ClientId::new(client)));
    }

    /// Until it was asked twice for what it lost.
    fn until_missed(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.misses.load(Ordering::Acquire) < 2 {
            assert!(Instant::now() < deadline, "nobody asks for it again");
            std::thread::yield_now();
        }
    }

    fn give_back(&self) {
        *self.loses.lock().unwrap() = None;
        self.misses.store(0, Ordering::Release);
    }
}

impl Store for Emptied {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let mut loses = self.loses.lock().unwrap();
        let missing = match (&*loses, &request) {
            (Some(Lost::Session(lost)), Request::Lookup { client }) if client == lost => {
                Some(Reply::Session(None))
            }
            (Some(Lost::Session(lost) | Lost::Stream(lost)), Request::Append { streams, .. })
                if streams.contains(&StreamKey::Device(lost.as_str().into())) =>
            {
                *loses = Some(Lost::Session(lost.clone()));
                Some(Reply::Appended { at: Vec::new(), full: Vec::new() })
            }
            _ => None,
        };
        drop(loses);
        let Some(missing) = missing else { return self.store.submit(request, reply) };
        self.misses.fetch_add(1, Ordering::AcqRel);
        reply(Ok(missing));
    }

    fn has_just_begun(&self) -> bool {
        self.has_just_begun.load(Ordering::Acquire)
    }
}

/// Every stream of it is full and keeps what it has.
struct Full(Arc<dyn Store>);

impl Store for Full {
    fn submit(&self, request: Request, reply: ReplyTo) {
        match request {
            Request::Append { streams, .. } => reply(Ok(Reply::Appended { at: Vec::new(), full: streams })),
            request => self.0.submit(request, reply),
        }
    }
}

/// Says that it is full although it takes what it is given.
struct Doubtful {
    store: Arc<dyn Store>,
    answers: AtomicBool,
}

impl Store for Doubtful {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if matches!(request, Request::Append { .. }) && !self.answers.load(Ordering::Acquire) {
            self.store
                .submit(request, Box::new(|_| reply(Err(StoreError::Full("no room is left".to_owned())))));
        } else {
            self.store.submit(request, reply);
        }
    }
}
