//! Sessions that the store may have opened for connections that ended before it could say so.
//!
//! Such a session has an owner that does not hold it: what is pushed to its client is queued, and it never expires. Once the store answers again it is
//! looked up, and closed if it is ours. A connection of the same client that comes meanwhile speaks for it.

use std::collections::BTreeMap;

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Progress, Reply, Request, StoreError};

use crate::connection::Phase;
use crate::engine::Engine;
use crate::input::Now;
use crate::requests::Asked;

/// Sessions that are remembered. Beyond it one is forgotten, and left to whoever opens it next, or reaps this node.
const STRAYS_MAX: usize = 10_000;

/// Lookups on their way at once.
const LOOKUPS_MAX: u32 = 32;

/// After a question that the store could not answer it is left alone for so long, in ms: what it was asked before may still be on its way to it.
const REST_MS: u64 = 2_000;

/// Clients that have no connection here.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// With the session expiry that they asked for, in seconds.
    sessions: BTreeMap<ClientId, u32>,
    lookups: u32,
    /// When the store is asked next; none while nobody is to be looked up.
    pub(crate) next_ms: Option<u64>,
}

impl Engine {
    /// The store may have opened this client's session, and nobody is there for it.
    pub(crate) fn note_stray(&mut self, client: ClientId, expiry_s: u32, now: Now) {
        let newer = self.find_client(&client).and_then(|id| self.connections.find_mut(id));
        if let Some(newer) = newer {
            if let Phase::Opening(opening) = &mut newer.phase {
                opening.may_be_open.get_or_insert(expiry_s);
            }
            return;
        }
        let strays = &mut self.shared.strays;
        if strays.sessions.len() >= STRAYS_MAX && !strays.sessions.contains_key(&client) {
            strays.sessions.pop_first();
        }
        strays.sessions.insert(client, expiry_s);
        strays.next_ms.get_or_insert(now.monotonic_ms + REST_MS);
    }

    /// The client has come again: its connection speaks for the session now. Given back is the expiry, if there may be one.
    pub(crate) fn forget_stray(&mut self, client: &ClientId) -> Option<u32> {
        self.shared.strays.sessions.remove(client)
    }

    /// Looks some of them up.
    pub(crate) fn look_up_strays(&mut self, now: Now) {
        if self.shared.strays.next_ms.take_if(|due_ms| *due_ms <= now.monotonic_ms).is_none() {
            return;
        }
        while self.shared.strays.lookups < LOOKUPS_MAX
            && let Some((client, expiry_s)) = self.shared.strays.sessions.pop_first()
        {
            self.shared.strays.lookups += 1;
            let request = Request::Lookup { client: client.clone() };
            self.shared.ask(Asked::Stray(client, expiry_s), request);
        }
    }

    /// The store knows this client's session, or does not.
    pub(crate) fn handle_stray(
        &mut self,
        client: ClientId,
        expiry_s: u32,
        result: Result<Reply, StoreError>,
        now: Now,
    ) {
        self.shared.strays.lookups -= 1;
        let owner = self.shared.owner;
        match result {
            Ok(Reply::Session(Some(info))) if info.owner == Some(owner) => {
                // A connection that came since has yet to be asked about, or has another epoch; one that waits for its former owner is closed with
                // what that one says, and may have come before or after.
                if self.find_client(&client).is_some() || self.shared.unclaimed_of(&client).next().is_some() {
                    self.note_stray(client, expiry_s, now);
                } else {
                    self.shared.stats.strays_closed += 1;
                    self.close_session(client, info.epoch, expiry_s, Progress::default(), None);
                }
            }
            Err(StoreError::Unavailable(_)) => return self.note_stray(client, expiry_s, now),
            Ok(_) | Err(_) => {}
        }
        if !self.shared.strays.sessions.is_empty() {
            self.shared.strays.next_ms.get_or_insert(now.monotonic_ms);
        }
    }
}
