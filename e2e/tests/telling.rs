//! What processes say of themselves, and how little they do while nobody wants anything.

use std::fs;
use std::time::Duration;

use holdfast_e2e::packet::{Connect, Version};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, ClusterSetup, Gateway, Redis, Role, RoleSetup, request, run};
use serde_json::Value;

/// A bridge with a log in place of Kafka, and a gateway of its own.
fn pair(redis: &Redis) -> (Role, Role) {
    let bridge = RoleSetup::bridge().argument("--sink", "log").argument("--store", redis.url()).start();
    let gateway = RoleSetup::gateway().argument("--bridge", bridge.address("link"));
    let gateway = gateway.argument("--store", redis.url()).start();
    (bridge, gateway)
}

#[test]
fn every_process_shows_the_commit_that_its_binary_names() {
    let said = run(&["--version"], PATIENCE).stdout;
    let commit = said.trim().split_once(" (").and_then(|(_, commit)| commit.strip_suffix(')'));
    let commit = commit.unwrap_or_else(|| panic!("no commit in: {said}"));
    assert!(!commit.is_empty(), "{said}");
    let redis = Redis::any();
    let (dev, (bridge, gateway)) = (Gateway::start(), pair(&redis));
    for metrics in [dev.metrics(), bridge.metrics(), gateway.metrics()] {
        assert_eq!(metrics.sum("holdfast_build_info", &[("commit", commit)]), 1);
    }
}

#[test]
fn a_request_is_judged_alike_by_dev_by_a_gateway_and_by_a_bridge() {
    let redis = Redis::any();
    let (dev, (bridge, gateway)) = (Gateway::start(), pair(&redis));
    let servers = [dev.admin(), gateway.address("admin"), bridge.address("push")];
    let (long, xml) = ("x".repeat(65_535), ("content-type", "text/xml"));
    let larger = r#"{"find":"d"}"#.to_owned() + &" ".repeat(394_223);
    for (method, path, header, body, status, problem) in [
        ("GET", "/v1/devices/nobody", None, "", 404, "not-found"),
        ("GET", "/v1/devices/%zz", None, "", 400, "malformed"),
        ("GET", "/v1/devices/%ff", None, "", 400, "invalid"),
        ("DELETE", "/v1/devices/%2", None, "", 400, "malformed"),
        ("PATCH", "/v1/devices/d", None, "", 405, "method-not-allowed"),
        ("GET", &*format!("/v1/devices/{long}"), None, "", 414, "address-too-long"),
        ("POST", "/v1/devices", None, "", 400, "malformed"),
        ("POST", "/v1/devices", None, "{", 400, "malformed"),
        ("POST", "/v1/devices", None, "{}", 400, "invalid"),
        ("POST", "/v1/devices", None, r#"{"find":7}"#, 400, "invalid"),
        ("POST", "/v1/devices", None, r#"{"find":"nobody"}"#, 404, "not-found"),
        ("POST", "/v1/devices", Some(xml), "<find/>", 415, "unsupported-media-type"),
        ("POST", "/v1/devices", None, &*larger, 413, "too-large"),
        ("GET", "/nowhere", None, "", 404, "not-found"),
        ("GET", "/v1/problems/nonsense", None, "", 404, "not-found"),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let told = servers.map(|server| {
            let answer = request(server, method, path, &headers, body.as_bytes()).expect("an answer");
            assert_eq!(answer.status, status, "{method} {path:.40} {body:.40}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            let mut problem: Value = answer.json();
            // Where to look for what there is differs.
            if [404, 405].contains(&status) && !path.starts_with("/v1/devices/") {
                problem["detail"].take();
            }
            problem
        });
        assert_eq!(told[0]["type"], format!("/v1/problems/{problem}"), "{method} {path:.40} {body:.40}");
        if status != 405 {
            assert!(told[1] == told[0] && told[2] == told[0], "{told:#?}");
        }
        let explained = servers.map(|server| {
            let path = told[0]["type"].as_str().expect("a problem has a type");
            request(server, "GET", path, &[], b"").expect("an answer").json()
        });
        assert!(explained.iter().all(|explained| explained["title"] == told[0]["title"]), "{explained:#?}");
    }
}

#[test]
fn a_bridge_says_when_redis_has_lost_its_data_and_when_it_is_written_back() {
    let redis = Redis::start();
    let (bridge, gateway) = pair(&redis);
    let (mut device, _) =
        Client::connect(gateway.address("mqtt"), &Connect::new(Version::V5, "device").persistent());
    assert_eq!(device.subscribe("news/#", 1), 1);
    let lines = |what: &str| bridge.stderr().lines().filter(|line| line.contains(what)).count();
    // Once it is noticed, it is told once. That no filter is there is no end of it, however long the gateway takes.
    for losses in 1..=2 {
        // It must have renewed its lease since the last one.
        until_true("the bridge to have a lease", PATIENCE, || {
            let known = redis.ask("ZCARD hf{0}:lease");
            known == "2"
        });
        assert_eq!(redis.ask("FLUSHALL"), "OK");
        until_true("the loss to be told", PATIENCE, || {
            lines("the session store has lost its data") == losses
        });
        until_true("the end of it to be told", PATIENCE, || lines("gateways have written back") == losses);
        assert_eq!(lines("filters=1"), losses, "{}", bridge.stderr());
    }
    device.ping();
}

#[test]
fn a_bridge_that_has_begun_keeps_no_client_that_only_its_start_needs() {
    let cluster = ClusterSetup::new().any_services().start();
    let threads = |bridge: &Role| -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", bridge.pid())).expect("it runs");
        // A thread may end while it is looked at.
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect()
    };
    let bridge = &cluster.bridges[0];
    assert!(threads(bridge).iter().any(|name| name.starts_with("rdk:")), "librdkafka's are seen");
    // A test beside the client holds its thread to that name.
    let of_admin = |bridge| threads(bridge).iter().any(|name| name.starts_with("admin client"));
    until_true("the client that looked at topics to be gone", Duration::from_secs(30), || !of_admin(bridge));
}
