//! What the tests across whole processes stand on: a running `holdfast dev`, clients that may misbehave, and the
//! ways to see what it did (its metrics, its log, its memory).
//!
//! It knows Holdfast only from outside: command line, sockets, files. Packets are written out here by hand from the
//! specifications, so that the tests share no mistake with the code they judge.
//!
//! Start with [`Gateway`], then [`Client`]. `README.md` beside this crate says how the suite is laid out.
#![forbid(unsafe_code)]

mod client;
mod gateway;
mod http;
pub mod log;
pub mod metrics;
pub mod packet;
mod proxy;
mod process;
pub mod wait;
mod witness;

pub use client::{Client, End};
pub use gateway::{Gateway, Ready, Setup, StartFailure};
pub use http::{Response, request};
pub use proxy::{Proxy, Weather};
pub use process::{Finished, find_binary, resident_bytes, run};
pub use witness::Witness;
