//! The push API: each push has one outcome, and its sender hears it.

mod api;
mod batch;
mod devices;
mod groups;
mod openapi;
mod problems;
#[path = "../shard/mod.rs"]
mod shard;
mod single;
mod stopping;
