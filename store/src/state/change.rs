//! What a request changed, in the form in which a disk wants to know it.
//!
//! The state tells a [`Journal`] of every change that must outlive the process, in order. Memory listens to nothing,
//! so it pays nothing: a change is only built for who wants it.

use holdfast_wire::ids::ClientId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};

/// Listens to changes.
pub(crate) trait Journal {
    /// Something that must be durable has changed.
    fn record(&mut self, change: impl FnOnce() -> Change);
}

/// Listens to nothing.
pub(crate) struct NoJournal;

impl Journal for NoJournal {
    fn record(&mut self, _change: impl FnOnce() -> Change) {}
}

impl Journal for Vec<Change> {
    fn record(&mut self, change: impl FnOnce() -> Change) {
        self.push(change());
    }
}

/// Names a stream on the disk. A stream that is dropped and made again gets another.
pub(crate) type StreamId = u64;

/// One durable change. Absolute, not relative: carrying it out twice does no harm.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A session is now like this (a row as `SessionRow` writes it).
    Session(ClientId, Vec<u8>),
    /// A session is gone.
    SessionGone(ClientId),
    /// A stream is now like this, apart from its messages.
    Stream(StreamKey, StreamRow),
    /// A stream is gone; its messages were [`Change::Trimmed`] before.
    StreamGone(StreamKey),
    /// A message was appended.
    Message(StreamId, Offset, SharedMessage),
    /// The message with this offset was appended under this collapse key.
    CollapseKey(StreamId, Offset, Box<str>),
    /// A group's member has settled messages from the first to the last of these offsets, which stand behind some that nobody has.
    Settled(StreamId, Offset, Offset),
    /// Messages from the first to the last of these offsets are gone, and what else is known of them and those before.
    Trimmed(StreamId, Offset, Offset),
    /// A topic's retained message is now this one.
    Retained(SharedMessage),
    /// A topic has no retained message any more.
    RetainedGone(Box<str>),
    /// A dead owner's session has left a will, or its time has changed (a row as `LeftWill` writes it).
    Will(u64, Vec<u8>),
    /// A will was published or struck out.
    WillGone(u64),
    /// Clients came into a group, and others left it.
    Members(Box<str>, Vec<ClientId>, Vec<ClientId>),
    /// All members from the first to the last of these left a group, apart from some.
    MembersGone(Box<str>, ClientId, ClientId, Vec<ClientId>),
    /// A group is gone, with all its members.
    GroupGone(Box<str>),
}

impl Change {
    /// What it weighs in a queue: the bytes it owns, and its own size.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Session(_, row) | Self::Will(_, row) => row.len(),
                Self::Message(_, _, message) | Self::Retained(message) => message.as_bytes().len(),
                Self::Stream(StreamKey::Filter(text) | StreamKey::Device(text), _)
                | Self::StreamGone(StreamKey::Filter(text) | StreamKey::Device(text))
                | Self::CollapseKey(_, _, text)
                | Self::RetainedGone(text)
                | Self::GroupGone(text) => text.len(),
                // Each is a name that its group shares, in most cases.
                Self::Members(name, came, left) => {
                    name.len() + (came.len() + left.len()) * size_of::<ClientId>()
                }
                Self::MembersGone(name, _, _, kept) => name.len() + kept.len() * size_of::<ClientId>(),
                Self::SessionGone(_) | Self::Settled(..) | Self::Trimmed(..) | Self::WillGone(_) => 0,
            }
    }
}

/// A stream apart from its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    /// Names its messages.
    pub(crate) id: StreamId,
    /// Its last offset when this was written; messages behind it say better.
    pub(crate) end: Offset,
}
