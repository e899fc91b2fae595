//! A push: what a device hears that it did not ask for just now. Split in two, as a fan-out encodes the body once
//! and puts each session's own head in front of it.

use std::borrow::Cow;

use super::fields::{write_number, write_string};
use super::{Data, Id};

/// A message to the device: `push`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push<'a> {
    /// To be acknowledged by `ack` (QoS 1); without it nothing is expected (QoS 0).
    pub id: Option<Id>,
    /// It may have been sent before, on a connection that was lost ([MQTT-3.3.1-1]).
    pub dup: bool,
    /// What is the same for everyone who hears it.
    pub body: PushBody<'a>,
}

/// The part of a push that does not depend on who hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushBody<'a> {
    /// The topic that it was published to.
    pub topic: Cow<'a, str>,
    /// The event time that its publisher gave it, in milliseconds since 1970: `ts`.
    pub event_time_ms: Option<u64>,
    /// It was retained, and is sent because of a new subscription ([MQTT-3.3.1-8]).
    pub retained: bool,
    /// Its content type, where its publisher said one.
    pub content_type: Option<Cow<'a, str>>,
    /// What it carries.
    pub data: Data<'a>,
}

impl Push<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_push_head(out, self.id, self.dup);
        self.body.encode(out);
    }
}

/// Appends the beginning of a push, up to where [`PushBody::encode`] goes on.
pub fn write_push_head(out: &mut Vec<u8>, id: Option<Id>, dup: bool) {
    out.extend_from_slice(b"{\"type\":\"push\",");
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        write_number(out, id.get());
        out.push(b',');
    }
    if dup {
        out.extend_from_slice(b"\"dup\":true,");
    }
}

impl PushBody<'_> {
    /// Appends the rest of a push behind its head, closing brace included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"topic\":");
        write_string(out, &self.topic);
        if let Some(event_time_ms) = self.event_time_ms {
            out.extend_from_slice(b",\"ts\":");
            write_number(out, event_time_ms);
        }
        if self.retained {
            out.extend_from_slice(b",\"retained\":true");
        }
        if let Some(content_type) = &self.content_type {
            out.extend_from_slice(b",\"content_type\":");
            write_string(out, content_type);
        }
        out.push(b',');
        self.data.encode(out);
        out.push(b'}');
    }
}
