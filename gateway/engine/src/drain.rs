//! Leaving in an orderly way: connections are told goodbye evenly over the time that is given, each once its owed
//! acknowledgements are out.

use crate::connection::Phase;
use crate::connection::close::CloseReason;
use crate::engine::Engine;
use crate::input::{ConnectionId, Now};

/// A drain under way.
#[derive(Debug)]
pub(crate) struct Drain {
    started_ms: u64,
    spread_ms: u64,
    /// Slots before this one have been told.
    next_slot: u32,
    /// Connections that wait for their acknowledgements, and until when at most.
    leaving: Vec<ConnectionId>,
}

/// How often a drain takes its next step, in ms.
const STEP_MS: u64 = 50;

impl Engine {
    /// The node goes out of service: nobody is taken any more, and everyone here is told to leave, evenly over `spread_ms`.
    pub fn handle_drain(&mut self, now: Now, spread_ms: u64) {
        if self.drain.is_none() {
            self.drain =
                Some(Drain { started_ms: now.monotonic_ms, spread_ms, next_slot: 0, leaving: Vec::new() });
        }
        self.go_on_draining(now);
    }

    /// Everything is out: no connection, no unsettled frame, no question to the store, no report that waits for somebody's word.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some()
            && self.connections.len() == 0
            && self.shared.uplinks.unsettled() == 0
            && self.shared.unclaimed.is_empty()
            && self.shared.wills.is_empty()
            && self.shared.last_words.are_heard()
            && self.shared.keeping.is_empty()
            && self.shared.unclosed.is_empty()
            && self.shared.asked.is_empty()
    }

    pub(crate) fn drain_step_ms(&self, now_ms: u64) -> Option<u64> {
        self.drain.as_ref().filter(|_| self.connections.len() > 0).map(|_| now_ms + STEP_MS)
    }

    pub(crate) fn go_on_draining(&mut self, now: Now) {
        let Some(mut drain) = self.drain.take() else { return };
        let elapsed_ms = now.monotonic_ms - drain.started_ms;
        let slots = u64::from(self.connections.slots());
        let until = if elapsed_ms >= drain.spread_ms { slots } else { slots * elapsed_ms / drain.spread_ms };
        while u64::from(drain.next_slot) < until {
            if let Some(id) = self.leave(drain.next_slot, now) {
                drain.leaving.push(id);
            }
            drain.next_slot += 1;
        }
        let is_late = elapsed_ms >= drain.spread_ms + self.shared.config.limits.drain_acks_ms_max;
        drain.leaving.retain(|id| {
            let Some(connection) = self.connections.find(*id) else { return false };
            let owed = connection.session().map_or(0, |session| session.receiving.owed());
            if owed > 0 && !is_late {
                return true;
            }
            self.end(*id, CloseReason::ServerShuttingDown, now);
            false
        });
        self.drain = Some(drain);
    }

    /// Tells the connection in a slot to leave. Returned if it is owed acknowledgements first.
    fn leave(&mut self, slot: u32, now: Now) -> Option<ConnectionId> {
        let (id, connection) = self.connections.at(slot)?;
        let owed = match &connection.phase {
            Phase::Closing | Phase::Free => return None,
            Phase::Established(session) => session.receiving.owed(),
            Phase::Upgrading | Phase::Greeting | Phase::Opening(_) => 0,
        };
        if owed == 0 {
            self.end(id, CloseReason::ServerShuttingDown, now);
            return None;
        }
        self.connections.find_mut(id)?.leaving = true;
        Some(id)
    }
}
