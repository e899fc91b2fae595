//! A fleet of engines on a virtual clock: devices that come and go, that do not read, that send noise; a bridge that settles late and dies; a store that
//! answers late, in another order or not at all, and that loses what it had; nodes that die, or do not run for a while; a bridge that reaps them.
//!
//! Everything that happens follows from one seed. After each step the promises are checked, and once the world has come to rest, what every
//! device was owed. A failing seed prints the line that plays it again:
//! `SIM_SEED=n cargo test -p holdfast-engine --test simulation`. `SIM_SEEDS=n` plays that many others, `SIM_SECONDS=n` as many as there is time for in each
//! test, `SIM_STEPS=n` so many steps of each; `SIM_TELL=1` prints what happens. `make soak-sim` plays many, optimised.
//!
//! Start with [`world::World`].
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the world around the engines may lock a slot for the store's answer and read which seed to play"
)]

mod bridge;
mod device;
mod groups;
mod herald;
mod hostile;
mod invariants;
mod lease;
mod lifecycle;
mod mass_return;
mod members;
mod mortal;
mod network;
mod pushes;
mod random;
mod reaper;
mod shard;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use world::{Faults, World};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 16;
/// Steps of each before the faults end.
const STEPS: u64 = 6_000;

const EVERYTHING: Faults = Faults {
    cuts: true,
    bridge_dies: true,
    links_flap: true,
    nodes_die: true,
    slow: true,
    hostile: true,
    store_fails: true,
    store_forgets: true,
    nodes_pause: true,
    clocks_jump: true,
    reaps: true,
    heralds: true,
    newcomers: true,
    // What a device without a session to resume has on its way is not waited for where it speaks next.
    bridges_lag: false,
    groups: false,
    members_stop: false,
};

fn play(seed: u64, faults: Faults) -> u64 {
    play_steps(seed, faults, STEPS)
}

fn play_steps(seed: u64, faults: Faults, steps: u64) -> u64 {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, faults);
        for _ in 0..number("SIM_STEPS").unwrap_or(steps) {
            world.step();
        }
        world.come_to_rest();
        world.leave();
        world.trace()
    }));
    played.unwrap_or_else(|panic| {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let steps = number("SIM_STEPS").map_or_else(String::new, |steps| format!("SIM_STEPS={steps} "));
        eprintln!(
            "seed {seed} with {faults:?}: play it again with\n\
             SIM_SEED={seed} {steps}cargo test -p holdfast-engine --test simulation {test} -- --nocapture"
        );
        resume_unwind(panic)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn seeds() -> Box<dyn Iterator<Item = u64>> {
    if let Some(seed) = number("SIM_SEED") {
        return Box::new(std::iter::once(seed));
    }
    if let Some(seconds) = number("SIM_SECONDS") {
        let until = Instant::now() + Duration::from_secs(seconds);
        return Box::new((1_000..).take_while(move |_| Instant::now() < until));
    }
    match number("SIM_SEEDS") {
        Some(count) => Box::new(1_000..1_000 + count),
        None => Box::new(0..SEEDS),
    }
}

#[test]
fn connections_are_cut_and_sessions_move() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, ..Faults::default() });
    });
}

#[test]
fn the_bridge_dies_and_comes_back() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, bridge_dies: true, ..Faults::default() });
    });
}

#[test]
fn links_are_lost_and_come_back_while_others_publish() {
    seeds().for_each(|seed| {
        // Until well after the last frame, so that nothing that follows reveals what was missed of it.
        play_steps(seed, Faults { links_flap: true, ..Faults::default() }, 4 * STEPS);
    });
}

#[test]
fn nodes_die_and_their_devices_go_elsewhere() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, bridge_dies: true, nodes_die: true, ..Faults::default() });
    });
}

#[test]
fn some_do_not_read_and_some_send_noise() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, slow: true, hostile: true, ..Faults::default() });
    });
}

#[test]
fn the_store_fails_now_and_then() {
    seeds().for_each(|seed| {
        play(seed, Faults { cuts: true, store_fails: true, ..Faults::default() });
    });
}

#[test]
fn nodes_pause_for_longer_than_their_lease_and_wills_are_published_once() {
    seeds().for_each(|seed| {
        play(
            seed,
            Faults { cuts: true, nodes_pause: true, clocks_jump: true, reaps: true, ..Faults::default() },
        );
    });
}

#[test]
fn nobody_is_gone_after_it_has_come_back() {
    seeds().for_each(|seed| {
        play_steps(seed, Faults { heralds: true, ..Faults::default() }, 3 * STEPS);
    });
}

#[test]
fn sessions_move_through_bridges_that_have_not_met_their_former_owner() {
    seeds().for_each(|seed| {
        play_steps(
            seed,
            Faults { cuts: true, heralds: true, newcomers: true, ..Faults::default() },
            3 * STEPS,
        );
    });
}

#[test]
fn nobody_is_gone_after_it_has_come_back_by_another_bridge() {
    seeds().for_each(|seed| {
        play_steps(
            seed,
            Faults { heralds: true, newcomers: true, bridges_lag: true, ..Faults::default() },
            3 * STEPS,
        );
    });
}

#[test]
fn nodes_die_and_are_reaped() {
    seeds().for_each(|seed| {
        play(
            seed,
            Faults {
                cuts: true,
                nodes_die: true,
                nodes_pause: true,
                reaps: true,
                heralds: true,
                ..Faults::default()
            },
        );
    });
}

#[test]
fn members_of_a_group_stop_reading_and_come_back_elsewhere() {
    seeds().for_each(|seed| {
        play_steps(seed, Faults { cuts: true, groups: true, ..Faults::default() }, 2 * STEPS);
    });
}

#[test]
fn members_of_a_group_stop_reading_and_their_nodes_die() {
    seeds().for_each(|seed| {
        play_steps(
            seed,
            Faults { cuts: true, groups: true, nodes_die: true, ..Faults::default() },
            2 * STEPS,
        );
    });
}

#[test]
fn members_of_a_group_stop_reading_and_everything_else_goes_wrong() {
    seeds().for_each(|seed| {
        play_steps(
            seed,
            Faults {
                cuts: true,
                groups: true,
                nodes_die: true,
                nodes_pause: true,
                reaps: true,
                bridge_dies: true,
                links_flap: true,
                store_fails: true,
                slow: true,
                ..Faults::default()
            },
            2 * STEPS,
        );
    });
}

#[test]
fn what_no_member_of_a_group_has_room_for_is_read_once_they_read_again() {
    seeds().for_each(|seed| {
        play_steps(seed, Faults { groups: true, members_stop: true, ..Faults::default() }, 2 * STEPS);
    });
}

#[test]
fn members_of_a_group_stay_while_the_store_loses_its_last_writes_or_everything() {
    seeds().for_each(|seed| {
        play_steps(seed, Faults { groups: true, store_forgets: true, ..Faults::default() }, 2 * STEPS);
    });
}

#[test]
fn the_store_loses_its_last_writes_or_everything() {
    seeds().for_each(|seed| {
        play(
            seed,
            Faults { cuts: true, store_forgets: true, store_fails: true, reaps: true, ..Faults::default() },
        );
    });
}

#[test]
fn who_stays_connected_misses_nothing_though_the_store_loses_its_last_writes_or_everything() {
    seeds().for_each(|seed| {
        play(seed, Faults { store_forgets: true, slow: true, links_flap: true, ..Faults::default() });
    });
}

#[test]
fn everything_goes_wrong_together() {
    seeds().for_each(|seed| {
        play(seed, EVERYTHING);
    });
}

#[test]
fn a_seed_plays_the_same_each_time() {
    assert_eq!(play(7, EVERYTHING), play(7, EVERYTHING));
    assert_ne!(play(7, EVERYTHING), play(8, EVERYTHING));
}
