//! The table of sessions, laid out so that a connection which keeps nothing costs next to nothing.
//!
//! A session is *connected* (it has an owner), or it *rests* until its expiry; what it must remember stands in a box
//! that a clean session does not have:
//!
//! ```text
//!            Open                     Close, expiry > 0
//! (absent) ────────> connected ───────────────────────> resting ──┐
//!     ^                  │  ^────────────── Open ──────────┘      │ expiry
//!     └── Close, expiry 0┘                                        │
//!     └───────────────────────────────────────────────────────────┘
//! ```
//!
//! What a clean session costs on the heap: the client id's text is the connection's own (shared). The entry is
//! 16 (client id) + 8 (epoch) + 8 (owner) + 8 (no box) = 40 bytes, and 1 byte of the map's control bytes; a map is filled
//! to 7/8 at most and to 7/16 just after it has grown, so between 47 and 94 bytes.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use holdfast_wire::ids::ClientId;
use holdfast_wire::session_record::{Cursor, Offset, SessionRecord, StreamKey};
use holdfast_wire::store::{NEVER_EXPIRES_S, WillRecord};

use super::nodes::PackedOwner;

/// A session as the table holds it.
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) owner: PackedOwner,
    pub(crate) details: Option<Box<Details>>,
}

/// What only some sessions have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// 0 for one that ends with its connection.
    pub(crate) expiry_s: u32,
    /// Unix ms; none while it is connected, [`u64::MAX`] for never.
    pub(crate) rests_until_ms: Option<u64>,
    pub(crate) will: Option<WillRecord>,
    /// Subscriptions in the order of their filters, cursors in the order of their streams, so that both are found by
    /// bisection however many a client makes.
    pub(crate) record: SessionRecord,
}

impl Session {
    /// Whether it outlives its connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.expiry_s > 0)
    }

    /// Whether its rest is over; it is as good as absent then.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.details.as_ref().and_then(|details| details.rests_until_ms).is_some_and(|until| until <= now_ms)
    }

    /// Whether a write of it may change something durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.details
            .as_ref()
            .is_some_and(|details| details.expiry_s > 0 || !details.record.cursors.is_empty())
    }
}

impl Details {
    /// Where the session stands in a stream, if it reads it.
    pub(crate) fn cursor(&self, stream: &StreamKey) -> Option<Offset> {
        self.find_cursor(stream).ok().map(|at| self.record.cursors[at].acked)
    }

    /// The place of a cursor, or where it would go.
    pub(crate) fn find_cursor(&self, stream: &StreamKey) -> Result<usize, usize> {
        self.record.cursors.binary_search_by(|cursor| cursor.stream.cmp(stream))
    }

    /// The place of a subscription, or where it would go.
    pub(crate) fn find_subscription(&self, filter: &str) -> Result<usize, usize> {
        self.record.subscriptions.binary_search_by(|subscription| (*subscription.filter).cmp(filter))
    }

    /// Takes a cursor out.
    pub(crate) fn take_cursor(&mut self, stream: &StreamKey) -> Option<Cursor> {
        self.find_cursor(stream).ok().map(|at| self.record.cursors.remove(at))
    }
}

/// When a rest that begins now is over.
pub(crate) fn rest_ends_ms(now_ms: u64, expiry_s: u32) -> u64 {
    if expiry_s == NEVER_EXPIRES_S { u64::MAX } else { now_ms.saturating_add(u64::from(expiry_s) * 1_000) }
}

/// How many maps the table is divided into. One map of a million entries takes some 50 ms to grow, and everyone waits;
/// a 64th of it is over before anyone notices, and the space for moving it is a 64th as well.
const SHELVES: usize = 64;

/// All sessions by client.
pub(crate) struct SessionTable {
    hasher: RandomState,
    shelves: Box<[HashMap<ClientId, Session, RandomState>]>,
    sessions: usize,
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let shelves = (0..SHELVES).map(|_| HashMap::with_hasher(hasher.clone())).collect();
        Self { hasher, shelves, sessions: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions
    }

    pub(crate) fn find(&self, client: &str) -> Option<&Session> {
        self.shelves[self.shelf(client)].get(client)
    }

    pub(crate) fn find_mut(&mut self, client: &str) -> Option<&mut Session> {
        let shelf = self.shelf(client);
        self.shelves[shelf].get_mut(client)
    }

    pub(crate) fn insert(&mut self, client: ClientId, session: Session) {
        let shelf = self.shelf(&client);
        if self.shelves[shelf].insert(client, session).is_none() {
            self.sessions += 1;
        }
    }

    pub(crate) fn remove(&mut self, client: &str) -> Option<Session> {
        let shelf = self.shelf(client);
        let session = self.shelves[shelf].remove(client)?;
        self.sessions -= 1;
        Some(session)
    }

    fn shelf(&self, client: &str) -> usize {
        // From the middle of the hash: the maps go by its two ends.
        (self.hasher.hash_one(client) >> 32) as usize % SHELVES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_session_costs_at_most_110_bytes_of_heap() {
        let entry = size_of::<(ClientId, Session)>();
        assert_eq!(entry, 40);
        let control = 1;
        // Just after a map has grown it is filled to half of 7/8.
        let worst = (entry + control) * 16 / 7;
        assert!(worst <= 110, "{worst}");
    }

    #[test]
    fn a_rest_without_end_has_none() {
        assert_eq!(rest_ends_ms(5, NEVER_EXPIRES_S), u64::MAX);
        assert_eq!(rest_ends_ms(5, 2), 2_005);
    }
}
