//! Client sockets: the only folder that touches them.
//!
//! Knows the kernel and the engine's names for connections; nothing of MQTT, shards or links. Nothing here blocks, and nothing
//! decides: the shard's event loop does. Start with [`socket`].

pub(crate) mod lingering;
pub(crate) mod listener;
pub(crate) mod room;
mod send_buffer;
pub(crate) mod socket;
pub(crate) mod sockets;
mod tls;
