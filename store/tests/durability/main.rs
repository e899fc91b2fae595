//! What only a store on a disk promises: what it answered is there when it is opened again, whatever ended it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod crash;
mod equivalence;
mod opening;
#[path = "../contract/random_steps.rs"]
mod random_steps;
#[path = "../contract/redis_forms.rs"]
#[allow(dead_code, reason = "only the stores of this machine are tested here")]
mod redis_forms;
#[path = "../contract/redis_server.rs"]
#[allow(dead_code, reason = "nothing here needs a server")]
mod redis_server;
mod restart;
#[path = "../contract/world.rs"]
#[allow(dead_code, reason = "the contract suite uses all of it")]
mod world;
