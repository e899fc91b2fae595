//! What the engine waits for from store and bridges, and for whom.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::store::WillRecord;

use crate::admission::OpenAsked;
use crate::input::{ConnectionId, LinkIndex};
use crate::session::retained::RetainedRead;

/// What a question to the store was about.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A connection opens its session.
    Open(OpenAsked),
    /// Subscriptions of a persistent session; the SUBSCRIBE's ticket.
    Subscribe(u64),
    /// A persistent session's UNSUBSCRIBE, its filters, and the answer that it is owed.
    Unsubscribe(ConnectionId, Vec<Box<str>>, UnsubscribeAnswer),
    /// The stream with this index is read on, or claimed from, for the so-many-th time.
    Read(ConnectionId, u16, u32),
    /// Progress of a connected session.
    Save(ConnectionId),
    /// A session is written back to a store that may have forgotten it.
    Restore(ConnectionId),
    /// Does the store know this session still?
    Probe(ConnectionId),
    /// A connection ended.
    Close(Closing),
    /// A will needs to be published no more: whose, and its number.
    WillPublished(ClientId, u64),
    /// Did an opening that was not answered take effect? The session expiry is the one it asked for, in seconds.
    Stray(ClientId, u32),
}

/// A session that is to rest or to end in the store. How far it came is in `Shared::closing`, if it outlives its connection.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) client: ClientId,
    pub(crate) epoch: Epoch,
    pub(crate) expiry_s: u32,
    /// What the store is to publish.
    pub(crate) will: Option<WillRecord>,
    /// How often the store could not take it.
    pub(crate) failures: u32,
    /// The store did not know it, and was asked to bring it back for its will.
    pub(crate) is_brought_back: bool,
}

/// The answer to an UNSUBSCRIBE.
#[derive(Debug)]
pub(crate) struct UnsubscribeAnswer {
    /// Packet id, or the id of a JSON device's request.
    pub(crate) packet_id: u16,
    /// A reason code for each filter.
    pub(crate) codes: Vec<u8>,
}

/// A SUBSCRIBE on its way to its SUBACK.
#[derive(Debug)]
pub(crate) struct PendingSubscribe {
    pub(crate) connection: ConnectionId,
    /// Packet id, or the id of a JSON device's request.
    pub(crate) packet_id: u16,
    /// A reason code for each filter.
    pub(crate) codes: Vec<u8>,
    /// Filters that some bridge does not know yet, and 1 while the store has not answered.
    pub(crate) waits: u32,
    /// Retained messages to be asked for after the SUBACK.
    pub(crate) retained: Vec<RetainedRead>,
}

/// A page of retained messages that was asked for. Which, is in the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetainedAsked {
    pub(crate) connection: ConnectionId,
    /// The link that was asked; none while there is none.
    pub(crate) link: Option<LinkIndex>,
}
