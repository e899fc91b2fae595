//! A session store of several servers, whose primary is killed under load: another takes its place, and nothing that was acknowledged is missing.

use std::thread;

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind};
use holdfast_e2e::wait::until;
use holdfast_e2e::{Client, ClusterSetup, RedisForm, Role, request};
use holdfast_loadgen::plan::FleetPlan;
use serde_json::{Value, json};

use crate::trial::{RECOVERY, Trial, plan};

#[test]
fn a_sentinel_promotes_another_redis_and_nothing_acknowledged_is_lost() {
    fail_over(RedisForm::Sentinel, 1);
}

#[test]
fn a_cluster_of_redis_loses_a_primary_and_nothing_acknowledged_is_lost() {
    fail_over(RedisForm::Cluster, 1);
}

#[test]
#[ignore = "a minute of failovers each; make chaos"]
fn redis_may_fail_over_again_and_again() {
    fail_over(RedisForm::Sentinel, 5);
    fail_over(RedisForm::Cluster, 5);
}

fn fail_over(form: RedisForm, times: u32) {
    let plan = FleetPlan { pushes_per_s: 20.0, ..plan() };
    let mut trial = Trial::begin(ClusterSetup::new().gateways(2).redis(form), plan);
    let mut probe = Probe::begin(&trial);
    for _ in 0..times {
        probe.is_kept_for(&trial, "before");
        trial.cluster.redis.kill();
        trial.await_service("while the store fails over");
        probe.stays();
        trial.cluster.redis.await_successor();
        // Its owner is told from the former one by an epoch that the promoted server gives out.
        probe.moves(&trial);
        probe.hears("before");
        // All devices of a gateway at once, whose sessions nobody but the promoted server knows.
        trial.cluster.gateways[0].kill();
        trial.await_service("at the other gateway");
        trial.cluster.gateways[0].restart();
        probe.moves(&trial);
        trial.cluster.redis.restart();
        trial.await_service("with the killed server back");
    }
    let verdict = trial.end().verdict;
    assert!(verdict.devices.resumed > 0, "{verdict}");
    assert_eq!(verdict.devices.begun_anew, 0, "{verdict}");
    assert!(verdict.pushes.delivered > 0, "{verdict}");
    assert_eq!((verdict.pushes.lost, verdict.pushes.contradicted), (0, 0), "{verdict}");
}

/// A device beside the fleet, which moves from gateway to gateway.
struct Probe {
    client: Client,
    at: usize,
}

impl Probe {
    fn begin(trial: &Trial) -> Self {
        let (mut client, _) = Client::connect(trial.cluster.gateways[0].address("mqtt"), &connect());
        assert_eq!(client.subscribe("devices/probe/push", 1), 1);
        Self { client, at: 0 }
    }

    /// A push that it has not acknowledged waits for it, wherever it goes.
    fn is_kept_for(&mut self, trial: &Trial, payload: &str) {
        let bridge = &trial.cluster.bridges[0];
        thread::scope(|scope| {
            let pushing = scope.spawn(|| push(bridge, payload));
            // Heard once, and not acknowledged: it goes along.
            let heard = self.client.receive_publish();
            assert_eq!(heard.payload, payload.as_bytes());
            let answer = pushing.join().expect("an answer");
            assert_eq!(answer["type"], "/v1/problems/in-flight", "{answer}");
        });
    }

    fn stays(&mut self) {
        self.client.ping();
    }

    /// Connects at the gateway where it is not. The store may still be electing.
    fn moves(&mut self, trial: &Trial) {
        self.at = 1 - self.at;
        let door = trial.cluster.gateways[self.at].address("mqtt");
        let (client, answer) = until("the probe to be admitted", RECOVERY, || {
            let (client, answer) = Client::try_connect(door, &connect()).ok()?;
            (answer.connect_code() == 0).then_some((client, answer))
        });
        assert!(answer.session_present(), "it resumes");
        // The former connection is told, unless its gateway is dead.
        let former = std::mem::replace(&mut self.client, client).receive_to_end();
        if let Some(last) = former.last().filter(|last| last.kind() == kind::DISCONNECT) {
            assert_eq!(last.reason(), 0x8E, "{former:?}");
        }
    }

    fn hears(&mut self, payload: &str) {
        let heard = self.client.receive_publish();
        assert_eq!((heard.payload.as_slice(), heard.dup), (payload.as_bytes(), true));
        self.client.send(&acknowledge(kind::PUBACK, heard.id));
        // Once: the next packet answers the ping.
        self.client.ping();
    }
}

fn connect() -> Connect {
    Connect::new(Version::V5, "probe").persistent()
}

/// Waits for an answer as shortly as one can.
fn push(bridge: &Role, payload: &str) -> Value {
    let body = json!({"device": "probe", "payload": payload, "wait_ms": 200}).to_string();
    let headers = [("content-type", "application/json")];
    let answer = request(bridge.address("push"), "POST", "/v1/push", &headers, body.as_bytes());
    answer.expect("an answer").json()
}
