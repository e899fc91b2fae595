//! What processes say of themselves, and how little they do while nobody wants anything.

use std::fs;
use std::time::Duration;

use holdfast_e2e::packet::{Connect, Version};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, ClusterSetup, Gateway, Redis, Role, RoleSetup, run};

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
fn a_bridge_says_when_redis_has_lost_its_data_and_when_it_is_written_back() {
    let redis = Redis::start();
    let (bridge, gateway) = pair(&redis);
    let (mut device, _) =
        Client::connect(gateway.address("mqtt"), &Connect::new(Version::V5, "device").persistent());
    assert_eq!(device.subscribe("news/#", 1), 1);
    let lines = |what: &str| bridge.stderr().lines().filter(|line| line.contains(what)).count();
    // Once it is noticed, it is told once.
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
    let of_admin = |bridge| threads(bridge).iter().any(|name| name.starts_with("admin client"));
    until_true("the client that looked at topics to be gone", Duration::from_secs(30), || !of_admin(bridge));
}
