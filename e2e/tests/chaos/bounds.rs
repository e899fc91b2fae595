//! An outage of Kafka that meets its bounds: no spool, a full one, or a part of the partitions.

use std::time::Duration;

use holdfast_e2e::ClusterSetup;
use holdfast_e2e::wait::{pause, until, until_true};
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{RECOVERY, Trial, plan};

fn metric(trial: &Trial, name: &str) -> u64 {
    trial.cluster.bridges[0].metrics().sum(name, &[])
}

/// Devices wait: nothing more is acknowledged.
fn await_silence(trial: &Trial) {
    until_true("acknowledgements to stop", RECOVERY, || {
        let before = trial.acked();
        pause(Duration::from_secs(1));
        trial.acked() == before
    });
}

/// Devices have caught up with what they could not send: no link waits for room in the producer's queue, and a wait that begins now is a new one.
/// Gives the waits until then.
fn await_room(trial: &Trial) -> u64 {
    until("links to wait no more for room", RECOVERY, || {
        let before = metric(trial, "holdfast_kafka_queue_full_total");
        pause(Duration::from_secs(1));
        (metric(trial, "holdfast_kafka_queue_full_total") == before).then_some(before)
    })
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
    trial.await_service("without some of the leaders");
    assert!(metric(&trial, "holdfast_outages_total") > outages, "it was taken for an outage");
    assert!(metric(&trial, "holdfast_spool_records") > 0, "and frames are in the spool");
    trial.cluster.kafka.restart();
    trial.await_drained();
    trial.await_service("with all leaders back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn with_hold_devices_wait_for_kafka_and_nothing_is_spooled() {
    let setup =
        ClusterSetup::new().set_bridges("on_outage", "hold").set_bridges("kafka.queue_records_max", 100);
    let trial = Trial::begin(setup, plan());
    for hanging in [false, true] {
        let kafka = &trial.cluster.kafka;
        let full = await_room(&trial);
        if hanging {
            kafka.pause(0);
        } else {
            kafka.kill(0);
        }
        until_true("frames to wait", RECOVERY, || metric(&trial, "holdfast_spool_state") == 4);
        await_silence(&trial);
        assert!(
            metric(&trial, "holdfast_kafka_queue_full_total") > full,
            "1,920 frames want to wait where 100 may"
        );
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
    // It may be stalled for a moment only: what is queued then waits in memory for the sink.
    until_true("the spool to be full", RECOVERY, || {
        trial.cluster.bridges[0].stderr().contains("the spool is full")
    });
    await_silence(&trial);
    assert!(metric(&trial, "holdfast_spool_bytes") <= 1 << 20);
    trial.cluster.kafka.resume(0);
    until_true("the spool to take frames again", RECOVERY, || metric(&trial, "holdfast_spool_stalled") == 0);
    trial.await_service("with Kafka back");
    trial.await_drained();
    assert_eq!(metric(&trial, "holdfast_frames_lost_total"), 0);
    trial.end().assert_everyone_stayed();
}
