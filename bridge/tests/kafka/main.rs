//! The Kafka sink against a real Kafka, which `e2e/services/kafka.sh` starts.

mod copies;
mod outage;
mod pushes;
mod refusals;
mod rig;
#[path = "../shard/mod.rs"]
mod shard;
mod start;
mod stored;
