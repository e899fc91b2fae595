#![forbid(unsafe_code)]
//! The bridge: frames of the devices into the log, pushes and messages to the shards that hold their receivers.
//!
//! Knows the link to the gateways, the session store and the sink; never MQTT packets or device sockets. A bridge may die at any moment:
//! what it has not settled its gateways send again.
//!
//! Start with [`Bridge::start`], then `link::conversation` (what a shard says), `uplink` (the way up), `fanout` and [`push`] (the way
//! down), and [`log`] (where frames rest).

pub mod admin;
mod books;
mod bridge;
mod complaints;
pub mod config;
mod core;
pub mod devices;
mod fanout;
pub mod kafka;
mod link;
pub mod log;
pub mod metrics;
mod pace;
pub mod push;
mod reaper;
mod reserved;
mod room;
pub mod sink;
pub mod spool;
mod store_loss;
mod store_pulse;
mod store_requests;
mod uplink;

pub use bridge::{Bridge, BridgeHandle, StartError};
pub use config::BridgeConfig;
pub use link::LinkStream;
pub use reserved::ReservedAddress;
pub use uplink::topic_map::{SinkName, TopicMapError, TopicRule};
pub use uplink::topic_template::{TemplateError, TopicTemplate};
