//! The formats that Holdfast's processes agree on, as pure functions over bytes.
//!
//! Knows nothing of sockets, clocks or threads. Everything that reads bytes from outside returns an error
//! instead of panicking and borrows from its input instead of copying.
//!
//! Start with [`mqtt`] (what devices speak), then [`message`] (a publication between processes) and
//! [`link`] (what a gateway shard and a bridge say to each other).
#![forbid(unsafe_code)]

pub mod coding;
pub mod ids;
pub mod json;
pub mod link;
pub mod message;
pub mod mqtt;
pub mod presence;
pub mod session_record;
pub mod store;
pub mod topic;
pub mod ws;
