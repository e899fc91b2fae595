#![forbid(unsafe_code)]
//! The bridge: frames of the devices into the log, pushes and messages to the shards that hold their receivers.
//!
//! Knows the link to the gateways, the session store and the sink; never MQTT packets or device sockets. A bridge may die at any moment:
//! what it has not settled its gateways send again.
//!
//! Start with [`log`] (where frames rest).

pub mod log;
pub mod metrics;
