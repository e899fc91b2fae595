//! `POST /v1/push`: each push has one outcome, and its sender hears it.

mod shard;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use holdfast_bridge::config::PushConfig;
use holdfast_bridge::{BridgeConfig, push};
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::link::{InterestKind, Outcome};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Request, StoreError};
use serde_json::{Value, json};
use shard::*;

/// The API on a port of its own, as `dev` mounts it on the admin address.
struct Api {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Api {
    fn of(rig: &Rig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = push::router(rig.bridge.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, _runtime: runtime }
    }

    fn post(&self, body: &Value) -> (u16, Value) {
        post(self.address, &body.to_string(), "")
    }

    /// Posts without waiting, for a push that a shard has yet to report.
    fn post_later(&self, body: Value) -> JoinHandle<(u16, Value)> {
        let address = self.address;
        std::thread::spawn(move || post(address, &body.to_string(), ""))
    }
}

fn post(address: SocketAddr, body: &str, headers: &str) -> (u16, Value) {
    request(address, "POST /v1/push", body, headers)
}

fn request(address: SocketAddr, line: &str, body: &str, headers: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_problem = head.to_lowercase().contains("application/problem+json");
    let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    assert_eq!(is_problem, body["title"].is_string(), "{answer}");
    (status, body)
}

fn numbered(heard: Heard) -> (u64, String, String) {
    match heard {
        Heard::Deliver { delivery, topic, payload, .. } => (delivery, topic, payload),
        other => panic!("no delivery: {other:?}"),
    }
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
    let rig = Rig::start_with(BridgeConfig { push, ..BridgeConfig::default() }, memory_store());
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
fn a_request_that_makes_no_sense_is_told_why() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    for (body, hint) in [
        ("", "EOF"),
        ("[]", "must be a JSON object"),
        ("{}", "name a device or a topic"),
        (r#"{"device":"d"}"#, "give a payload"),
        (r#"{"device":"d","payload":1,"ttl":5}"#, "unknown field `ttl`"),
        (r#"{"device":"d","payload":1,"qos":3}"#, "qos"),
        (r#"{"device":"d","payload":1,"ttl_s":0}"#, "ttl_s"),
        (r#"{"device":"","payload":1}"#, "device"),
        (r#"{"device":"a+b","payload":1}"#, "device: \"a+b\" cannot stand in push.topic"),
        (r#"{"device":"d","topic":"a/+","payload":1}"#, "topic"),
        (r#"{"topic":"a/#","payload":1}"#, "topic"),
        (r#"{"device":"d","payload":1,"retain":true}"#, "retain"),
        (
            r#"{"device":"d","payload":1,"collapse_key":"k"}"#,
            "collapse_key: pushes that wait are not replaced",
        ),
        (r#"{"device":"d","payload":1,"payload_base64":""}"#, "not both"),
        (r#"{"device":"d","payload_base64":"*"}"#, "payload_base64"),
        (r#"{"device":"d","payload":1,"id":""}"#, "id"),
    ] {
        let (status, problem) = post(api.address, body, "");
        assert_eq!(status, 400, "{body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(hint), "{body}: {detail}");
    }
}

#[test]
fn whoever_asks_for_something_else_is_told_in_the_same_words() {
    let push = PushConfig { body_bytes_max: 100, ..PushConfig::default() };
    let rig = Rig::start_with(BridgeConfig { push, ..BridgeConfig::default() }, memory_store());
    let api = Api::of(&rig);
    for (line, body, status, hint) in [
        ("GET /v1/push", "", 405, "POST"),
        ("POST /v1/push/d", "", 404, "/v1/push"),
        ("POST /v1/push", &*"x".repeat(200), 413, "at most 100 bytes"),
    ] {
        let (answered, problem) = request(api.address, line, body, "");
        assert_eq!((answered, problem["status"].as_u64()), (status, Some(status.into())), "{line}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{problem}");
    }
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
    let (status, body_expired) =
        api.post(&json!({ "device": "away", "payload": "2", "ttl_s": 1, "id": "short" }));
    assert_eq!((status, &body_expired["outcome"]), (410, &json!("expired")));
    store.answers.store(true, Ordering::Release);
    let patient = json!({ "device": "away", "payload": "1", "id": "in doubt" });
    assert_eq!(api.post(&patient), (202, json!({ "id": "in doubt", "outcome": "queued" })));
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
