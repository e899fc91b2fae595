//! What only a store in a server promises: servers that cannot serve, that go away, that hang, that lose everything; and
//! users of one server that die between two steps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod absence;
mod checks;
mod failover;
mod proxy;
#[path = "../contract/redis_server.rs"]
mod redis_server;
mod sharing;
#[path = "../contract/world.rs"]
#[allow(dead_code, reason = "the contract suite uses all of it")]
mod world;
