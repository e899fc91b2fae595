//! WebSocket, the server's side, as pure functions over bytes (RFC 6455).
//!
//! [`read_request`] reads the upgrade request, [`Stream`] turns the bytes behind it into pieces of messages and
//! control frames, [`frame`] writes what goes back. Nothing here owns a read buffer: payload is unmasked where it
//! lies and handed on as it arrives, so an idle connection costs the 32 bytes of its [`Stream`].
//!
//! Extensions are not negotiated; a compressed message is a protocol error. This module does not know what a
//! message means (MQTT or JSON), nor when a close handshake has lasted too long: both are its caller's.
//!
//! Start with [`stream`].

mod close_code;
mod error;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
mod mask;
mod refusal;
pub mod stream;
mod utf8;

pub use close_code::CloseCode;
pub use error::Error;
pub use frame::Opcode;
pub use handshake::{HandshakeStep, Subprotocol, Upgrade, read_request};
pub use refusal::Refusal;
pub use stream::{ControlPayload, DataKind, Event, Stream};
