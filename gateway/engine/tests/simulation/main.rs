//! A fleet of engines on a virtual clock: devices that come and go, a bridge that settles late and dies, a store that answers late, nodes that die.
//!
//! Everything that happens follows from one seed. After each step the promises are checked, and once the world has come to rest, what every
//! device was owed. A failing seed prints the line that plays it again:
//! `SIM_SEED=n cargo test -p holdfast-engine --test simulation`. `SIM_SEEDS=n` runs that many from a random start on.
//!
//! Start with [`world::World`].
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the world around the engines may lock a slot for the store's answer and read which seed to play"
)]

mod bridge;
mod device;
mod random;
mod shard;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Faults, World};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 30;
/// Steps of each before the faults end.
const STEPS: usize = 6_000;

fn play(seed: u64, faults: Faults) -> u64 {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, faults);
        for _ in 0..STEPS {
            world.step();
        }
        world.come_to_rest();
        world.trace()
    }));
    played.unwrap_or_else(|panic| {
        eprintln!("seed {seed} with {faults:?}: play it again with SIM_SEED={seed}");
        resume_unwind(panic)
    })
}

fn seeds() -> Box<dyn Iterator<Item = u64>> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(count)) => Box::new(1_000..1_000 + count),
        (None, None) => Box::new(0..SEEDS),
    }
}

#[test]
fn connections_are_cut_and_sessions_move() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, bridge_dies: false, nodes_die: false });
    });
}

#[test]
fn the_bridge_dies_and_comes_back() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, bridge_dies: true, nodes_die: false });
    });
}

#[test]
fn nodes_die_and_their_devices_go_elsewhere() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, bridge_dies: true, nodes_die: true });
    });
}

#[test]
fn a_seed_plays_the_same_each_time() {
    let faults = Faults { cuts: true, bridge_dies: true, nodes_die: true };
    assert_eq!(play(7, faults), play(7, faults));
    assert_ne!(play(7, faults), play(8, faults));
}
