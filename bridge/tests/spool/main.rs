//! The spool of an outage: order, nothing acknowledged lost, duplicates that say so, recovery without a restart.

mod broker;
mod devices;
mod disk;
mod kafka;
mod kill;
mod property;
#[path = "../kafka/rig.rs"]
#[expect(dead_code, reason = "belongs to the tests of Kafka itself, which use the rest")]
mod rig;
#[path = "../shard/mod.rs"]
mod shard;
mod story;
mod turns;
