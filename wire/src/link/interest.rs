//! What a shard's sessions want to hear.

use crate::coding::{CodingError, Reader, Write};

/// A shard announces or withdraws a filter: the first subscriber announces, the last one withdraws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest<'a> {
    /// The bridge answers with this number once it knows the interest; 0 asks for no answer.
    pub token: u64,
    /// Announced, or withdrawn.
    pub wanted: bool,
    /// How matching messages find their sessions.
    pub kind: InterestKind<'a>,
    /// The filter, without `$share/{group}/`.
    pub filter: &'a str,
    /// A persistent session holds it with QoS > 0: matching messages with QoS > 0 also go to the filter's stream
    /// in the store, before their publisher hears an acknowledgement.
    pub durable: bool,
}

/// How a message that matches an interest finds its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterestKind<'a> {
    /// Every session of the shard that holds the filter.
    Filter,
    /// One member of the group, among all shards; `members` is how many connected ones this shard has.
    Shared {
        /// The group's name.
        group: &'a str,
        /// Connected members here: the shard's weight.
        members: u32,
    },
    /// The session whose client id stands in the topic at `level` (counted from 0). The filter carries `+` there, so all devices that subscribe
    /// to `devices/{their id}/push` are one announcement.
    Personal {
        /// Which level of the topic is the client id.
        level: u8,
    },
}

impl<'a> Interest<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.token);
        out.put_u8(u8::from(self.wanted));
        out.put_u8(u8::from(self.durable));
        match self.kind {
            InterestKind::Filter => out.put_u8(0),
            InterestKind::Shared { group, members } => {
                out.put_u8(1);
                out.put_text(group);
                out.put_u32(members);
            }
            InterestKind::Personal { level } => {
                out.put_u8(2);
                out.put_u8(level);
            }
        }
        out.put_text(self.filter);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let token = reader.u64()?;
        let wanted = reader.u8()? != 0;
        let durable = reader.u8()? != 0;
        let kind = match reader.u8()? {
            0 => InterestKind::Filter,
            1 => InterestKind::Shared { group: reader.text()?, members: reader.u32()? },
            2 => InterestKind::Personal { level: reader.u8()? },
            other => {
                return Err(CodingError::UnknownValue { field: "interest kind", value: u64::from(other) });
            }
        };
        Ok(Self { token, wanted, kind, filter: reader.text()?, durable })
    }
}

/// A new subscription asks for one page of retained messages, in the order of their topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedRead<'a> {
    /// Stands in each answer.
    pub token: u64,
    /// Which topics.
    pub filter: &'a str,
    /// Only topics behind this one; empty to begin.
    pub after: &'a str,
    /// Most messages wanted, at least 1. The bridge may end the page earlier.
    pub messages_max: u32,
}

impl<'a> RetainedRead<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.token);
        out.put_text(self.filter);
        out.put_text(self.after);
        out.put_u32(self.messages_max);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        Ok(Self {
            token: reader.u64()?,
            filter: reader.text()?,
            after: reader.text()?,
            messages_max: reader.u32()?,
        })
    }
}
