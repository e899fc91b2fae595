//! `POST /v1/push`: each push has exactly one outcome, and its sender learns it.

use std::thread;
use std::time::{Duration, Instant};

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Gateway, Response, Setup};
use serde_json::{Value, json};

fn push(gateway: &Gateway, body: &Value) -> Response {
    gateway.http("POST", "/v1/push", &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// Pushes in the background, as the outcome waits for what the test does next.
fn push_while<T>(gateway: &Gateway, body: &Value, meanwhile: impl FnOnce() -> T) -> (Response, T) {
    thread::scope(|scope| {
        let pushing = scope.spawn(|| push(gateway, body));
        let done = meanwhile();
        (pushing.join().expect("an answer"), done)
    })
}

#[track_caller]
fn assert_outcome(response: &Response, outcome: &str, reason: Option<&str>) {
    let body = response.json();
    assert_eq!(body["outcome"], outcome, "{} {body}", response.status);
    assert_eq!(body.get("reason").and_then(Value::as_str), reason, "{body}");
    assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
}

/// A device that is subscribed to its pushes.
fn device(gateway: &Gateway, connect: &Connect, id: &str) -> Client {
    let (mut client, _) = Client::connect(gateway.mqtt(), connect);
    assert_eq!(client.subscribe(&format!("devices/{id}/push"), 1), 1);
    client
}

#[test]
fn a_push_that_the_device_acknowledges_is_delivered() {
    let gateway = Gateway::start();
    for version in [Version::V311, Version::V5] {
        let mut client = device(&gateway, &Connect::new(version, "d"), "d");
        let payloads = [
            (json!({"device": "d", "payload": {"rate": 50.0}}), br#"{"rate":50.0}"#.to_vec()),
            (json!({"device": "d", "payload": "text"}), b"text".to_vec()),
            (json!({"device": "d", "payload_base64": "AP8="}), vec![0, 255]),
        ];
        for (body, payload) in payloads {
            let (response, ()) = push_while(&gateway, &body, || {
                let heard = client.receive_publish();
                assert_eq!((heard.topic.as_str(), heard.qos), ("devices/d/push", 1));
                assert_eq!(heard.payload, payload);
                client.send(&acknowledge(kind::PUBACK, heard.id));
            });
            assert_eq!(response.status, 200);
            assert_outcome(&response, "delivered", None);
        }
    }
}

#[test]
fn a_push_may_name_the_topic_that_its_device_listens_to() {
    let gateway = Gateway::start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "d");
    assert_eq!(client.subscribe("devices/d/commands", 1), 1);
    let body = json!({"device": "d", "topic": "devices/d/commands", "payload": "go"});
    let (response, ()) = push_while(&gateway, &body, || {
        let heard = client.receive_publish();
        assert_eq!(heard.topic, "devices/d/commands");
        client.send(&acknowledge(kind::PUBACK, heard.id));
    });
    assert_outcome(&response, "delivered", None);
}

/// As long as a client id can be, with all that names of keys, addresses and topics are made of.
#[test]
fn a_device_with_the_longest_of_names_is_found_pushed_to_and_disconnected() {
    let gateway = Setup::new().set("limits.client_id_bytes_max", 65_535).start();
    let name = "ü/{} ".repeat(10_922) + "end";
    assert_eq!(name.len(), 65_535);
    let connect = Connect::new(Version::V5, &name).persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(client.subscribe("commands", 1), 1);
    let ask = |body: &Value| gateway.http("POST", "/v1/devices", &[], body.to_string().as_bytes());
    let found = ask(&json!({"find": name}));
    assert_eq!((found.status, &found.json()["connected"]), (200, &json!(true)));
    let body = json!({"device": name, "topic": "commands", "payload": "go"});
    let (response, ()) = push_while(&gateway, &body, || {
        let heard = client.receive_publish();
        assert_eq!((&*heard.topic, &*heard.payload), ("commands", &b"go"[..]));
        client.send(&acknowledge(kind::PUBACK, heard.id));
    });
    assert_outcome(&response, "delivered", None);
    assert_eq!(ask(&json!({"disconnect": name})).status, 204);
    assert_eq!(client.receive_kind(kind::DISCONNECT).reason(), 0x98);
    until_true("it to be away", PATIENCE, || ask(&json!({"find": name})).json()["connected"] == false);
    assert_outcome(&push(&gateway, &body), "queued", None);
    assert_eq!(ask(&json!({"find": name})).json()["pending"], 1);
    let (mut client, answer) = Client::connect(gateway.mqtt(), &connect);
    assert!(answer.session_present());
    assert_eq!(client.receive_publish().payload, b"go");
}

#[test]
fn a_push_to_nobody_is_refused() {
    let gateway = Gateway::start();
    let response = push(&gateway, &json!({"device": "nobody", "payload": 1}));
    assert_eq!(response.status, 404);
    assert_outcome(&response, "refused", Some("no_such_session"));
}

#[test]
fn a_push_to_a_device_that_did_not_subscribe_is_refused() {
    let gateway = Gateway::start();
    let _client = Client::open(gateway.mqtt(), Version::V5, "d");
    let response = push(&gateway, &json!({"device": "d", "payload": 1}));
    assert!((400..500).contains(&response.status), "{}", response.status);
    assert_outcome(&response, "refused", Some("not_subscribed"));
}

#[test]
fn a_push_waits_for_a_device_that_is_away() {
    let gateway = Gateway::start();
    let connect = Connect::new(Version::V5, "d").persistent();
    device(&gateway, &connect, "d").leave();
    for number in 0..10 {
        let response = push(&gateway, &json!({"device": "d", "payload": number}));
        assert_eq!(response.status, 202);
        assert_outcome(&response, "queued", None);
    }
    let (mut client, answer) = Client::connect(gateway.mqtt(), &connect);
    assert!(answer.session_present());
    for number in 0..10 {
        let heard = client.receive_publish();
        assert_eq!(heard.payload, number.to_string().as_bytes());
        client.send(&acknowledge(kind::PUBACK, heard.id));
    }
}

#[test]
fn a_queued_push_survives_a_kill() {
    let mut gateway = Gateway::start();
    let connect = Connect::new(Version::V5, "d").persistent();
    device(&gateway, &connect, "d").leave();
    assert_outcome(&push(&gateway, &json!({"device": "d", "payload": "kept"})), "queued", None);
    gateway.kill();
    gateway.restart();
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(client.receive_publish().payload, b"kept");
}

#[test]
fn a_push_is_not_delivered_after_its_time_to_live() {
    let gateway = Gateway::start();
    let connect = Connect::new(Version::V5, "d").persistent();
    device(&gateway, &connect, "d").leave();
    let pushed = Instant::now();
    assert_outcome(&push(&gateway, &json!({"device": "d", "payload": "late", "ttl_s": 1})), "queued", None);
    assert_outcome(
        &push(&gateway, &json!({"device": "d", "payload": "in time", "ttl_s": 600})),
        "queued",
        None,
    );
    until_true("the time to live to pass", PATIENCE, || pushed.elapsed() > Duration::from_millis(2100));
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(client.receive_publish().payload, b"in time");
}

#[test]
fn a_push_in_flight_when_its_connection_dies_is_queued() {
    let gateway = Gateway::start();
    let connect = Connect::new(Version::V5, "d").persistent();
    let mut client = device(&gateway, &connect, "d");
    let (response, ()) = push_while(&gateway, &json!({"device": "d", "payload": "again"}), || {
        assert_eq!(client.receive_publish().payload, b"again");
        client.cut();
    });
    assert_outcome(&response, "queued", None);
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(client.receive_publish().payload, b"again");
}

#[test]
fn a_push_in_flight_to_a_clean_session_that_dies_is_refused() {
    let gateway = Gateway::start();
    let mut client = device(&gateway, &Connect::new(Version::V5, "d"), "d");
    let (response, ()) = push_while(&gateway, &json!({"device": "d", "payload": "gone"}), || {
        client.receive_publish();
        client.cut();
    });
    assert_outcome(&response, "refused", Some("no_such_session"));
}

#[test]
fn the_same_key_is_the_same_push() {
    let gateway = Gateway::start();
    let mut client = device(&gateway, &Connect::new(Version::V5, "d"), "d");
    let body = json!({"device": "d", "payload": "once", "id": "key-1"});
    let (first, ()) = push_while(&gateway, &body, || {
        let heard = client.receive_publish();
        client.send(&acknowledge(kind::PUBACK, heard.id));
    });
    assert_outcome(&first, "delivered", None);
    let second = push(&gateway, &body);
    assert_eq!((second.status, second.json()), (first.status, first.json()));
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    let third = gateway.http("POST", "/v1/push", &headers, br#"{"device":"d","payload":"once"}"#);
    assert_eq!(third.json()["outcome"], "delivered");
    // Nothing came twice: the next packet answers the ping.
    client.ping();
}

#[test]
fn a_push_to_a_topic_reaches_all_its_subscribers() {
    let gateway = Gateway::start();
    let mut clients: Vec<_> = (0..10)
        .map(|number| {
            let mut client = Client::open(gateway.mqtt(), Version::V5, &format!("fan-{number}"));
            assert_eq!(client.subscribe("scores/#", 1), 1);
            client
        })
        .collect();
    let response = push(&gateway, &json!({"topic": "scores/final", "payload": "2:1"}));
    assert_eq!(response.status / 100, 2);
    assert_outcome(&response, "accepted", None);
    for client in &mut clients {
        let heard = client.receive_publish();
        assert_eq!((heard.topic.as_str(), heard.payload.as_slice()), ("scores/final", b"2:1".as_slice()));
    }
}

#[test]
fn a_request_that_makes_no_sense_is_told_why() {
    let gateway = Gateway::start();
    let cases = [
        "not JSON",
        "{}",
        r#"{"payload":1}"#,
        r#"{"device":"d","payload":1,"payload_base64":"AA=="}"#,
        r#"{"device":"d","payload_base64":"not base64"}"#,
        r#"{"device":"d","payload":1,"qos":3}"#,
        r#"{"device":"d","payload":1,"surprise":true}"#,
        r#"{"topic":"with/#","payload":1}"#,
    ];
    for body in cases {
        let response =
            gateway.http("POST", "/v1/push", &[("content-type", "application/json")], body.as_bytes());
        assert!([400, 415, 422].contains(&response.status), "{body}: {}", response.status);
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{body}");
        assert!(response.json()["title"].is_string(), "{body}");
    }
}

#[test]
fn a_newer_push_takes_the_place_of_one_that_waits() {
    let gateway = Gateway::start();
    let connect = Connect::new(Version::V5, "d").persistent();
    device(&gateway, &connect, "d").leave();
    for (payload, key) in [("1:0", "score"), ("rain", "weather"), ("2:0", "score"), ("2:1", "score")] {
        let body = json!({"device": "d", "payload": payload, "collapse_key": key});
        assert_outcome(&push(&gateway, &body), "queued", None);
    }
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    for payload in ["rain", "2:1"] {
        let heard = client.receive_publish();
        assert_eq!(heard.payload, payload.as_bytes());
        client.send(&acknowledge(kind::PUBACK, heard.id));
    }
    client.ping();
}

#[test]
fn a_group_outlives_a_kill_and_each_of_its_members_gets_a_push() {
    let mut gateway = Gateway::start();
    let lines = [("content-type", "text/plain")];
    let added = gateway.http("PUT", "/v1/groups/fans/members", &lines, b"here\naway\nnobody\n");
    assert_eq!((added.status, added.json()["added"].as_u64()), (200, Some(3)));
    let connect = Connect::new(Version::V5, "away").persistent();
    device(&gateway, &connect, "away").leave();
    gateway.kill();
    gateway.restart();
    let mut here = device(&gateway, &Connect::new(Version::V311, "here"), "here");
    let body = json!({"group": "fans", "payload": "2:1", "id": "goal-3"});
    let (response, ()) = push_while(&gateway, &body, || {
        let heard = here.receive_publish();
        assert_eq!(heard.payload, b"2:1");
        here.send(&acknowledge(kind::PUBACK, heard.id));
    });
    assert_eq!(response.status, 200);
    assert_outcome(&response, "done", None);
    let outcomes = json!({"delivered": 1, "queued": 1, "expired": 0, "refused": 1});
    assert_eq!(response.json()["outcomes"], outcomes);
    let (mut away, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(away.receive_publish().payload, b"2:1");
}

#[test]
fn a_batch_brings_each_of_its_lines_to_its_device() {
    let gateway = Gateway::start();
    let mut client = device(&gateway, &Connect::new(Version::V5, "d"), "d");
    let lines: Vec<_> =
        (0..20).map(|number| format!("{{\"device\":\"d\",\"payload\":{number}}}\n")).collect();
    let lines = lines.concat();
    let kind_of_body = [("content-type", "application/x-ndjson")];
    let response = thread::scope(|scope| {
        let pushing = scope.spawn(|| gateway.http("POST", "/v1/push/batch", &kind_of_body, lines.as_bytes()));
        for _ in 0..20 {
            let heard = client.receive_publish();
            client.send(&acknowledge(kind::PUBACK, heard.id));
        }
        pushing.join().expect("an answer")
    });
    let text = String::from_utf8(response.body.clone()).expect("lines of JSON");
    let results: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(results.len(), 21);
    assert_eq!(results[20]["outcomes"]["delivered"], 20, "{}", results[20]);
}
