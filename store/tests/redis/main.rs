//! What only a store in a server promises: servers that cannot serve, that go away, that hang, that lose everything, that
//! take each other's place; and users of one server that die between two steps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod absence;
mod by_hand;
mod checks;
mod claims;
mod cluster;
mod equivalence;
mod failover;
mod lives;
mod load;
mod proxy;
#[path = "../contract/random_steps.rs"]
mod random_steps;
#[path = "../contract/redis_forms.rs"]
mod redis_forms;
#[path = "../contract/redis_server.rs"]
mod redis_server;
mod refusing;
mod replicated;
mod sentinel;
mod sentinel_parts;
mod sharing;
mod telling;
mod tls;
mod warnings;
#[path = "../contract/world.rs"]
#[allow(dead_code, reason = "the contract suite uses all of it")]
mod world;
