//! What a device hears.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::fields::{write_number, write_string};
use super::{ErrorCode, Id, Push};

/// A message to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Downlink<'a> {
    /// The first message on every connection: what was agreed.
    Welcome(Welcome<'a>),
    /// The frame of this id is stored.
    Ack {
        /// The frame's.
        id: Id,
        /// It had been stored before; this sending of it made no second record.
        duplicate: bool,
        /// Where, if the device asked for receipts and the frame went to Kafka.
        receipt: Option<Receipt<'a>>,
    },
    /// A message was not taken, or what it asked for was refused.
    Error {
        /// The message's, if it had one that could be read.
        id: Option<Id>,
        /// For the device.
        code: ErrorCode,
        /// For whoever programs it.
        message: Cow<'a, str>,
    },
    /// Something was published to a topic that the device subscribed to, or pushed to it.
    Push(Push<'a>),
    /// The answer to `subscribe`.
    Subscribed {
        /// The request's.
        id: Id,
        /// One for each topic in the request's order: the QoS granted (0, 1), or from 128 on why not, as in an MQTT 5 SUBACK.
        codes: Cow<'a, [u8]>,
    },
    /// The answer to `unsubscribe`.
    Unsubscribed {
        /// The request's.
        id: Id,
    },
    /// The answer to `ping`.
    Pong,
    /// The last message before the server closes the connection, wherever there is time for one.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// Not to come back sooner, if it matters.
        retry_after_ms: Option<u32>,
    },
}

/// What holds on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// Who the device is here; may differ from the path's client id, as authentication has the last word.
    pub client_id: Cow<'a, str>,
    /// The session of an earlier connection goes on: its subscriptions stand, its pushes come again.
    pub session_present: bool,
    /// How long the session outlives its connection; 0: not at all.
    pub session_expiry_s: u32,
    /// After one and a half times this long without a message or a WebSocket ping the server closes; 0: never.
    pub keep_alive_s: u16,
    /// Frames with an id that may be unanswered at a time.
    pub receive_maximum: u16,
    /// Bytes of the longest message the device may send.
    pub message_bytes_max: u32,
}

/// Where a frame lies in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// The Kafka topic.
    pub topic: Cow<'a, str>,
    /// Its partition.
    pub partition: u32,
    /// The record's offset there.
    pub offset: u64,
}

/// Why the server closes a connection. Its name on the wire is in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// The node is taken out of service; any other node has the session.
    Drain,
    /// The same client id has connected elsewhere.
    Takeover,
    /// Nothing was heard for one and a half times the keep alive.
    KeepAliveTimeout,
    /// The device reads slower than its pushes come.
    SlowConsumer,
    /// A message broke the protocol in a way that the connection cannot go on from.
    ProtocolError,
    /// A message was larger than `welcome` allows.
    TooLarge,
    /// More frames were unanswered than `welcome` allows.
    ReceiveMaximumExceeded,
    /// A rate or a number that an administrator set is used up.
    QuotaExceeded,
    /// The token has expired, or the device is no longer allowed here.
    NotAuthorized,
    /// An administrator closed the connection.
    Administrative,
    /// The node cannot serve this device now.
    ServerBusy,
    /// The node made a mistake.
    Internal,
}

impl Downlink<'_> {
    /// What `type` says, for each kind of message.
    pub const TYPES: [&'static str; 8] =
        ["welcome", "ack", "error", "push", "subscribed", "unsubscribed", "pong", "goodbye"];

    /// Appends the message. Writing allocates nothing beyond `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => welcome.encode(out),
            Self::Ack { id, duplicate, receipt } => {
                write_head(out, b"{\"type\":\"ack\"", Some(*id));
                if *duplicate {
                    out.extend_from_slice(b",\"duplicate\":true");
                }
                if let Some(receipt) = receipt {
                    receipt.encode(out);
                }
                out.push(b'}');
            }
            Self::Error { id, code, message } => {
                write_head(out, b"{\"type\":\"error\"", *id);
                out.extend_from_slice(b",\"code\":\"");
                out.extend_from_slice(code.as_str().as_bytes());
                out.extend_from_slice(b"\",\"message\":");
                write_string(out, message);
                out.push(b'}');
            }
            Self::Push(push) => push.encode(out),
            Self::Subscribed { id, codes } => {
                write_head(out, b"{\"type\":\"subscribed\"", Some(*id));
                out.extend_from_slice(b",\"codes\":[");
                for (index, code) in codes.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_number(out, *code);
                }
                out.extend_from_slice(b"]}");
            }
            Self::Unsubscribed { id } => {
                write_head(out, b"{\"type\":\"unsubscribed\"", Some(*id));
                out.push(b'}');
            }
            Self::Pong => out.extend_from_slice(b"{\"type\":\"pong\"}"),
            Self::Goodbye { reason, retry_after_ms } => {
                out.extend_from_slice(b"{\"type\":\"goodbye\",\"reason\":\"");
                out.extend_from_slice(reason.as_str().as_bytes());
                out.push(b'"');
                if let Some(retry_after_ms) = retry_after_ms {
                    out.extend_from_slice(b",\"retry_after_ms\":");
                    write_number(out, *retry_after_ms);
                }
                out.push(b'}');
            }
        }
    }
}

impl Welcome<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"welcome\",\"client_id\":");
        write_string(out, &self.client_id);
        out.extend_from_slice(if self.session_present {
            b",\"session_present\":true"
        } else {
            b",\"session_present\":false"
        });
        out.extend_from_slice(b",\"session_expiry_s\":");
        write_number(out, self.session_expiry_s);
        out.extend_from_slice(b",\"keep_alive_s\":");
        write_number(out, self.keep_alive_s);
        out.extend_from_slice(b",\"receive_maximum\":");
        write_number(out, self.receive_maximum);
        out.extend_from_slice(b",\"message_bytes_max\":");
        write_number(out, self.message_bytes_max);
        out.push(b'}');
    }
}

impl Receipt<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"receipt\":{\"topic\":");
        write_string(out, &self.topic);
        out.extend_from_slice(b",\"partition\":");
        write_number(out, self.partition);
        out.extend_from_slice(b",\"offset\":");
        write_number(out, self.offset);
        out.push(b'}');
    }
}

fn write_head(out: &mut Vec<u8>, head: &[u8], id: Option<Id>) {
    out.extend_from_slice(head);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        write_number(out, id.get());
    }
}

impl GoodbyeReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Drain,
        Self::Takeover,
        Self::KeepAliveTimeout,
        Self::SlowConsumer,
        Self::ProtocolError,
        Self::TooLarge,
        Self::ReceiveMaximumExceeded,
        Self::QuotaExceeded,
        Self::NotAuthorized,
        Self::Administrative,
        Self::ServerBusy,
        Self::Internal,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Takeover => "takeover",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::ProtocolError => "protocol_error",
            Self::TooLarge => "too_large",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::NotAuthorized => "not_authorized",
            Self::Administrative => "administrative",
            Self::ServerBusy => "server_busy",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
