//! `kill -9` of each process under load.

use holdfast_e2e::ClusterSetup;
use holdfast_e2e::wait::until_true;
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{RECOVERY, Trial, patient, plan};

#[test]
fn devices_of_a_killed_gateway_go_on_at_the_other() {
    let mut trial = Trial::begin(ClusterSetup::new().gateways(2), plan());
    trial.cluster.gateways[0].kill();
    trial.await_service("without the killed gateway");
    trial.cluster.gateways[0].restart();
    trial.cluster.gateways[1].kill();
    trial.await_service("at the gateway that came back");
    trial.end();
}

#[test]
fn qos_2_frames_survive_the_death_of_their_gateway() {
    let plan = FleetPlan { qos: 2, devices: 60, ..plan() };
    let mut trial = Trial::begin(ClusterSetup::new().gateways(2), plan);
    trial.cluster.gateways[1].kill();
    trial.await_service("without the killed gateway");
    trial.end();
}

#[test]
fn a_bridge_takes_over_from_one_that_was_killed() {
    let mut trial = Trial::begin(patient().gateways(2).bridges(2), plan());
    trial.cluster.bridges[0].kill();
    trial.await_service("with one bridge");
    trial.cluster.bridges[0].restart();
    trial.await_service("with both bridges");
    trial.cluster.bridges[1].kill();
    trial.await_service("with the bridge that came back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn no_promised_push_is_lost_when_a_bridge_or_a_gateway_is_killed() {
    let plan = FleetPlan { pushes_per_s: 40.0, ..plan() };
    let mut trial = Trial::begin(patient().gateways(2).bridges(2), plan);
    trial.cluster.bridges[0].kill();
    trial.await_service("with one bridge");
    trial.cluster.bridges[0].restart();
    trial.cluster.gateways[1].kill();
    trial.await_service("with one gateway");
    let pushes = trial.end().verdict.pushes;
    assert!(pushes.delivered > 0, "{pushes:?}");
}

#[test]
fn devices_wait_connected_for_the_only_bridge_to_come_back() {
    let mut trial = Trial::begin(ClusterSetup::new(), plan());
    for _ in 0..3 {
        trial.cluster.bridges[0].kill();
        trial.cluster.bridges[0].restart();
        trial.await_service("with the bridge that came back");
    }
    trial.end().assert_everyone_stayed();
}

#[test]
fn frames_are_taken_while_kafka_is_dead_and_stand_in_it_when_it_is_back() {
    let trial = Trial::begin(ClusterSetup::new(), plan());
    trial.cluster.kafka.kill(0);
    trial.await_service("while Kafka is dead");
    trial.cluster.kafka.restart();
    trial.await_service("with Kafka back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn a_bridge_that_is_killed_while_kafka_is_dead_loses_nothing_of_its_spool() {
    let mut trial = Trial::begin(ClusterSetup::new(), plan());
    trial.cluster.kafka.kill(0);
    trial.await_service("while Kafka is dead");
    trial.cluster.bridges[0].kill();
    trial.cluster.kafka.restart();
    trial.cluster.bridges[0].restart();
    trial.await_service("with both back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn a_bridge_that_starts_while_kafka_is_dead_takes_frames_behind_its_spool() {
    let mut trial = Trial::begin(ClusterSetup::new(), plan());
    trial.cluster.kafka.kill(0);
    trial.await_service("while Kafka is dead");
    trial.cluster.bridges[0].kill();
    trial.cluster.bridges[0].restart();
    trial.await_service("with the bridge back and Kafka still dead");
    let trouble = |trial: &Trial| trial.cluster.bridges[0].metrics().sum("holdfast_sink_trouble", &[]);
    assert_eq!(trouble(&trial), 1, "it could not ask Kafka about its topics");
    trial.cluster.kafka.restart();
    trial.await_drained();
    until_true("the trouble to be over", RECOVERY, || trouble(&trial) == 0);
    trial.await_service("with both back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn one_of_three_brokers_may_die() {
    let trial = Trial::begin(ClusterSetup::new().brokers(3), plan());
    trial.cluster.kafka.kill(1);
    trial.await_service("with two brokers of three");
    trial.cluster.kafka.restart();
    trial.await_service("with all brokers back");
    trial.end().assert_everyone_stayed();
}

#[test]
fn frames_go_on_while_redis_is_dead() {
    let mut trial = Trial::begin(ClusterSetup::new(), plan());
    trial.cluster.redis.kill();
    trial.await_service("while Redis is dead");
    trial.cluster.redis.restart();
    trial.await_service("with Redis back");
    trial.end().assert_everyone_stayed();
}
