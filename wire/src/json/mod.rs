//! The JSON device protocol `holdfast.v1`, for devices without an MQTT library: one JSON object in each text
//! message of a WebSocket (`docs/devices-json.md`).
//!
//! [`Uplink`] is what a device says, [`Downlink`] what it hears. Messages up are read strictly: a field that is
//! unknown, given twice, null or of the wrong type is refused with an [`Error`] that the device is told. What a
//! frame or a push carries passes through as it was written.
//!
//! This module does not judge topics and knows nothing of sessions: an [`Id`] is a packet identifier there, with the
//! same range and the same rules as in MQTT QoS 1.
//!
//! Start with [`Uplink`].

mod data;
mod downlink;
mod error;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod push;
mod reading;
mod socket;
mod topics;
mod uplink;

use std::num::NonZeroU16;

pub use data::Data;
pub use downlink::{Downlink, GoodbyeReason, Receipt, Welcome};
pub use error::{Error, ErrorCode};
pub use push::{Push, PushBody, write_push_head};
pub use socket::{CLIENT_ID_BYTES_MAX, QueryError, SocketOptions, socket_path};
pub use uplink::{Frame, Qos, Subscription, TOPICS_MAX, Uplink};

/// What ties an answer to its message: 1-65535, chosen by the sender and free again once answered. It is the
/// packet identifier of the session; the two directions count separately ([MQTT-2.2.1-3]).
pub type Id = NonZeroU16;
