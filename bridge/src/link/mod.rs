//! Links to gateway shards: accepting them, reading what they say, writing what they are told.
//!
//! A link is four tasks: `conversation` reads (`intake` says what becomes of it) and owns its uplinks, `writer` writes, one fans out the messages that have to wait, one answers reads of
//! retained messages. Each waits for a slow shard without holding up the others. Everybody else knows a link as a [`Peer`].
//!
//! Links of gateways on other machines come from `listener`, and have a task that sees whether both ends live. Start with `conversation`.

mod conversation;
mod ending;
mod intake;
mod keep_alive;
mod listener;
mod peer;
mod peers;
mod records;
mod stream;
mod writer;

pub(crate) use conversation::converse;
pub(crate) use listener::accept_links;
pub(crate) use peer::{Peer, PeerGone};
pub(crate) use peers::Peers;
pub use stream::LinkStream;
