//! One file for each command: its arguments, and `run`.

pub(crate) mod bridge;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod gateway;
pub(crate) mod loadgen;
pub(crate) mod log;
