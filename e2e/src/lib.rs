//! What the tests across whole processes stand on: a running `holdfast dev`, or bridges and gateways of their own with a real Kafka
//! and Redis; clients that may misbehave; a proxy that fails connections; and the ways to see what was done (metrics, log, memory).
//!
//! It knows Holdfast only from outside: command line, sockets, files. Packets are written out here by hand from the
//! specifications, so that the tests share no mistake with the code they judge.
//!
//! Start with [`Gateway`], then [`Client`]; for several processes with [`Cluster`]. `README.md` beside this crate says how the suite is laid out.
#![forbid(unsafe_code)]

mod client;
mod cluster;
mod gateway;
mod http;
mod kafka;
pub mod log;
pub mod metrics;
mod names;
pub mod packet;
mod ports;
mod process;
mod proxy;
mod redis;
mod role;
mod skip;
pub mod wait;
mod witness;

pub use client::{Client, End};
pub use cluster::{Cluster, ClusterSetup, DeviceWay, Ways};
pub use gateway::{Gateway, Ready, Setup, StartFailure};
pub use http::{Response, request};
pub use kafka::Kafka;
pub use names::Names;
pub use process::{Finished, find_binary, resident_bytes, run, unique};
pub use proxy::{Proxy, Weather};
pub use redis::{Redis, RedisForm};
pub use role::{Role, RoleFailure, RoleSetup};
pub use skip::not_tried;
pub use witness::Witness;
