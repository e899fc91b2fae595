//! The Kafka sink against a real Kafka, which `e2e/services/kafka.sh` starts.

mod copies;
mod expiry;
mod outage;
mod pushes;
mod refusals;
#[allow(dead_code, reason = "the tests of the spool use the rest of it")]
mod rig;
#[path = "../shard/mod.rs"]
mod shard;
mod start;
mod stored;
#[path = "../../../store/tests/redis/warnings.rs"]
mod warnings;
