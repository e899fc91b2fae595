//! Simulated devices, the ledger of every frame they sent, and the benchmark driver.
//!
//! Knows [`holdfast_wire`] and nothing else of Holdfast: a load tool that shared code with the gateway would share
//! its mistakes. What it concludes comes from a ledger compared with the contents of the log, never from counters.
//!
//! Start with [`plan`] (what is asked), [`fleet`] (who does it), [`ledger`] (what is remembered of it) and
//! [`verdict`] (what follows). [`mod@bench`] is a tool of its own: figures of any MQTT broker, side by side.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
mod clock;
pub mod cluster;
mod device;
pub mod failover;
pub mod fleet;
pub mod kafka;
pub mod ledger;
pub mod payload;
pub mod plan;
mod random;
pub mod records;
pub mod schedule;
pub mod sequences;
pub mod verdict;
