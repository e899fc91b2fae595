//! Several gateways and bridges as processes of their own: how devices move between them, what comes and goes by Kafka, and what they do in
//! trouble that lasts.
//!
//! Start with [`fleet`]: two gateways with a bridge that has a log, which is cheaper than Kafka where that is not the point.

mod bad_redis;
mod busy;
mod fleet;
mod moving;
mod push_records;
mod topic;
