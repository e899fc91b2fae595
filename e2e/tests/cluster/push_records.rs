//! Pushes that come as records of Kafka, their receipts, and the book of connections, through real processes from end to end.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_e2e::packet::{Connect, Publish, Version, acknowledge, kind, properties};
use holdfast_e2e::{Client, Cluster, ClusterSetup, request};
use serde_json::{Value, json};

use crate::fleet::persistent;
use crate::topic::{Record, Topic};

const NOW: Duration = Duration::ZERO;
const MINUTE: Duration = Duration::from_mins(1);

fn start() -> Cluster {
    let setup = ClusterSetup::new().gateways(2).set_gateways("link.events", true);
    let setup = setup.set_bridges("pushes.topic", "holdfast.pushes");
    setup.set_bridges("events.topic", "holdfast.events").start()
}

/// A subscriber of its pushes, with QoS 2.
fn device(cluster: &Cluster, gateway: usize, client_id: &str) -> Client {
    let connect = persistent(Version::V5, client_id);
    let (mut client, _) = Client::connect(cluster.gateways[gateway].address("mqtt"), &connect);
    assert_eq!(client.subscribe(&format!("devices/{client_id}/push"), 2), 2);
    client
}

/// The next message, acknowledged as its QoS wants it.
fn hear(client: &mut Client) -> Publish {
    let heard = client.receive_publish();
    match heard.qos {
        0 => {}
        1 => client.send(&acknowledge(kind::PUBACK, heard.id)),
        _ => {
            client.send(&acknowledge(kind::PUBREC, heard.id));
            assert_eq!(client.receive_kind(kind::PUBREL).id(), heard.id);
            client.send(&acknowledge(kind::PUBCOMP, heard.id));
        }
    }
    heard
}

fn text(publish: &Publish) -> (&str, &[u8], u8) {
    (&publish.topic, &publish.payload, publish.qos)
}

/// The receipt of a push. Whether there is only one is seen in the end.
fn receipt(receipts: &mut Topic, id: &str) -> Record {
    receipts.await_records(1, |record| record.value["id"] == id).remove(0)
}

/// How often each value occurs.
fn count(values: impl Iterator<Item = Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn pushes_by_record_reach_a_device_a_topic_and_a_group_and_each_leaves_its_receipt() {
    let cluster = start();
    let brokers = cluster.kafka.brokers();
    let pushes = Topic::open(&brokers, "holdfast.pushes");
    let mut receipts = Topic::open(&brokers, "holdfast.receipts");
    let mut here = device(&cluster, 0, "here");
    device(&cluster, 0, "away").leave();
    let mut fan = Client::open(cluster.gateways[1].address("mqtt"), Version::V311, "fan");
    assert_eq!(fan.subscribe("scores/#", 1), 1);
    let lines = [("content-type", "text/plain")];
    let push = cluster.bridges[0].address("push");
    let added = request(push, "PUT", "/v1/groups/fans/members", &lines, b"here\naway\n").expect("an answer");
    assert_eq!(added.json()["added"], 2);

    // To one that is there, by each QoS.
    for qos in [0, 1, 2_u8] {
        let id = format!("live-{qos}");
        let push = json!({"device": "here", "payload": qos, "qos": qos, "id": id});
        pushes.write("here", &push.to_string(), NOW);
        let heard = hear(&mut here);
        assert_eq!(text(&heard), ("devices/here/push", qos.to_string().as_bytes(), qos));
        let told = receipt(&mut receipts, &id);
        assert_eq!((told.key.as_str(), &told.value["outcome"]), ("here", &json!("delivered")), "{told:?}");
        assert_eq!(told.value["source"]["topic"], "holdfast.pushes", "{told:?}");
    }

    // To one that is away: kept, unless that is pointless.
    let to_away = |id: &str, qos: u8, ttl_s: u32, age: Duration| {
        let push = json!({"device": "away", "payload": id, "qos": qos, "ttl_s": ttl_s, "id": id});
        pushes.write("away", &push.to_string(), age);
    };
    to_away("kept", 1, 600, MINUTE);
    to_away("too old", 1, 59, MINUTE);
    to_away("not kept", 0, 600, NOW);
    let mut outcome = |id: &str| {
        let told = receipt(&mut receipts, id).value;
        (told["outcome"].clone(), told["reason"].clone())
    };
    assert_eq!(outcome("kept"), (json!("queued"), Value::Null));
    assert_eq!(outcome("too old"), (json!("expired"), Value::Null));
    assert_eq!(outcome("not kept"), (json!("refused"), json!("not_connected")));

    // One whose time has passed does not reach one that is there either.
    let late = json!({"device": "here", "payload": "late", "ttl_s": 5, "id": "late"});
    pushes.write("here", &late.to_string(), MINUTE);
    assert_eq!(outcome("late"), (json!("expired"), Value::Null));
    here.ping();

    // To all that listen, and to a group.
    pushes.write("", &json!({"topic": "scores/final", "payload": "2:1", "id": "score"}).to_string(), NOW);
    assert_eq!(text(&hear(&mut fan)), ("scores/final", &b"2:1"[..], 1));
    assert_eq!(outcome("score"), (json!("accepted"), Value::Null));
    pushes.write("", &json!({"group": "fans", "payload": "goal", "id": "goal"}).to_string(), NOW);
    assert_eq!(hear(&mut here).payload, b"goal");
    let told = receipt(&mut receipts, "goal").value;
    let counts = json!({"delivered": 1, "queued": 1, "expired": 0, "refused": 0});
    assert_eq!((&told["outcome"], &told["outcomes"]), (&json!("done"), &counts), "{told}");

    // What is no push holds nobody up.
    pushes.write("", "not JSON", NOW);
    pushes.write("", &json!({"device": "here", "payload": "last", "id": "last"}).to_string(), NOW);
    assert_eq!(hear(&mut here).payload, b"last");
    receipt(&mut receipts, "last");
    let refused = receipts.await_records(1, |record| record.value["reason"] == "invalid").remove(0);

    // Back at the other gateway: what was kept is there, and what is left of its time to live counts from the record.
    let connect = persistent(Version::V5, "away");
    let (mut away, answer) = Client::connect(cluster.gateways[1].address("mqtt"), &connect);
    assert!(answer.session_present());
    let mut kept = [hear(&mut away), hear(&mut away)];
    kept.sort_by(|one, other| other.payload.cmp(&one.payload));
    assert_eq!(kept.each_ref().map(|heard| heard.payload.as_slice()), [&b"kept"[..], b"goal"]);
    let expiry =
        properties(&kept[0].properties).into_iter().find(|(id, _)| *id == 2).expect("its time to live");
    let left_s = u32::from_be_bytes(expiry.1.try_into().expect("four bytes"));
    assert!((1..=540).contains(&left_s), "600 s from a minute before it came: {left_s}");
    away.ping();

    // Every record of those above has one receipt: by its id, and by its place.
    let all = receipts.read_to_end();
    let no_push = refused.value["id"].as_str().expect("its place");
    let ids = ["goal", "kept", "last", "late", "live-0", "live-1", "live-2", "not kept", "score", "too old"];
    let once: BTreeMap<_, _> =
        ids.into_iter().chain([no_push]).map(|id| (json!(id).to_string(), 1)).collect();
    assert_eq!(count(all.iter().map(|receipt| receipt.value["id"].clone())), once, "{all:?}");
    let places = count(all.iter().map(|receipt| receipt.value["source"].clone()));
    assert_eq!(places.len(), once.len(), "{all:?}");
}

#[test]
fn connections_that_begin_end_and_move_are_in_the_book() {
    let cluster = start();
    let mut book = Topic::open(&cluster.kafka.brokers(), "holdfast.events");
    let doors = [0, 1].map(|gateway| cluster.gateways[gateway].address("mqtt"));
    let connect = persistent(Version::V5, "mover");
    let (mut former, _) = Client::connect(doors[0], &connect);
    let (mover, answer) = Client::connect(doors[1], &connect);
    assert!(answer.session_present());
    former.receive_to_end();
    mover.leave();
    let (mut quiet, _) = Client::connect(doors[0], &Connect::new(Version::V311, "quiet").keep_alive_s(1));
    // Says nothing until it is given up.
    quiet.receive_to_end();
    Client::open(doors[0], Version::V5, "gone").cut();

    book.await_records(8, |_| true);
    let all = book.read_to_end();
    let of = |client: &str| -> Vec<&Value> {
        all.iter().filter(|record| record.key == client).map(|record| &record.value).collect()
    };
    let mut moved = of("mover");
    // Two gateways tell of one client: `epoch` orders their events, and those of one gateway are in order.
    moved.sort_by_key(|event| event["epoch"].as_u64());
    let [connected, taken_over, again, left] = &moved[..] else {
        panic!("four things happened to it: {moved:?}")
    };
    let names = [connected, taken_over, again, left].map(|event| event["event"].as_str().unwrap_or_default());
    assert_eq!(names, ["connected", "taken_over", "connected", "disconnected"], "{moved:?}");
    assert_eq!(connected["protocol"], "mqtt-5");
    assert_eq!((&connected["session_present"], &again["session_present"]), (&json!(false), &json!(true)));
    assert_eq!(connected["session_expiry_s"], 3600);
    assert_eq!((&connected["node"], &connected["epoch"]), (&taken_over["node"], &taken_over["epoch"]));
    assert_ne!(again["node"], taken_over["node"]);
    assert!(again["epoch"].as_u64() > connected["epoch"].as_u64(), "{moved:?}");
    assert_eq!((&left["reason"], &left["session_ended"]), (&json!("client_disconnected"), &json!(false)));

    for (client, reason) in [("quiet", "keep_alive_timeout"), ("gone", "peer_closed")] {
        let events = of(client);
        let [began, ended] = &events[..] else { panic!("{client} came and went: {events:?}") };
        assert_eq!(began["event"], "connected", "{events:?}");
        assert_eq!((&ended["event"], &ended["reason"]), (&json!("disconnected"), &json!(reason)));
        assert_eq!(ended["session_ended"], true, "{events:?}");
    }
    assert_eq!(all.len(), 8, "nobody else was there: {all:?}");
}
