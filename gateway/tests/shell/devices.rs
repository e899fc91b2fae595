//! Where a device is, as the admin server tells: connected here, connected elsewhere, resting, unknown.

use std::sync::Arc;
use std::sync::mpsc::channel;

use holdfast_store::{MemoryStore, Store};
use holdfast_wire::ids::{ClientId, NodeId, Owner, ShardId};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::SubscriptionRecord;
use holdfast_wire::store::{Progress, Reply, Request};
use serde_json::{Value, json};

use crate::{World, http, memory, wait_until};

const ELSEWHERE: Owner = Owner { node: NodeId(0xe15e), shard: ShardId(3) };

fn ask(store: &MemoryStore, request: Request) -> Reply {
    let (reply, replied) = channel();
    store.submit(request, Box::new(move |answer| reply.send(answer).expect("it is waited for")));
    replied.recv().expect("an answer").expect("it is done")
}

/// A session of another node, with a subscription if it outlives its connection.
fn open_elsewhere(store: &MemoryStore, client: &str, expiry_s: u32) -> holdfast_wire::ids::Epoch {
    let client = ClientId::new(client);
    let open =
        Request::Open { client: client.clone(), owner: ELSEWHERE, clean_start: false, expiry_s, will: None };
    let Reply::Opened(opened) = ask(store, open) else { panic!("it opens") };
    let held = SubscriptionRecord {
        filter: "commands/#".into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    };
    if expiry_s > 0 {
        ask(store, Request::Subscribe { client, epoch: opened.epoch, subscriptions: vec![held] });
    }
    opened.epoch
}

fn found(world: &World, path: &str) -> Value {
    let answer = http::get(world.admin(), path);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("not that much later")
}

/// Takes a time out of an answer, which must lie between two others.
fn take_ms(answer: &mut Value, name: &str, from: u64, to: u64) {
    let ms = answer[name].take().as_u64().expect("a time");
    assert!((from..=to).contains(&ms), "{name}: {from} <= {ms} <= {to}");
}

#[test]
fn of_a_connection_of_its_own_it_tells_everything() {
    let world = World::start();
    let before = now_ms();
    let mut client = world.connect("plant/7");
    client.subscribe("commands/#");
    let mut told = found(&world, "/v1/devices/plant%2F7");
    take_ms(&mut told, "since_ms", before, now_ms());
    let (shard, epoch) = (told["shard"].take(), told["epoch"].take());
    assert!(shard.as_u64().is_some_and(|shard| shard < 2) && epoch.as_u64().is_some_and(|epoch| epoch > 0));
    let expected = json!({
        "client_id": "plant/7", "connected": true, "node": world.node.node().to_string(), "shard": null, "epoch": null,
        "persistent": false, "since_ms": null, "rests_until_ms": null, "pending": 0,
        "subscriptions": [{ "filter": "commands/#", "qos": 0 }],
        "protocol": "mqtt-3.1.1", "websocket": false, "keep_alive_s": 0, "session_expiry_s": 0, "owed": 0, "inflight": 0,
        "blocked": false, "paused": false,
    });
    assert_eq!(told, expected);
}

#[test]
fn of_a_session_that_rests_or_is_elsewhere_it_tells_what_the_store_knows() {
    let store = memory();
    let world = World::start_on(Arc::clone(&store) as Arc<dyn Store>, |node| node, |_| ());
    let before = now_ms();
    let epoch = open_elsewhere(&store, "{r} ü", 60);
    let progress = Progress::default();
    ask(&store, Request::Close { client: ClientId::new("{r} ü"), epoch, expiry_s: 60, progress, will: None });
    let mut resting = found(&world, "/v1/devices/%7Br%7D%20%C3%BC");
    // The store may know it to the second.
    take_ms(&mut resting, "since_ms", before - 1_000, now_ms());
    take_ms(&mut resting, "rests_until_ms", before + 59_000, now_ms() + 60_000);
    let expected = json!({
        "client_id": "{r} ü", "connected": false, "node": null, "shard": null, "epoch": epoch.0, "persistent": true,
        "since_ms": null, "rests_until_ms": null, "pending": 0, "subscriptions": [{ "filter": "commands/#", "qos": 1 }],
    });
    assert_eq!(resting, expected);

    for (client, expiry_s) in [("lasting", 60), ("passing", 0)] {
        let epoch = open_elsewhere(&store, client, expiry_s);
        let mut there = found(&world, &format!("/v1/devices/{client}"));
        take_ms(&mut there, "since_ms", before - 1_000, now_ms());
        let held = json!([{ "filter": "commands/#", "qos": 1 }]);
        let expected = json!({
            "client_id": client, "connected": true, "node": ELSEWHERE.node.to_string(), "shard": 3, "epoch": epoch.0,
            "persistent": expiry_s > 0, "since_ms": null, "rests_until_ms": null, "pending": 0,
            "subscriptions": if expiry_s > 0 { held } else { Value::Null },
        });
        assert_eq!(there, expected, "{client}");
        let order = http::request(world.admin(), "DELETE", &format!("/v1/devices/{client}"));
        assert_eq!(order.status, 404, "it ends only connections of its own");
        let why = format!("the device is connected to node {}: ask that node, or a bridge", ELSEWHERE.node);
        assert_eq!(order.json()["detail"], why);
    }
}

#[test]
fn a_device_that_nobody_knows_is_a_problem_with_its_type_and_status() {
    let world = World::start();
    let missing = http::get(world.admin(), "/v1/devices/nobody");
    let expected = json!({
        "type": "/v1/problems/not-found", "title": "Nothing is here", "status": 404, "detail": "no such session",
    });
    assert_eq!((missing.status, missing.json()), (404, expected));
}

#[test]
fn a_name_that_is_too_long_for_an_address_comes_in_a_body() {
    let world = World::start_with(|config| config.limits.client_id_bytes_max = 65_535);
    let name = "ü/{} ".repeat(10_922) + "end";
    assert_eq!(name.len(), 65_535, "it is as long as it can be");
    let _client = world.connect(&name);
    let post = |body: &Value| http::post(world.admin(), "/v1/devices", &body.to_string());
    let told = post(&json!({ "find": name }));
    assert_eq!((told.status, &told.json()["client_id"]), (200, &json!(name)));
    assert_eq!(post(&json!({ "disconnect": name })).status, 204);
    wait_until("it is gone", || post(&json!({ "disconnect": name })).status == 404);
    assert_eq!(post(&json!({ "find": name })).status, 404);
    // No longer than it must be, so that it is read to its end.
    let longer = r#"{"find":"d"}"#.to_owned() + &" ".repeat(394_223);
    for (body, status, kind) in [
        ("", 400, "malformed"),
        (r#"{"find""#, 400, "malformed"),
        ("{}", 400, "invalid"),
        ("[]", 400, "invalid"),
        (r#"{"find":1}"#, 400, "invalid"),
        (r#"{"end":"d"}"#, 400, "invalid"),
        (&*longer, 413, "too-large"),
    ] {
        let refused = http::post(world.admin(), "/v1/devices", body);
        let told = (refused.status, refused.json()["type"].clone());
        assert_eq!(told, (status, json!(format!("/v1/problems/{kind}"))), "{body}");
    }
    // Whoever tries the address hears that it is too long.
    let refused = http::get(world.admin(), &format!("/v1/devices/{}", "x".repeat(65_535)));
    assert_eq!((refused.status, &refused.json()["type"]), (414, &json!("/v1/problems/address-too-long")));
}
