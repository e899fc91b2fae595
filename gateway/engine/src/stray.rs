//! Sessions that the store may have opened for connections that ended before it could say so.
//!
//! Such a session has an owner that does not hold it: what is pushed to its client is queued, and it never expires. Most clients come again within moments, here or
//! elsewhere, and their connections speak for it. After a minute it is looked up, and closed if it is ours: one that outlives its connections by way of
//! opening it once more, as only that tells how far it came, and a close without that would forget it.

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

/// How long clients are given to come again, in ms: one that does so elsewhere between our look and our opening would lose its connection once more.
const REST_MS: u64 = 60_000;

/// Clients that have no connection here.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// By when they are looked up, with the session expiry that they asked for, in seconds.
    due: BTreeMap<(u64, u64), (ClientId, u32)>,
    by_client: BTreeMap<ClientId, (u64, u64)>,
    lookups: u32,
}

impl Strays {
    /// When the next one is looked up, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let (due_ms, _) = self.due.keys().next()?;
        (self.lookups < LOOKUPS_MAX).then_some(*due_ms)
    }
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
        self.forget_stray(&client);
        let key = (now.monotonic_ms + REST_MS, self.shared.number());
        let strays = &mut self.shared.strays;
        if strays.due.len() >= STRAYS_MAX
            && let Some((_, (first, _))) = strays.due.pop_first()
        {
            strays.by_client.remove(&first);
        }
        strays.by_client.insert(client.clone(), key);
        strays.due.insert(key, (client, expiry_s));
    }

    /// The client has come again: its connection speaks for the session now. Given back is the expiry, if there may be one.
    pub(crate) fn forget_stray(&mut self, client: &ClientId) -> Option<u32> {
        let strays = &mut self.shared.strays;
        let key = strays.by_client.remove(client)?;
        strays.due.remove(&key).map(|(_, expiry_s)| expiry_s)
    }

    /// Looks up those whose time has come.
    pub(crate) fn look_up_strays(&mut self, now: Now) {
        while self.shared.strays.next_ms().is_some_and(|due_ms| due_ms <= now.monotonic_ms)
            && let Some((_, (client, expiry_s))) = self.shared.strays.due.pop_first()
        {
            self.shared.strays.by_client.remove(&client);
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
                if self.find_client(&client).is_some() || self.shared.unclaimed_of(&client).next().is_some() {
                    self.note_stray(client, expiry_s, now);
                } else if info.persistent {
                    self.shared.stats.strays_closed += 1;
                    self.open_for_nobody(client, expiry_s, now);
                } else {
                    self.shared.stats.strays_closed += 1;
                    self.close_session(client, info.epoch, 0, Progress::default(), None, now);
                }
            }
            Err(StoreError::Unavailable(_)) => self.note_stray(client, expiry_s, now),
            Ok(_) | Err(_) => {}
        }
    }
}
