//! Bridges that come to the name by which gateways find them, and leave it, while devices send.

use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Names, Role, not_tried};

use crate::trial::{RECOVERY, Trial, patient, plan};

#[test]
fn a_bridge_that_joins_by_name_takes_devices_over_and_one_that_leaves_gives_them_up() {
    if let Err(missing) = Names::new() {
        return not_tried("bridges that join by name, and leave it", &missing);
    }
    let mut trial = Trial::begin(patient().gateways(2).by_name(), plan());
    let wanted = |trial: &Trial| {
        trial
            .cluster
            .gateways
            .iter()
            .map(|gateway| gateway.metrics().sum("holdfast_links_wanted", &[]))
            .sum::<u64>()
    };
    let taken = |bridge: &Role| bridge.metrics().sum("holdfast_bridge_uplinks_total", &[]);
    let before = wanted(&trial);

    trial.cluster.join();
    until_true("all shards to hear of it", RECOVERY, || wanted(&trial) == 2 * before);
    trial.await_links();
    trial.await_service("with a bridge that joined");
    let share = taken(&trial.cluster.bridges[1]);
    assert!(share > 0, "it has its share of the load");

    // Without the name it keeps its links and its devices, until it closes them.
    trial.cluster.forget(0);
    let so_far = taken(&trial.cluster.bridges[0]);
    until_true("the bridge without the name to take more", RECOVERY, || {
        taken(&trial.cluster.bridges[0]) > so_far + 100
    });
    trial.cluster.bridges[0].terminate();
    assert!(trial.cluster.bridges[0].await_exit(RECOVERY).success());
    trial.await_service("with the bridge that joined alone");
    until_true("nobody to dial the one that left", PATIENCE, || wanted(&trial) == before);
    trial.end().assert_everyone_stayed();
}
