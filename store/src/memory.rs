//! The store that lives and dies with its process: for tests, simulations and gateways whose sessions need not survive.
//!
//! Answers inline, on the caller's thread. One mutex guards everything: a clean session's open and close take well under
//! 1 us together (`cargo bench -p holdfast-store`), so shards of one process do not get in each other's way.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use holdfast_wire::ids::Epoch;

use crate::clock::Clock;
use crate::contract::{Bounds, ReplyTo, Request, Store};
use crate::state::{NoJournal, State};

/// A store in memory.
pub struct MemoryStore {
    clock: Clock,
    state: Mutex<State>,
}

/// Epochs of a process that remembers nothing of its former ones.
const EPOCHS: Range<u64> = 1..u64::MAX;

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Clock, bounds: Bounds) -> Self {
        Self { clock, state: Mutex::new(State::new(bounds, EPOCHS)) }
    }

    /// Goes on as a server that takes the place of another one, of which it may have forgotten some: epochs up to `former` were given
    /// out by that one, and sessions opened under them can be written back ([`Request::Restore`]). Those given out from now on are larger.
    /// For simulations of stores that lose data.
    pub fn begin_life(&self, former: Epoch) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).begin_life(former.0);
    }

    /// Goes on as a server that has lost all it had, and to which its sessions are about to be written back. Epochs up to `former` were given out. For
    /// simulations as well.
    pub fn lose_data(&self, former: Epoch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::new(*state.bounds(), EPOCHS);
        state.begin_life(former.0);
        state.begin_with_nothing();
    }
}

impl Store for MemoryStore {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let now_ms = (self.clock)();
        let answer = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.sweep(now_ms, &mut NoJournal);
            state.end_groups(&mut NoJournal);
            state.apply(request, now_ms, &mut NoJournal)
        };
        // Behind the lock, so that it may submit again.
        reply(answer);
    }
}
