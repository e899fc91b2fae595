//! What a gateway shard and a bridge say to each other over their link: a byte stream of records.
//!
//! A record is a four-byte little-endian length, one byte of kind, and a body; the length counts kind and body. The shard
//! dials and opens with [`Hello`]; the bridge answers [`Welcome`] or [`Refused`](ToGateway::Refused); then both sides send
//! what they like. There is no separate acknowledgement of records: what must survive a lost link (an [`Uplink`], an
//! [`Interest`]) is said again on the next one, and what is answered carries a number of its own.
//!
//! Start with [`ToBridge`] and [`ToGateway`]. May not know how either side decides anything.

mod downlink;
mod event;
mod hello;
mod interest;
mod uplink;

pub use downlink::{Deliver, Handover, HandoverSettled, Outcome, Positions, Report, Takeover, Target};
pub use event::{Event, EventKind};
pub use hello::{Hello, LINK_VERSION, Welcome};
pub use interest::{Interest, InterestKind, RetainedRead};
pub use uplink::{Settled, SettledAt, Uplink, WILL_BYTES_MAX};

use crate::coding::{CodingError, Reader, Write};
use crate::ids::Epoch;
use crate::message::Message;

/// Longest record in bytes: the largest MQTT packet and room for our own fields. A longer announcement is garbage
/// and closes the link before anything is buffered for it.
pub const RECORD_BYTES_MAX: usize = 268_435_455 + 256 * 1024;

const LENGTH_BYTES: usize = 4;

/// Why a link is closed by the end that reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The announced length is 0 or beyond [`RECORD_BYTES_MAX`].
    #[error("a record of {0} bytes was announced")]
    Length(usize),
    /// A kind that this side does not take.
    #[error("record kind {0} is unknown here")]
    Kind(u8),
    /// The body does not follow its format.
    #[error("a record of kind {kind} {error}")]
    Body {
        /// The record's kind.
        kind: u8,
        /// What is wrong with it.
        error: CodingError,
    },
}

/// One record cut out of the byte stream, not yet understood.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    kind: u8,
    body: &'a [u8],
}

/// Cuts the first record off `bytes`, advancing it. `None` if more bytes are needed.
pub fn next_record<'a>(bytes: &mut &'a [u8]) -> Result<Option<RawRecord<'a>>, LinkError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return Err(LinkError::Length(length));
    }
    let Some((record, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(RawRecord { kind: record[0], body: &record[1..] }))
}

/// Writes a record: `body` appends the fields, the length is filled in behind it.
fn write_record(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    body(out);
    let length = out.len() - start - LENGTH_BYTES;
    debug_assert!(length <= RECORD_BYTES_MAX);
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
}

/// What a shard says to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToBridge<'a> {
    /// The first record of a link.
    Hello(Hello<'a>),
    /// A publication on its way up.
    Uplink(Uplink<'a>),
    /// The shard wants, or no longer wants, what matches a filter.
    Interest(Interest<'a>),
    /// A new subscription asks for a page of the retained messages that match.
    RetainedRead(RetainedRead<'a>),
    /// What became of a [`Deliver`].
    Report(Report),
    /// A session moved here; its former owner is to be told.
    Takeover(Takeover<'a>),
    /// A session moved away; this is what its new owner should know.
    Handover(Handover<'a>),
    /// What became of what was handed over here.
    HandoverSettled(HandoverSettled<'a>),
    /// A connection began or ended.
    Event(Event<'a>),
    /// Nothing else was said for a while: the shard lives.
    Alive,
}

/// What a bridge says to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGateway<'a> {
    /// The link is open.
    Welcome(Welcome),
    /// The link is not accepted; the text says why and how to mend it.
    Refused(&'a str),
    /// Uplinks are settled: acknowledge or refuse them.
    Settled(Settled),
    /// One uplink is settled without an error: acknowledge it with its receipt. Takes the place of [`Self::Settled`] for it.
    SettledAt(SettledAt<'a>),
    /// From now on, this many bytes of unsettled uplinks may be outstanding.
    WindowBytes(u32),
    /// The bridge knows the interest announced with this token.
    InterestKnown(u64),
    /// One retained message for a [`RetainedRead`].
    RetainedMessage {
        /// The read's token.
        token: u64,
        /// The message; goes out with RETAIN set.
        message: Message<'a>,
    },
    /// A page of retained messages is at its end.
    RetainedEnd {
        /// The read's token.
        token: u64,
        /// There may be more behind the page's last topic.
        more: bool,
    },
    /// A message for sessions of this shard.
    Deliver(Deliver<'a>),
    /// The stream of a shared subscription's group may hold what nobody has claimed: one member here, if there is one with a stream, claims it. A member that has no
    /// room does so later.
    GroupWaits {
        /// The share name.
        group: &'a str,
        /// The filter behind it.
        filter: &'a str,
    },
    /// A session of this shard has a new owner.
    Takeover(Takeover<'a>),
    /// What the former owner of a session of this shard knows of it.
    Handover(Handover<'a>),
    /// What became of what was handed over from here.
    HandoverSettled(HandoverSettled<'a>),
    /// This bridge has no link of the former owner that a [`Takeover`] named. Another bridge may have one.
    NotLinked {
        /// Whose session moved.
        client: &'a str,
        /// The new owner's epoch, as the [`Takeover`] named it.
        epoch: Epoch,
    },
    /// An operator disconnects a client (MQTT 5 reason 0x98).
    Disconnect(&'a str),
    /// Nothing else was said for a while: the bridge lives.
    Alive,
}

const HELLO: u8 = 1;
const UPLINK: u8 = 2;
const INTEREST: u8 = 3;
const RETAINED_READ: u8 = 4;
const REPORT: u8 = 5;
const TAKEOVER: u8 = 6;
const HANDOVER: u8 = 7;
const EVENT: u8 = 8;
const SHARD_ALIVE: u8 = 9;
const HANDOVER_SETTLED: u8 = 10;
const WELCOME: u8 = 16;
const REFUSED: u8 = 17;
const SETTLED: u8 = 18;
const WINDOW_BYTES: u8 = 19;
const INTEREST_KNOWN: u8 = 20;
const RETAINED_MESSAGE: u8 = 21;
const RETAINED_END: u8 = 22;
const DELIVER: u8 = 23;
const DISCONNECT: u8 = 24;
const SETTLED_AT: u8 = 25;
const BRIDGE_ALIVE: u8 = 26;
const NOT_LINKED: u8 = 27;
const GROUP_WAITS: u8 = 28;

/// Reads all fields of a body and insists that nothing follows them.
fn read_body<'a, T>(
    record: RawRecord<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodingError>,
) -> Result<T, LinkError> {
    let mut reader = Reader::new(record.body);
    read(&mut reader)
        .and_then(|value| reader.finish().map(|()| value))
        .map_err(|error| LinkError::Body { kind: record.kind, error })
}

impl<'a> ToBridge<'a> {
    /// Understands a record that a shard sent.
    pub fn decode(record: RawRecord<'a>) -> Result<Self, LinkError> {
        match record.kind {
            HELLO => read_body(record, Hello::read).map(Self::Hello),
            UPLINK => read_body(record, Uplink::read).map(Self::Uplink),
            INTEREST => read_body(record, Interest::read).map(Self::Interest),
            RETAINED_READ => read_body(record, RetainedRead::read).map(Self::RetainedRead),
            REPORT => read_body(record, Report::read).map(Self::Report),
            TAKEOVER => read_body(record, Takeover::read).map(Self::Takeover),
            HANDOVER => read_body(record, Handover::read).map(Self::Handover),
            HANDOVER_SETTLED => read_body(record, HandoverSettled::read).map(Self::HandoverSettled),
            EVENT => read_body(record, Event::read).map(Self::Event),
            SHARD_ALIVE => read_body(record, |_| Ok(Self::Alive)),
            other => Err(LinkError::Kind(other)),
        }
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => write_record(out, HELLO, |out| hello.write(out)),
            Self::Uplink(uplink) => write_record(out, UPLINK, |out| uplink.write(out)),
            Self::Interest(interest) => write_record(out, INTEREST, |out| interest.write(out)),
            Self::RetainedRead(read) => write_record(out, RETAINED_READ, |out| read.write(out)),
            Self::Report(report) => write_record(out, REPORT, |out| report.write(out)),
            Self::Takeover(takeover) => write_record(out, TAKEOVER, |out| takeover.write(out)),
            Self::Handover(handover) => write_record(out, HANDOVER, |out| handover.write(out)),
            Self::HandoverSettled(settled) => write_record(out, HANDOVER_SETTLED, |out| settled.write(out)),
            Self::Event(event) => write_record(out, EVENT, |out| event.write(out)),
            Self::Alive => write_record(out, SHARD_ALIVE, |_| ()),
        }
    }
}

impl<'a> ToGateway<'a> {
    /// Understands a record that a bridge sent.
    pub fn decode(record: RawRecord<'a>) -> Result<Self, LinkError> {
        match record.kind {
            WELCOME => read_body(record, Welcome::read).map(Self::Welcome),
            REFUSED => read_body(record, Reader::text).map(Self::Refused),
            SETTLED => read_body(record, Settled::read).map(Self::Settled),
            SETTLED_AT => read_body(record, SettledAt::read).map(Self::SettledAt),
            WINDOW_BYTES => read_body(record, Reader::u32).map(Self::WindowBytes),
            INTEREST_KNOWN => read_body(record, Reader::u64).map(Self::InterestKnown),
            RETAINED_MESSAGE => read_body(record, |reader| {
                Ok(Self::RetainedMessage { token: reader.u64()?, message: Message::read(reader)? })
            }),
            RETAINED_END => read_body(record, |reader| {
                Ok(Self::RetainedEnd { token: reader.u64()?, more: reader.u8()? != 0 })
            }),
            DELIVER => read_body(record, Deliver::read).map(Self::Deliver),
            TAKEOVER => read_body(record, Takeover::read).map(Self::Takeover),
            HANDOVER => read_body(record, Handover::read).map(Self::Handover),
            HANDOVER_SETTLED => read_body(record, HandoverSettled::read).map(Self::HandoverSettled),
            NOT_LINKED => read_body(record, |reader| {
                Ok(Self::NotLinked { client: reader.text()?, epoch: Epoch(reader.u64()?) })
            }),
            GROUP_WAITS => read_body(record, |reader| {
                Ok(Self::GroupWaits { group: reader.text()?, filter: reader.text()? })
            }),
            DISCONNECT => read_body(record, Reader::text).map(Self::Disconnect),
            BRIDGE_ALIVE => read_body(record, |_| Ok(Self::Alive)),
            other => Err(LinkError::Kind(other)),
        }
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => write_record(out, WELCOME, |out| welcome.write(out)),
            Self::Refused(reason) => write_record(out, REFUSED, |out| out.put_text(reason)),
            Self::Settled(settled) => write_record(out, SETTLED, |out| settled.write(out)),
            Self::SettledAt(settled) => write_record(out, SETTLED_AT, |out| settled.write(out)),
            Self::WindowBytes(bytes) => write_record(out, WINDOW_BYTES, |out| out.put_u32(*bytes)),
            Self::InterestKnown(token) => write_record(out, INTEREST_KNOWN, |out| out.put_u64(*token)),
            Self::RetainedMessage { token, message } => write_record(out, RETAINED_MESSAGE, |out| {
                out.put_u64(*token);
                message.encode(out);
            }),
            Self::RetainedEnd { token, more } => write_record(out, RETAINED_END, |out| {
                out.put_u64(*token);
                out.put_u8(u8::from(*more));
            }),
            Self::Deliver(deliver) => write_record(out, DELIVER, |out| deliver.write(out)),
            Self::Takeover(takeover) => write_record(out, TAKEOVER, |out| takeover.write(out)),
            Self::Handover(handover) => write_record(out, HANDOVER, |out| handover.write(out)),
            Self::HandoverSettled(settled) => write_record(out, HANDOVER_SETTLED, |out| settled.write(out)),
            Self::NotLinked { client, epoch } => write_record(out, NOT_LINKED, |out| {
                out.put_text(client);
                out.put_u64(epoch.0);
            }),
            Self::GroupWaits { group, filter } => write_record(out, GROUP_WAITS, |out| {
                out.put_text(group);
                out.put_text(filter);
            }),
            Self::Disconnect(client) => write_record(out, DISCONNECT, |out| out.put_text(client)),
            Self::Alive => write_record(out, BRIDGE_ALIVE, |_| ()),
        }
    }
}

#[cfg(test)]
mod tests;
