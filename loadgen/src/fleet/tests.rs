//! A fleet whose gateway is gone ends when its plan says so.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{Fleet, FleetResult, Targets};
use crate::ledger::{Ledger, PushRecord};
use crate::plan::{FleetPlan, Mix};

/// Far more than hold and drain of [`plan`] together, far less than any patience that is not the plan's.
const IN_TIME: Duration = Duration::from_secs(5);

/// One connect at a time and one push at a time, so that whatever waits for each in turn waits for very long.
fn plan() -> FleetPlan {
    FleetPlan {
        devices: 20,
        ramp_s: 0.0,
        duration_s: 0.3,
        drain_s: 0.3,
        frames_per_s: 10.0,
        pushes_per_s: 500.0,
        push_requests_max: 1,
        connects_max: 1,
        ..FleetPlan::default()
    }
}

async fn run(plan: FleetPlan, address: SocketAddr) -> FleetResult {
    let targets = Targets::one(address, address, Some(address));
    let fleet = Fleet::start(plan, targets).unwrap();
    timeout(IN_TIME, fleet.finish()).await.expect("the fleet ends in time")
}

fn pushes(ledger: &Ledger) -> (u64, u64) {
    let pushes = || ledger.devices().iter().map(|device| &device.pushes);
    (pushes().map(PushRecord::sent_count).sum(), pushes().map(PushRecord::unsent_count).sum())
}

#[tokio::test]
async fn a_fleet_ends_although_its_gateway_is_dead() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let result = run(plan(), address).await;
    let (sent, unsent) = pushes(&result.ledger);
    assert_eq!((sent, sent + unsent), (1, 150), "a push that found no requester is not forgotten");
    let verdict = result.verdict();
    assert_eq!((verdict.pushes.unknown, verdict.pushes.unsent), (1, 149));
    assert!(!verdict.passed);
}

#[tokio::test]
async fn a_fleet_ends_although_its_gateway_accepts_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let result = run(plan(), listener.local_addr().unwrap()).await;
    assert_eq!(pushes(&result.ledger).0, 1);
}

#[tokio::test]
async fn a_fleet_ends_although_its_web_socket_upgrades_are_not_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mix = Mix { mqtt_311: 0, mqtt_5: 0, mqtt_websocket: 1, json: 1 };
    run(FleetPlan { mix, ..plan() }, listener.local_addr().unwrap()).await;
}
