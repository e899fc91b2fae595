//! `/v1/devices`: where devices are, as the session store knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_bridge::BridgeConfig;
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Request, StoreError};
use serde_json::{Value, json};

use crate::api::Api;
use crate::shard::{Heard, Rig, memory_store, owner};

fn show(api: &Api, path: &str) -> Value {
    let (status, answer) = api.request(&format!("GET {path}"), "", "");
    assert_eq!(status, 200, "{answer}");
    answer
}

fn now_ms() -> u64 {
    u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Takes a time out of an answer, which must lie between two others.
fn take_ms(answer: &mut Value, name: &str, from: u64, to: u64) {
    let ms = answer[name].take().as_u64().unwrap();
    assert!((from..=to).contains(&ms), "{name}: {from} <= {ms} <= {to}");
}

#[test]
fn a_device_is_told_with_every_field_wherever_it_is() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let before = now_ms();
    let held = json!([{ "filter": "commands/#", "qos": 1 }]);
    for (client, filters, subscriptions) in
        [("lasting", &["commands/#"][..], held.clone()), ("passing", &[], Value::Null)]
    {
        let epoch = rig.session(client, owner(1), filters);
        let mut told = show(&api, &format!("/v1/devices/{client}"));
        // The store may know it to the second.
        take_ms(&mut told, "since_ms", before - 1_000, now_ms());
        let expected = json!({
            "client_id": client, "connected": true, "node": owner(1).node.to_string(), "shard": 0, "epoch": epoch.0,
            "persistent": !filters.is_empty(), "since_ms": null, "rests_until_ms": null, "pending": 0,
            "subscriptions": subscriptions,
        });
        assert_eq!(told, expected);
    }
    let epoch = rig.session("{r} ü", owner(1), &["commands/#", "devices/{r} ü/push"]);
    rig.rest("{r} ü", epoch);
    assert_eq!(api.post(&json!({ "device": "{r} ü", "payload": 1 })).1["outcome"], "queued");
    let mut told = show(&api, "/v1/devices/%7Br%7D%20%C3%BC");
    take_ms(&mut told, "since_ms", before - 1_000, now_ms());
    take_ms(&mut told, "rests_until_ms", before + 3_599_000, now_ms() + 3_600_000);
    let subscriptions =
        [json!({ "filter": "commands/#", "qos": 1 }), json!({ "filter": "devices/{r} ü/push", "qos": 1 })];
    let expected = json!({
        "client_id": "{r} ü", "connected": false, "node": null, "shard": null, "epoch": epoch.0, "persistent": true,
        "since_ms": null, "rests_until_ms": null, "pending": 1, "subscriptions": subscriptions,
    });
    assert_eq!(told, expected);
    let (status, missing) = api.request("GET /v1/devices/nobody", "", "");
    assert_eq!((status, &missing["type"]), (404, &json!("/v1/problems/not-found")));
}

#[test]
fn a_list_is_narrowed_by_node_and_by_connection() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let epoch = rig.session("resting", owner(1), &["a"]);
    rig.rest("resting", epoch);
    rig.session("first", owner(1), &["a"]);
    rig.session("second", owner(2), &[]);
    let names = |query: &str| -> BTreeSet<String> {
        let page = show(&api, &format!("/v1/devices{query}"));
        assert_eq!(page["next"], Value::Null);
        let devices = page["devices"].as_array().unwrap().iter();
        devices.map(|device| device["client_id"].as_str().unwrap().to_owned()).collect()
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(""), named(&["resting", "first", "second"]));
    assert_eq!(names("?connected=true"), named(&["first", "second"]));
    assert_eq!(names("?connected=false"), named(&["resting"]));
    let node = |number| owner(number).node.to_string();
    assert_eq!(names(&format!("?node={}", node(1))), named(&["first"]));
    assert_eq!(names(&format!("?connected=true&node={}", node(2))), named(&["second"]));
    assert_eq!(names(&format!("?connected=false&node={}", node(2))), named(&[]), "who rests is at no node");
    assert_eq!(names(&format!("?node={}", node(9))), named(&[]));
    let page = show(&api, "/v1/devices?connected=false");
    let mut told = page["devices"][0].clone();
    take_ms(&mut told, "since_ms", 1, now_ms());
    let expected = json!({
        "client_id": "resting", "connected": false, "node": null, "shard": null, "epoch": epoch.0, "persistent": true, "since_ms": null,
    });
    assert_eq!(told, expected);
    for query in ["connected=yes", "limit=0", "limit=1001", "node=1", "page=!", "page=AAAA", "colour=red"] {
        let (status, problem) = api.request(&format!("GET /v1/devices?{query}"), "", "");
        assert_eq!((status, &problem["type"]), (400, &json!("/v1/problems/invalid")), "{query}");
    }
}

/// Holds sessions in another format.
struct Foreign(Arc<dyn Store>);

impl Store for Foreign {
    fn submit(&self, request: Request, reply: ReplyTo) {
        match request {
            Request::Sessions { .. } => reply(Err(StoreError::Unreadable("format 9".to_owned()))),
            request => self.0.submit(request, reply),
        }
    }
}

#[test]
fn a_store_that_cannot_be_read_is_not_held_against_whoever_asks() {
    let rig = Rig::start_with(BridgeConfig::default(), Arc::new(Foreign(memory_store())));
    let api = Api::of(&rig);
    let (status, problem) = api.request("GET /v1/devices", "", "");
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/store-unreadable")));
    let (status, problem) = api.request("GET /v1/devices?page=AAAA", "", "");
    assert_eq!((status, &problem["type"]), (400, &json!("/v1/problems/invalid")), "it may be the page");
}

#[test]
fn a_page_may_be_empty_and_not_the_last() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    for number in 0..10 {
        rig.session(&format!("d{number}"), owner(1), &["a"]);
    }
    let epoch = rig.session("resting", owner(1), &["a"]);
    rig.rest("resting", epoch);
    let (mut found, mut empty, mut page) = (Vec::new(), 0, String::new());
    loop {
        let answer = show(&api, &format!("/v1/devices?connected=false&limit=1{page}"));
        let devices = answer["devices"].as_array().unwrap();
        empty += usize::from(devices.is_empty());
        found.extend(devices.iter().map(|device| device["client_id"].clone()));
        let Some(next) = answer["next"].as_str() else { break };
        page = format!("&page={next}");
    }
    assert_eq!((found, empty >= 9), (vec![json!("resting")], true), "{empty} pages were empty");
}

#[test]
fn an_end_is_told_to_the_gateway_and_refused_while_it_has_no_link() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    rig.session("d/1", owner(1), &["a"]);
    let epoch = rig.session("away", owner(1), &["a"]);
    rig.rest("away", epoch);
    let end = |client: &str| api.request(&format!("DELETE /v1/devices/{client}"), "", "");
    let (status, problem) = end("d%2F1");
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/busy")));
    assert!(problem["detail"].as_str().unwrap().contains(&owner(1).node.to_string()), "{problem}");
    let mut shard = rig.shard(1);
    assert_eq!(end("d%2F1"), (202, Value::Null));
    assert_eq!(shard.hear(), Heard::Disconnect("d/1".into()));
    for client in ["away", "nobody"] {
        let (status, problem) = end(client);
        assert_eq!((status, &problem["type"]), (404, &json!("/v1/problems/not-found")), "{client}");
    }
    assert_eq!(end("%ff").0, 400);
}

#[test]
fn a_name_that_is_too_long_for_an_address_comes_in_a_body() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    let name = "ü/{} ".repeat(10_922) + "end";
    assert_eq!(name.len(), 65_535, "it is as long as it can be");
    let epoch = rig.session(&name, owner(1), &["news"]);
    let ask = |body: &Value| api.request("POST /v1/devices", &body.to_string(), "");
    let (status, told) = ask(&json!({ "find": name }));
    assert_eq!((status, &told["client_id"], &told["connected"]), (200, &json!(name), &json!(true)));
    assert_eq!(ask(&json!({ "disconnect": name })).0, 202);
    assert_eq!(shard.hear(), Heard::Disconnect(name.clone()));
    rig.rest(&name, epoch);
    assert_eq!(ask(&json!({ "disconnect": name })).0, 404);

    // It has no place in `push.topic`, which is told, and a topic of its own reaches it.
    let (status, problem) = api.post(&json!({ "device": name, "payload": 1 }));
    assert_eq!((status, &problem["type"]), (400, &json!("/v1/problems/invalid")));
    assert!(problem["detail"].as_str().unwrap().ends_with("name a topic"), "{problem}");
    let push = json!({ "device": name, "topic": "news", "payload": "1" });
    assert_eq!(api.post(&push).1["outcome"], "queued");
    assert_eq!(rig.stream(StreamKey::Device((&*name).into())), ["1"]);
    let (_, added) = api.request("PUT /v1/groups/g/members", &json!([name]).to_string(), "");
    assert_eq!(added["added"], 1);
    let (_, members) = api.request("GET /v1/groups/g/members", "", "");
    assert_eq!(members["members"], json!([name]));
    let push = json!({ "group": "g", "topic": "news", "payload": "2" });
    assert_eq!(api.post(&push).1["outcomes"]["queued"], 1);

    // A list that names it is as long as it is.
    assert_eq!(show(&api, "/v1/devices")["devices"][0]["client_id"], json!(name));
    // No longer than it must be, so that it is read to its end.
    let longer = r#"{"find":"d"}"#.to_owned() + &" ".repeat(394_223);
    for (body, status, kind) in [
        ("", 400, "malformed"),
        ("{}", 400, "invalid"),
        (r#"{"find":1}"#, 400, "invalid"),
        (r#"{"end":"d"}"#, 400, "invalid"),
        (&*longer, 413, "too-large"),
    ] {
        let (answered, problem) = api.request("POST /v1/devices", body, "");
        assert_eq!((answered, &problem["type"]), (status, &json!(format!("/v1/problems/{kind}"))), "{body}");
    }
    rig.ask(Request::DropGroup { group: "g".into() }).unwrap();
}
