//! The brain of one gateway shard.
//!
//! Takes what happened (a socket was accepted, bytes came, a link answered, the store replied, time passed) and says what to
//! do (bytes for connections and links, questions to the store, connections to close). It owns no socket, clock, thread or
//! source of randomness: time and a seed are arguments, so a simulation can run a whole fleet of engines on a virtual clock and
//! replay any run from its seed.
//!
//! Start with [`Engine`], whose `handle_*` methods are everything that can happen and whose `poll_*` methods are everything that
//! may follow; then `connection/established.rs` for the way up and `topics/fan_out.rs` for the way down.
#![forbid(unsafe_code)]

mod admission;
mod connection;
mod drain;
mod engine;
mod events;
mod input;
mod keeping;
mod last_words;
mod limits;
mod outbox;
mod output;
mod ownership;
mod remembered;
mod requests;
mod rereading;
mod session;
mod shared;
mod stats;
mod stray;
mod takeover;
mod timers;
mod topics;
mod unclosed;
mod uplink;
mod will;
mod wills;

pub use connection::close::{CloseReason, Level};
pub use engine::Engine;
pub use engine::view::{DeviceView, SubscriptionView};
pub use input::{AcceptRefused, ConnectionId, LeaseWord, LinkIndex, Listener, Now, SocketEnd};
pub use limits::{EngineConfig, JsonConfig, Limits, MqttConfig};
pub use output::{Action, RequestId};
pub use stats::{ClosedByReason, Stats};
