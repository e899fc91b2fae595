//! An outage of Kafka that meets its bounds: no spool, a full one, or a part of the partitions.

use holdfast_e2e::wait::until_true;
use holdfast_e2e::{ClusterSetup, request};
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{RECOVERY, Trial, plan};

fn metric(trial: &Trial, name: &str) -> u64 {
    trial.cluster.bridges[0].metrics().sum(name, &[])
}

/// Frames that the bridge has and Kafka does not. Each counter is told at a moment of its own, so it is of use while nothing moves.
fn unsettled(trial: &Trial) -> u64 {
    let seen = trial.cluster.bridges[0].metrics();
    let settled = seen.sum("holdfast_bridge_settled_total", &[]);
    seen.sum("holdfast_bridge_uplinks_total", &[]).saturating_sub(settled)
}

#[test]
fn partitions_without_a_leader_send_all_frames_through_the_spool_and_nothing_is_lost() {
    // One replica: what the killed broker led has nobody else.
    let setup = ClusterSetup::new().brokers(3).replication(1).set_bridges("outage_after_ms", 500);
    let trial = Trial::begin(setup, plan());
    // A machine that stood still may have been taken for one: it is counted first, and over before there is another.
    let outages = metric(&trial, "holdfast_outages_total");
    until_true("Kafka to be at hand", RECOVERY, || metric(&trial, "holdfast_spool_state") == 0);
    trial.cluster.kafka.kill(1);
    // Those whose partitions have leaders are served all the while.
    until_true("it to be taken for an outage", RECOVERY, || {
        metric(&trial, "holdfast_outages_total") > outages
    });
    trial.await_service("without some of the leaders");
    assert!(metric(&trial, "holdfast_spool_records") > 0, "and frames are in the spool");
    trial.cluster.kafka.restart();
    trial.await_drained();
    trial.await_service("with all leaders back");
    trial.end().assert_everyone_stayed();
}

/// Records that may be in the producer's queue at once, where devices have 1,920 frames to wait with.
const QUEUE: u64 = 100;

#[test]
fn with_hold_devices_wait_for_kafka_and_nothing_is_spooled() {
    let setup =
        ClusterSetup::new().set_bridges("on_outage", "hold").set_bridges("kafka.queue_records_max", QUEUE);
    let trial = Trial::begin(setup, plan());
    for hanging in [false, true] {
        let kafka = &trial.cluster.kafka;
        if hanging {
            kafka.pause(0);
        } else {
            kafka.kill(0);
        }
        until_true("frames to wait", RECOVERY, || metric(&trial, "holdfast_spool_state") == 4);
        trial.await_held_back();
        until_true("frames to wait for room in the queue", RECOVERY, || unsettled(&trial) > QUEUE);
        assert!(metric(&trial, "holdfast_kafka_queue_full_total") > 0, "links wait for it");
        assert_eq!(trial.cluster.bridges[0].readiness(), Some(200), "links and pushes are none the worse");
        if hanging {
            kafka.resume(0);
        } else {
            kafka.restart();
        }
        trial.await_service("with Kafka back");
        until_true("the outage to be over", RECOVERY, || metric(&trial, "holdfast_spool_state") == 0);
    }
    assert_eq!(metric(&trial, "holdfast_spool_bytes"), 0);
    trial.end().assert_everyone_stayed();
}

#[test]
fn a_full_spool_holds_devices_back_while_kafka_hangs_and_is_drained_afterwards() {
    // 600 KiB a second fill it within two.
    let plan = FleetPlan { frame_bytes: 1_024, ..plan() };
    let trial = Trial::begin(ClusterSetup::new().set_bridges("spool.bytes_max", 1 << 20), plan);
    trial.cluster.kafka.pause(0);
    until_true("the spool to be full", RECOVERY, || metric(&trial, "holdfast_spool_stalled") == 1);
    trial.await_held_back();
    assert!(metric(&trial, "holdfast_spool_bytes") <= 1 << 20);
    let admin = trial.cluster.bridges[0].address("admin");
    let health = request(admin, "GET", "/readyz", &[], b"").expect("an answer");
    assert_eq!((health.status, &health.json()["sink"]["spool"]["stores"]), (200, &false.into()));
    trial.cluster.kafka.resume(0);
    until_true("the spool to take frames again", RECOVERY, || metric(&trial, "holdfast_spool_stalled") == 0);
    trial.await_service("with Kafka back");
    trial.await_drained();
    assert_eq!(metric(&trial, "holdfast_frames_lost_total"), 0);
    trial.end().assert_everyone_stayed();
}
