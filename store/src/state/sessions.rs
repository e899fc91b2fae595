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
//! 16 (client id) + 8 (epoch) + 4 (since) + 4 (owner) + 8 (no box) = 40 bytes, and 1 byte of the map's control bytes; a map is filled
//! to 7/8 at most and to 7/16 just after it has grown, so between 47 and 94 bytes.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use holdfast_wire::ids::ClientId;
use holdfast_wire::session_record::{Cursor, Offset, SessionRecord, StreamKey};
use holdfast_wire::store::{NEVER_EXPIRES_S, Page, WillRecord};

use super::nodes::PackedOwner;

/// A session as the table holds it.
pub(crate) struct Session {
    pub(crate) epoch: u64,
    /// When its connection began, or when it began to rest: Unix s, which 32 bits hold until 2106.
    pub(crate) since_s: u32,
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

    /// Whether it has something to say if its owner dies.
    pub(crate) fn has_will(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.will.is_some())
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

/// Since when, as a session keeps it.
pub(crate) fn since_s(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX)
}

/// How many maps the table is divided into. One map of a million entries takes some 50 ms to grow, and everyone waits;
/// a part of it is over before anyone notices. A shelf is also what a page of sessions may look at for its last one: four
/// thousand of four million. An empty one takes 48 bytes.
const SHELVES: usize = 1_024;

/// Sessions that are looked at for one page, beyond a shelf: a thousand take some 20 us.
const LOOKED_AT_MAX: usize = 4_096;

/// All sessions by client.
pub(crate) struct SessionTable {
    /// Always the same, so that pages go on where they were after a restart. The maps have keys of their own that nobody can guess.
    hasher: BuildHasherDefault<DefaultHasher>,
    shelves: Box<[HashMap<ClientId, Session>]>,
    sessions: usize,
}

/// Where a page of sessions begins: behind this client of this shelf, or at the shelf's beginning. On a shelf they go by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    shelf: u16,
    behind: Option<ClientId>,
}

impl Place {
    /// As bytes; [`Self::decode`] reads them.
    pub(crate) fn encode(&self) -> Page {
        let mut page = self.shelf.to_be_bytes().to_vec();
        if let Some(behind) = &self.behind {
            page.push(b':');
            page.extend_from_slice(behind.as_bytes());
        }
        page.into()
    }

    /// None if no page begins there.
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        let (shelf, behind) = page.split_first_chunk()?;
        let shelf = u16::from_be_bytes(*shelf);
        let behind = match behind {
            [] => None,
            [b':', client @ ..] if client.len() <= ClientId::BYTES_MAX => {
                Some(ClientId::new(std::str::from_utf8(client).ok()?))
            }
            _ => return None,
        };
        (usize::from(shelf) < SHELVES).then_some(Self { shelf, behind })
    }
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        Self {
            hasher: BuildHasherDefault::default(),
            shelves: (0..SHELVES).map(|_| HashMap::new()).collect(),
            sessions: 0,
        }
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

    /// Sessions that are wanted, from a place on, and where the next ones begin. There may be fewer than `sessions_max`, or none, though
    /// more follow: the work is bounded.
    pub(crate) fn page(
        &self,
        from: Place,
        sessions_max: usize,
        is_wanted: impl Fn(&Session) -> bool,
    ) -> (Vec<(&ClientId, &Session)>, Option<Place>) {
        let (mut page, mut looked_at, mut behind) = (Vec::new(), 0, from.behind);
        for (at, shelf) in self.shelves.iter().enumerate().skip(usize::from(from.shelf)) {
            if page.len() == sessions_max || looked_at >= LOOKED_AT_MAX {
                return (page, Some(Place { shelf: at as u16, behind: None }));
            }
            let begins = page.len();
            page.extend(shelf.iter().filter(|(client, session)| {
                behind.as_ref().is_none_or(|behind| *client > behind) && is_wanted(session)
            }));
            page[begins..].sort_unstable_by_key(|(client, _)| *client);
            if page.len() > sessions_max {
                page.truncate(sessions_max);
                let behind = page.last().map(|(client, _)| (*client).clone());
                return (page, Some(Place { shelf: at as u16, behind }));
            }
            behind = None;
            looked_at += shelf.len();
        }
        (page, None)
    }

    fn shelf(&self, client: &str) -> usize {
        self.hasher.hash_one(client) as usize % SHELVES
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
    fn a_place_survives_its_bytes_and_others_are_refused() {
        for behind in [None, Some(ClientId::new("")), Some(ClientId::new("d:1"))] {
            let place = Place { shelf: 77, behind };
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        for page in [&b""[..], b"\0", b"\xff\xff", b"\0\0d", b"\0\0:\xff"] {
            assert_eq!(Place::decode(page), None, "{page:?}");
        }
    }

    #[test]
    fn a_page_of_what_nobody_has_looks_at_a_bounded_number() {
        let mut table = SessionTable::new();
        for number in 0..20_000 {
            let session = Session { epoch: number, since_s: 0, owner: PackedOwner::default(), details: None };
            table.insert(ClientId::new(&number.to_string()), session);
        }
        let (mut place, mut pages) = (Some(Place::default()), 0);
        while let Some(from) = place {
            let (page, next) = table.page(from, 10, |_| false);
            assert!(page.is_empty());
            (place, pages) = (next, pages + 1);
        }
        assert!((4..=6).contains(&pages), "{pages}");
    }

    #[test]
    fn a_rest_without_end_has_none() {
        assert_eq!(rest_ends_ms(5, NEVER_EXPIRES_S), u64::MAX);
        assert_eq!(rest_ends_ms(5, 2), 2_005);
    }
}
