//! Room for TLS. Nothing is here yet: it comes with its own piece of work.
//!
//! What will be here: a rustls connection between a [`Socket`](super::socket::Socket) and the engine, created after accept on a
//! listener of its own kind, with the handshake counted among the half-open connections, plaintext decrypted into the shard's
//! second scratch buffer, and no record buffer on an idle connection. The engine stays unaware of it.
