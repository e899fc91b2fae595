//! The parts of each role put together: what starts in which order, and how it ends.
//!
//! `parts` opens what several roles have: the session store and the sink.

mod bridge;
mod dev;
mod gateway;
mod late_pushes;
mod parts;

pub(crate) use bridge::BridgeAssembly;
pub(crate) use dev::DevAssembly;
pub(crate) use gateway::GatewayAssembly;
pub(crate) use parts::StartError;
