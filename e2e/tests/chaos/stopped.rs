//! SIGSTOP of each process under load: its sockets stay open and nobody answers. The short forms last longer than the timeout that matters
//! first; the long ones, 20 s, longer than each.

use std::time::Duration;

use holdfast_e2e::ClusterSetup;
use holdfast_e2e::wait::pause;
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{Trial, patient, plan};

/// Beyond `outage_after_ms` (2 s) and the deadline of a call to the store (2 s).
const SHORT: Duration = Duration::from_secs(5);
/// Beyond the 15 s after which a silent link is lost.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn devices_of_a_stopped_gateway_go_on_at_the_other_and_are_not_disturbed_when_it_continues() {
    stop_a_gateway(SHORT);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn a_gateway_may_be_stopped_for_long() {
    stop_a_gateway(LONG);
}

fn stop_a_gateway(time: Duration) {
    // They notice by a PINGREQ that nobody answers, after 3 s at most.
    let plan = FleetPlan { keep_alive_s: 3, ..plan() };
    let trial = Trial::begin(ClusterSetup::new().gateways(2), plan);
    trial.cluster.gateways[0].pause();
    pause(time);
    trial.await_service("without the stopped gateway");
    // It still believes to own their sessions.
    trial.cluster.gateways[0].resume();
    trial.await_service("with both gateways");
    trial.end();
}

#[test]
fn one_of_two_bridges_may_be_stopped() {
    stop_a_bridge(2, SHORT);
}

#[test]
fn the_only_bridge_may_be_stopped() {
    stop_a_bridge(1, SHORT);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn one_of_two_bridges_may_be_stopped_for_longer_than_a_link_lives() {
    stop_a_bridge(2, LONG);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn the_only_bridge_may_be_stopped_for_longer_than_a_link_lives() {
    stop_a_bridge(1, LONG);
}

fn stop_a_bridge(bridges: usize, time: Duration) {
    let trial = Trial::begin(patient().bridges(bridges), plan());
    trial.cluster.bridges[0].pause();
    pause(time);
    trial.cluster.bridges[0].resume();
    trial.await_service("with the bridge back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn frames_are_taken_while_kafka_is_stopped() {
    stop_kafka(1, SHORT);
}

#[test]
fn one_of_three_brokers_may_be_stopped() {
    stop_kafka(3, SHORT);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn kafka_may_be_stopped_for_long() {
    stop_kafka(1, LONG);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn one_of_three_brokers_may_be_stopped_for_long() {
    stop_kafka(3, LONG);
}

fn stop_kafka(brokers: usize, time: Duration) {
    let trial = Trial::begin(ClusterSetup::new().brokers(brokers), plan());
    trial.cluster.kafka.pause(0);
    pause(time);
    trial.await_service("while the broker is stopped");
    trial.cluster.kafka.resume(0);
    trial.await_service("with the broker back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn frames_go_on_while_redis_is_stopped() {
    stop_redis(SHORT);
}

#[test]
#[ignore = "20 s of silence; make chaos"]
fn redis_may_be_stopped_for_long() {
    stop_redis(LONG);
}

fn stop_redis(time: Duration) {
    let trial = Trial::begin(ClusterSetup::new().gateways(2), plan());
    trial.cluster.redis.pause();
    pause(time);
    trial.await_service("while Redis is stopped");
    trial.cluster.redis.resume();
    trial.await_service("with Redis back");
    trial.end().assert_everyone_stayed();
}
