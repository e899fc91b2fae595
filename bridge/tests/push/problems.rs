//! Whatever is no outcome is a problem with a type that stays.

use std::net::TcpListener;

use holdfast_bridge::admin::{self, Admin};
use holdfast_bridge::config::PushConfig;
use holdfast_bridge::push;
use holdfast_http::Kind;
use serde_json::json;

use crate::api::{Api, bounded, post, request};
use crate::shard::Rig;

#[test]
fn a_request_that_makes_no_sense_is_told_why() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    for (body, problem, hint) in [
        ("", "malformed", "there is nothing in it"),
        (r#"{"device":"d","payload":"1"#, "malformed", "payload: it ends before"),
        (r#"{"device":"\u12"}"#, "malformed", "device: no JSON at line 1, column 17: an escape must be"),
        (r#"{"device":"d","payload":"\ud800"}"#, "invalid", "payload: an escape stands for no character"),
        ("[]", "malformed", "must be a JSON object"),
        (
            r#"{"device":"d","payload":tru}"#,
            "malformed",
            "payload: no JSON at line 1, column 28: must be true, false or null",
        ),
        ("{}", "invalid", "name a device or a topic or a group"),
        (r#"{"device":"d"}"#, "invalid", "give a payload"),
        ("{device:1}", "malformed", "no JSON at line 1, column 2: key must be a string"),
        (r#"{"device":7,"payload":1}"#, "invalid", "device: must be a string, not integer `7`"),
        (r#"{"device":"d","payload":1,"retain":null}"#, "invalid", "retain: must be a boolean, not null"),
        (r#"{"device":"d","payload":1,"qos":-1}"#, "invalid", "qos = -1: must be 0, 1 or 2"),
        (
            r#"{"device":"d","payload":1,"wait_ms":"1s"}"#,
            "invalid",
            "wait_ms = \"1s\": must be a whole number of milliseconds",
        ),
        (r#"{"device":"d","payload":1,"ttl":5}"#, "invalid", "unknown field `ttl`"),
        (r#"{"device":"d","payload":1,"qos":3}"#, "invalid", "qos"),
        (r#"{"device":"d","payload":1,"ttl_s":0}"#, "invalid", "ttl_s"),
        (r#"{"device":"","payload":1}"#, "invalid", "device"),
        (r#"{"device":"a+b","payload":1}"#, "invalid", "device: \"a+b\" cannot stand in push.topic"),
        (r#"{"device":"d","topic":"a/+","payload":1}"#, "invalid", "topic"),
        (r#"{"device":"d","group":"g","payload":1}"#, "invalid", "not both"),
        (r#"{"group":"a b","payload":1}"#, "invalid", "group: a group's name is 1 to 128 of"),
        (r#"{"group":".","payload":1}"#, "invalid", "group: a group's name begins with"),
        (r#"{"topic":"a/#","payload":1}"#, "invalid", "topic"),
        (r#"{"device":"d","payload":1,"retain":true}"#, "invalid", "retain"),
        (r#"{"topic":"a","payload":1,"collapse_key":"k"}"#, "invalid", "collapse_key: subscribers"),
        (r#"{"device":"d","payload":1,"collapse_key":""}"#, "invalid", "collapse_key: 1 to 256 bytes"),
        (r#"{"device":"d","payload":1,"payload_base64":""}"#, "invalid", "not both"),
        (r#"{"device":"d","payload_base64":"AA*="}"#, "invalid", "payload_base64: must be base64"),
        (r#"{"device":"d","payload_base64":"AA*="}"#, "invalid", "not at byte 2"),
        (r#"{"device":"d","payload":1,"id":""}"#, "invalid", "id"),
    ] {
        let (status, answer) = post(api.address, body, "");
        assert_eq!((status, &answer["type"]), (400, &json!(format!("/v1/problems/{problem}"))), "{body}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(hint) && !detail.starts_with(['.', '?']), "{body}: {detail}");
    }
}

#[test]
fn a_query_that_makes_no_sense_is_told_by_its_field_and_what_is_allowed() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    for (line, body, expected) in [
        ("GET /v1/devices?connected=yes", "", "connected = \"yes\": must be true or false"),
        ("GET /v1/devices?limit=ten", "", "limit = \"ten\": must be 1 to 1000"),
        ("GET /v1/groups/g/members?limit=-1", "", "limit = \"-1\": must be 1 to 1000"),
        ("POST /v1/push/batch?results=all", "", "the query: results: must be stream or counts, not \"all\""),
        (
            "PUT /v1/groups/g/members",
            r#"["a",1]"#,
            "[1]: must be a string, not integer `1`; give a list of client ids",
        ),
        ("PUT /v1/groups/g/members", "{}", "must be a sequence, not map; give a list of client ids"),
    ] {
        let (status, answer) = api.request(line, body, "");
        assert_eq!((status, &answer["detail"]), (400, &json!(expected)), "{line}");
    }
    for line in [
        "GET /v1/devices",
        "GET /v1/devices/d",
        "DELETE /v1/devices/d",
        "POST /v1/devices",
        "POST /v1/push",
        "POST /v1/push/batch",
        "GET /v1/groups/g/members",
        "PUT /v1/groups/g/members",
        "DELETE /v1/groups/g/members",
        "DELETE /v1/groups/g",
        "GET /v1/problems/busy",
        "GET /v1/openapi.json",
    ] {
        let (status, answer) = api.request(&format!("{line}?colour=red"), "", "");
        assert_eq!((status, &answer["type"]), (400, &json!("/v1/problems/invalid")), "{line}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.starts_with("the query: ") && detail.contains("unknown field `colour`"), "{detail}");
    }
}

#[test]
fn whoever_asks_for_something_else_is_told_in_the_same_words() {
    let rig = bounded(PushConfig { body_bytes_max: 100, ..PushConfig::default() });
    let api = Api::of(&rig);
    let large = "x".repeat(200);
    let xml = "Content-Type: text/xml\r\n";
    for (line, body, headers, status, problem) in [
        ("GET /v1/push", "", "", 405, "method-not-allowed"),
        ("PATCH /v1/groups/g/members", "", "", 405, "method-not-allowed"),
        ("POST /v1/push/d", "", "", 404, "not-found"),
        ("GET /v1/devices/%zz", "", "", 400, "malformed"),
        ("GET /v1/groups/g/members?page=%2", "", "", 400, "malformed"),
        ("POST /v1/devices", "{", "", 400, "malformed"),
        ("POST /v1/devices", "[]", "", 400, "invalid"),
        ("POST /v1/devices", "<find/>", xml, 415, "unsupported-media-type"),
        ("GET /v1/problems/none", "", "", 404, "not-found"),
        ("POST /v1/push", &*large, "", 413, "too-large"),
        ("PUT /v1/groups/g/members", &*large, "", 413, "too-large"),
        ("POST /v1/push", "<push/>", xml, 415, "unsupported-media-type"),
        ("POST /v1/push/batch", "<push/>", xml, 415, "unsupported-media-type"),
        ("PUT /v1/groups/g/members", "<push/>", xml, 415, "unsupported-media-type"),
        ("POST /v1/push", "{}", "Content-Encoding: gzip\r\n", 415, "unsupported-media-type"),
        ("POST /v1/push?result=stream", "{}", "", 400, "invalid"),
        ("POST /v1/push?results=all", "{}", "", 400, "invalid"),
        ("POST /v1/push?results=stream", r#"{"device":"d","payload":1}"#, "", 400, "invalid"),
        ("POST /v1/push/batch?results=all", "{}", "", 400, "invalid"),
        ("POST /v1/push/batch", "{}", "Idempotency-Key: x\r\n", 400, "invalid"),
        ("GET /v1/groups/g/members?limit=0", "", "", 400, "invalid"),
        ("GET /v1/groups/g/members?page=%2F", "", "", 400, "invalid"),
        ("GET /v1/groups/a%20b/members", "", "", 400, "invalid"),
        ("DELETE /v1/groups/%ff", "", "", 400, "invalid"),
        ("PUT /v1/groups/g/members", "{}", "", 400, "invalid"),
        ("PUT /v1/groups/g/members", "[1]", "", 400, "invalid"),
        ("PUT /v1/groups/g/members", r#"[""]"#, "", 400, "invalid"),
        ("PUT /v1/groups/g/members", "[", "", 400, "malformed"),
    ] {
        let (answered, answer) = api.request(line, body, headers);
        let expected = (status, &json!(format!("/v1/problems/{problem}")));
        assert_eq!((answered, &answer["type"]), expected, "{line} {body}: {answer}");
    }
}

#[test]
fn a_body_that_is_said_to_be_too_long_is_refused_before_it_comes() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    for line in ["POST /v1/push", "POST /v1/devices", "PUT /v1/groups/g/members"] {
        assert_eq!(api.open(line, 99_999_999_999).status(), 413, "{line}");
    }
}

#[test]
fn a_server_of_the_bridge_has_no_other_words_for_what_it_does_not_know() {
    let rig = Rig::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin { metrics: Box::new(String::new), drain: Box::new(|| ()) };
    let routes = admin::router(rig.bridge.clone(), admin).merge(push::router(rig.bridge.clone()));
    rig.bridge.serve(listener, routes).unwrap();
    for (line, status, problem) in [
        ("GET /v1/pushes", 404, "not-found"),
        ("GET /", 404, "not-found"),
        ("PUT /v1/push", 405, "method-not-allowed"),
        ("POST /metrics", 405, "method-not-allowed"),
    ] {
        let (answered, answer) = request(address, line, "", "");
        let expected = (status, &json!(format!("/v1/problems/{problem}")));
        assert_eq!((answered, &answer["type"]), expected, "{line}");
    }
}

#[test]
fn a_problem_is_explained_at_its_address_and_in_the_docs() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let docs = include_str!("../../../docs/pushes.md");
    let table = docs.split("## Problems").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<_> = table.lines().filter_map(|row| row.strip_prefix("| `")).collect();
    assert_eq!(rows.len(), Kind::ALL.len());
    for row in rows {
        let (name, rest) = row.split_once('`').unwrap();
        let (status, answer) = api.request(&format!("GET /v1/problems/{name}"), "", "");
        assert_eq!((status, &answer["type"]), (200, &json!(format!("/v1/problems/{name}"))));
        assert_eq!(rest.split('|').nth(1).map(str::trim), Some(&*answer["status"].to_string()), "{row}");
        assert!(!answer["meaning"].as_str().unwrap().is_empty());
    }
}
