//! The Kafka sink against a real Kafka, which `e2e/services/kafka.sh` starts.

mod copies;
mod outage;
mod refusals;
mod rig;
mod start;
mod stored;
