//! The gateway: holds devices' connections and moves bytes between them, the engine and the bridges.
//!
//! The data plane is one thread per core on mio (`shard`), each with an engine, its client sockets (`io`) and its links to the bridges
//! (`link`). Beside them one small thread runs the admin server and the lease. What MQTT means is the engine's business; this
//! crate never looks into a packet.
//!
//! Layers, each naming only what stands left of it: `config, metrics, logging, mailbox < io, link, store_client < shard < admin < node`.
//! Start with [`Node::start`], then `shard/event_loop.rs`.
#![forbid(unsafe_code)]

mod admin;
pub mod config;
mod control;
mod drain;
mod io;
mod lease;
mod link;
pub mod logging;
mod mailbox;
pub mod metrics;
mod node;
mod shard;
mod store_client;

pub use drain::DrainTrigger;
pub use io::listener::BindError;
pub use link::LinkTarget;
pub use node::{Addresses, Drained, Node, NodeConfig, NodeHandle, Reloader, StartError};
