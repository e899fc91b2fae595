//! The load tool's commands that start Holdfast's processes themselves, small and short. What they find out about Holdfast is judged; how fast it
//! was is not.

use std::time::Duration;

use holdfast_e2e::run;
use serde_json::Value;

/// Far more than any of them takes.
const PATIENCE: Duration = Duration::from_mins(5);

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/services");

/// What a command printed as JSON. `arguments` end with those of its own.
fn loadgen(arguments: &[&str]) -> Value {
    let arguments = [&["loadgen"], arguments, &["--services", SERVICES, "--json"]].concat();
    let ended = run(&arguments, PATIENCE);
    assert!(ended.status.success(), "{}\n{}\n{}", ended.status, ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).expect("one JSON document on stdout")
}

#[test]
fn a_fleet_whose_gateway_is_killed_goes_on_at_the_others() {
    let quick = ["--devices", "300", "--connects-per-s", "150", "--hold-s", "2", "--frame-every-s", "1"];
    let own = ["failover", "--sink", "log", "--pushes-per-s", "40", "--back-within-s", "120"];
    let outcome = loadgen(&[&own[..], &quick].concat());
    assert_eq!(outcome["orphans"], 100);
    let verdict = &outcome["verdict"];
    let count = |pointer: &str| verdict.pointer(pointer).and_then(Value::as_u64).unwrap_or(u64::MAX);
    assert!(count("/devices/resumed") >= 100 && count("/devices/resumed") < u64::MAX, "{outcome:#}");
    for fault in ["/devices/begun_anew", "/frames/lost", "/pushes/lost", "/frames/reordered"] {
        assert_eq!(count(fault), 0, "{fault} in {outcome:#}");
    }
    assert_eq!(verdict["devices"]["devices"], 300);
    assert!(count("/frames/found") > 300 && count("/pushes/received") > 0, "{outcome:#}");
}

#[test]
fn silent_connections_are_held_by_processes_of_their_own() {
    let report = loadgen(&["idle", "--connections", "1200", "--seconds", "1", "--sink", "log"]);
    assert_eq!(report["connections"], 1_200);
    let names: Vec<&str> = report["processes"]
        .as_array()
        .map(|all| all.iter().filter_map(|process| process["name"].as_str()).collect())
        .unwrap_or_default();
    assert_eq!(names, ["gateway", "bridge", "Redis"]);
    assert!(report["processes"][0]["bytes_per_connection"].is_f64(), "{report:#}");
}

#[test]
fn the_whole_way_to_kafka_is_measured_beside_librdkafka() {
    let pairs = loadgen(&["kafka", "--quick"]);
    let rates: Vec<&Value> = pairs.as_array().into_iter().flatten().map(|pair| &pair["rate"]).collect();
    assert_eq!(rates, [&Value::from(500), &Value::Null]);
    for pair in pairs.as_array().into_iter().flatten() {
        for side in ["own", "way"] {
            assert!(pair[side]["frames"].as_u64() > Some(0), "{side} in {pair:#}");
            assert!(pair[side]["cpu_us"]["bridge"].is_u64(), "{side} in {pair:#}");
        }
    }
}
