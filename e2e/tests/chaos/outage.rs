//! A hang of Kafka under a load of thousands of frames a second: what it may cost.

use std::env;
use std::time::{Duration, Instant};

use holdfast_e2e::ClusterSetup;
use holdfast_e2e::wait::{pause, until_true};
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{Trial, plan};

/// How long Kafka hangs; `OUTAGE_S` in the environment says otherwise, in seconds.
const OUTAGE: Duration = Duration::from_mins(1);
/// After so long everything is full that has a bound: windows, and the part of the spool that waits in the producer for Kafka to come back.
const SETTLED: Duration = Duration::from_secs(20);
/// What those bounds allow a process to grow by in all.
const GROWTH_BYTES_MAX: u64 = 128 << 20;
/// What it may still grow by once they are reached: nothing but chance, and not the 3,000 frames of each further second.
const DRIFT_BYTES_MAX: u64 = 4 << 20;

#[test]
#[ignore = "three minutes; make chaos"]
fn a_long_hang_of_kafka_costs_disk_and_not_memory_and_is_caught_up_within_twice_its_time() {
    let outage = env::var("OUTAGE_S").map_or(OUTAGE, |seconds| {
        Duration::from_secs(seconds.parse().expect("OUTAGE_S is a whole number of seconds"))
    });
    let plan = FleetPlan { devices: 1_000, frames_per_s: 3.0, ramp_s: 5.0, drain_s: 180.0, ..plan() };
    let trial = Trial::begin(ClusterSetup::new(), plan);
    let memory = || (trial.cluster.gateways[0].resident_bytes(), trial.cluster.bridges[0].resident_bytes());
    let spooled = || trial.cluster.bridges[0].metrics().sum("holdfast_spool_records", &[]);

    let larger = |peak: (u64, u64), now: (u64, u64)| (peak.0.max(now.0), peak.1.max(now.1));

    let before = memory();
    let acked_before = trial.acked();
    trial.cluster.kafka.pause(0);
    let began = Instant::now();
    pause(SETTLED);
    let settled = memory();
    let mut hanging = settled;
    while began.elapsed() < outage {
        pause(Duration::from_millis(200));
        hanging = larger(hanging, memory());
    }
    let acked_meanwhile = trial.acked() - acked_before;
    let spooled_most = spooled();

    trial.cluster.kafka.resume(0);
    let resumed = Instant::now();
    let mut draining = memory();
    until_true("the spool to be empty", 2 * outage, || {
        draining = larger(draining, memory());
        spooled() == 0
    });
    let drained_in = resumed.elapsed();
    trial.await_service("after the outage");
    let outcome = trial.end();
    outcome.assert_everyone_stayed();

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!(
        "outage of {outage:?}: {acked_meanwhile} frames acknowledged meanwhile, {spooled_most} in the spool, drained in {drained_in:.1?}; \
         MiB before, after {SETTLED:?} of it, at most until its end, while it was caught up: \
         gateway {:.1} {:.1} {:.1} {:.1}, bridge {:.1} {:.1} {:.1} {:.1}",
        mib(before.0),
        mib(settled.0),
        mib(hanging.0),
        mib(draining.0),
        mib(before.1),
        mib(settled.1),
        mib(hanging.1),
        mib(draining.1),
    );
    assert!(acked_meanwhile > 0, "nothing was taken while Kafka was away");
    for (before, settled, hanging, draining) in
        [(before.0, settled.0, hanging.0, draining.0), (before.1, settled.1, hanging.1, draining.1)]
    {
        assert!(hanging < settled + DRIFT_BYTES_MAX, "memory grows with the length of an outage");
        assert!(draining.max(hanging) < before + GROWTH_BYTES_MAX, "memory grows beyond windows and queues");
    }
}
