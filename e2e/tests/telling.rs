//! What processes say of themselves, and how little they do while nobody wants anything.

use std::fs;
use std::time::Duration;

use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{ClusterSetup, Gateway, Redis, Role, RoleSetup, run};

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
