//! A hang of Kafka under a load of thousands of frames a second: what it may cost.

use std::time::{Duration, Instant};

use holdfast_e2e::ClusterSetup;
use holdfast_e2e::wait::{pause, until_true};
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{Trial, plan};

const OUTAGE: Duration = Duration::from_secs(60);
/// What a process may grow by while Kafka hangs: windows and queues that fill, not the frames of a minute (tens of MiB).
const GROWTH_BYTES_MAX: u64 = 48 << 20;

#[test]
#[ignore = "three minutes; make chaos"]
fn a_long_hang_of_kafka_costs_disk_and_not_memory_and_is_caught_up_within_twice_its_time() {
    let plan = FleetPlan { devices: 1_000, frames_per_s: 3.0, ramp_s: 5.0, drain_s: 180.0, ..plan() };
    let trial = Trial::begin(ClusterSetup::new(), plan);
    let memory = || (trial.cluster.gateways[0].resident_bytes(), trial.cluster.bridges[0].resident_bytes());
    let spooled = || trial.cluster.bridges[0].metrics().sum("holdfast_spool_records", &[]);

    let before = memory();
    let acked_before = trial.acked();
    trial.cluster.kafka.pause(0);
    let mut peak = before;
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        pause(Duration::from_millis(500));
        let now = memory();
        peak = (peak.0.max(now.0), peak.1.max(now.1));
    }
    let acked_meanwhile = trial.acked() - acked_before;
    let spooled_most = spooled();

    trial.cluster.kafka.resume(0);
    let resumed = Instant::now();
    until_true("the spool to be empty", 2 * OUTAGE, || {
        let now = memory();
        peak = (peak.0.max(now.0), peak.1.max(now.1));
        spooled() == 0
    });
    let drained_in = resumed.elapsed();
    trial.await_service("after the outage");
    let outcome = trial.end();
    outcome.assert_everyone_stayed();

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!(
        "outage of {OUTAGE:?}: {acked_meanwhile} frames acknowledged meanwhile, {spooled_most} in the spool, drained in {drained_in:.1?}; \
         memory of gateway {:.1} -> {:.1} MiB, bridge {:.1} -> {:.1} MiB",
        mib(before.0),
        mib(peak.0),
        mib(before.1),
        mib(peak.1),
    );
    assert!(acked_meanwhile > 0, "nothing was taken while Kafka was away");
    assert!(peak.0 - before.0 < GROWTH_BYTES_MAX, "the gateway grew");
    assert!(peak.1 - before.1 < GROWTH_BYTES_MAX, "the bridge grew");
}
