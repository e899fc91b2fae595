//! Connections that are cut, late or lead into a black hole, while the processes at both ends live.

use std::time::Duration;

use holdfast_e2e::wait::{pause, until_true};
use holdfast_e2e::{ClusterSetup, Proxy, Ways, Weather};
use holdfast_loadgen::plan::FleetPlan;

use crate::trial::{RECOVERY, Trial, patient, plan};

const LATE: Duration = Duration::from_millis(200);
/// Beyond `outage_after_ms` (2 s) and the deadline of a call to the store (2 s).
const SHORT: Duration = Duration::from_secs(5);
/// Beyond the 15 s after which a silent link is lost.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn weather_between_gateway_and_bridge_loses_nothing() {
    storm(setup(), SHORT, |ways| &ways.links[..1], Service::Waits);
}

#[test]
fn weather_between_gateway_and_one_of_two_bridges_loses_nothing() {
    storm(patient().behind_proxies().bridges(2), SHORT, |ways| &ways.links[1..], Service::Waits);
}

#[test]
#[ignore = "20 s of black hole; make chaos"]
fn long_weather_between_gateway_and_bridge_loses_nothing() {
    storm(setup(), LONG, |ways| &ways.links[..1], Service::Waits);
}

#[test]
#[ignore = "20 s of black hole; make chaos"]
fn long_weather_between_gateway_and_one_of_two_bridges_loses_nothing() {
    storm(patient().behind_proxies().bridges(2), LONG, |ways| &ways.links[1..], Service::GoesOn);
}

#[test]
fn weather_between_bridge_and_kafka_loses_nothing() {
    storm(setup(), SHORT, |ways| &ways.kafka, Service::GoesOn);
}

#[test]
#[ignore = "20 s of black hole; make chaos"]
fn long_weather_between_bridge_and_kafka_loses_nothing() {
    storm(setup(), LONG, |ways| &ways.kafka, Service::GoesOn);
}

#[test]
fn weather_between_gateway_and_redis_does_not_touch_frames() {
    storm(setup(), SHORT, |ways| std::slice::from_ref(&ways.gateway_store), Service::GoesOn);
}

#[test]
fn weather_between_bridge_and_redis_does_not_touch_frames() {
    storm(setup(), SHORT, |ways| std::slice::from_ref(&ways.bridge_store), Service::GoesOn);
}

#[test]
#[ignore = "20 s of black hole; make chaos"]
fn long_weather_around_redis_does_not_touch_frames() {
    storm(setup(), LONG, |ways| std::slice::from_ref(&ways.gateway_store), Service::GoesOn);
    storm(setup(), LONG, |ways| std::slice::from_ref(&ways.bridge_store), Service::GoesOn);
}

#[test]
fn weather_between_devices_and_one_of_two_gateways_loses_nothing() {
    // They find a black hole by a PINGREQ that nobody answers, and the gateway finds that it hears nothing: after 3 and 4.5 s at most.
    let plan = FleetPlan { devices: 40, frames_per_s: 10.0, keep_alive_s: 3, ..plan() };
    let trial = Trial::begin(ClusterSetup::new().gateways(2).devices_behind_proxies(), plan);
    let way = &trial.cluster.ways().devices[0];

    way.cut();
    trial.await_service("after a cut");
    way.set(Weather::Late(LATE));
    trial.await_service("with 200 ms more each way");
    // Whoever left for the other gateway has to come back, or the next fault meets nobody.
    trial.cluster.ways().devices[1].cut();
    trial.await_service("with everybody at the first gateway");
    way.set(Weather::BlackHole);
    trial.await_service("at the gateway that is not in a black hole");
    let gateway = &trial.cluster.gateways[0];
    until_true("the other one to give its devices up", RECOVERY, || {
        let metrics = gateway.metrics();
        metrics.sum("holdfast_connections", &[]) == 0
    });
    way.set(Weather::Fair);
    trial.await_service("after the black hole");
    way.set(Weather::Cut);
    trial.await_service("while nobody can connect to one of two");
    way.set(Weather::Fair);

    let devices = trial.end().verdict.devices;
    assert!(devices.resumed > 0, "{devices:?}");
}

/// What devices see while a way is a black hole.
#[derive(Clone, Copy, PartialEq)]
enum Service {
    /// Frames are acknowledged, if only after the timeout that finds the black hole.
    GoesOn,
    /// Acknowledgements wait for better weather.
    Waits,
}

fn setup() -> ClusterSetup {
    ClusterSetup::new().behind_proxies()
}

/// All kinds of weather on some ways, one after the other; in each the cluster is awaited to serve again by itself.
fn storm(setup: ClusterSetup, time: Duration, ways: impl Fn(&Ways) -> &[Proxy], meanwhile: Service) {
    let trial = Trial::begin(setup, plan());
    let proxies = ways(trial.cluster.ways());
    let set = |weather| proxies.iter().for_each(|proxy| proxy.set(weather));

    proxies.iter().for_each(Proxy::cut);
    trial.await_service("after a cut");

    set(Weather::Late(LATE));
    trial.await_service("with 200 ms more each way");
    set(Weather::Fair);

    set(Weather::BlackHole);
    pause(time);
    if meanwhile == Service::GoesOn {
        trial.await_service("beside a black hole");
    }
    set(Weather::Fair);
    trial.await_service("after the black hole");

    set(Weather::Cut);
    pause(time);
    set(Weather::Fair);
    trial.await_service("after nothing could connect for a while");

    trial.end().assert_everyone_stayed();
}
