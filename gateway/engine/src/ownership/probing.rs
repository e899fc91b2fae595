//! Asking a store that was away which sessions it still knows as ours.
//!
//! One that has lost everything has lost any session, so a few are asked about. One that has lost its last moments, such as a server that was promoted without
//! them, knows most sessions as they are: it has lost those that were opened then, and knows their former owner. A write of their own would find that out, but
//! what is pushed to them goes to the former owner, so there may never be one. All that were opened lately are asked about, at a bounded rate.
//!
//! ```text
//!   idle ── a failure ──> armed ── quiet for a while, or recovered ──> a few are asked ── answered ──> all of lately ── answered ──> idle
//!                          ^                                                 │                               │
//!                          └──────────────────────────── a failure ──────────┴───────────────────────────────┘
//! ```

use holdfast_wire::store::{Reply, Request, StoreError};

use super::{STEP_MS, UNANSWERED_MAX, VISITS_MAX};
use crate::connection::Connection;
use crate::engine::Engine;
use crate::input::{ConnectionId, Now};
use crate::requests::Asked;
use crate::session::Session;

/// Sessions that are asked about first, wherever they are.
const PROBES: usize = 16;
/// A store that has not failed for so long, in ms, is asked. One that is merely slow is left alone until then.
const QUIET_MS: u64 = 5_000;
/// Sessions that were established less than this before the store's first failure were opened lately, in ms: longer than a failover takes to be noticed, and
/// than what lies between opening and establishing.
const LATELY_MS: u64 = 60_000;
/// Of the rate at which sessions are written back, this part is asked about.
const RATE_DIVISOR: u64 = 4;

/// What is asked after the store was away.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// When the store failed for the first time since all of lately were last asked about, in Unix ms, as sessions know when they were established.
    failed_unix_ms: Option<u64>,
    /// When the last session was established before that.
    established_unix_ms: Option<u64>,
    /// Sessions established since are asked about.
    since_unix_ms: u64,
    /// The few were asked.
    has_begun: bool,
    next_slot: u32,
    /// Slots still to be visited.
    left: u32,
    unanswered: u32,
    /// More are not asked about before so many are answered.
    unanswered_max: u32,
    next_ms: Option<u64>,
}

impl Probing {
    /// When there is something to do without an answer of the store, in ms of the monotonic clock.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms.filter(|_| !self.has_begun || self.unanswered < self.unanswered_max)
    }

    /// The store could not answer: it is asked once it does, and then about all from the beginning.
    pub(super) fn note_failure(&mut self, now: Now) {
        self.failed_unix_ms.get_or_insert(now.unix_ms);
        (self.has_begun, self.left) = (false, 0);
        self.next_ms = Some(now.monotonic_ms + QUIET_MS);
    }

    pub(super) fn note_established(&mut self, now: Now) {
        if self.failed_unix_ms.is_none() {
            self.established_unix_ms = Some(now.unix_ms);
        }
    }

    /// There is nothing left to ask: all were asked about, or everyone is written back.
    pub(super) fn end(&mut self) {
        (self.failed_unix_ms, self.next_ms) = (None, None);
        (self.has_begun, self.left) = (false, 0);
    }

    fn is_of_lately(&self, session: &Session) -> bool {
        session.connected_at_unix_ms >= self.since_unix_ms
    }
}

impl Engine {
    /// Asks a store that was away about some sessions; if it knows them, those of lately follow.
    pub(super) fn probe(&mut self, now: Now) {
        let slots = self.connections.slots();
        if slots == 0 {
            return self.shared.ownership.probing.end();
        }
        let first = (self.shared.random() % u64::from(slots)) as u32;
        let probing = &mut self.shared.ownership.probing;
        // Where nothing was asked while the store was away, all that is known of when that began is that it was behind the last answer.
        let known = [probing.failed_unix_ms, probing.established_unix_ms];
        let began_unix_ms = known.into_iter().flatten().min().unwrap_or(now.unix_ms);
        probing.since_unix_ms = began_unix_ms.saturating_sub(LATELY_MS);
        probing.has_begun = true;
        probing.unanswered_max = 1;
        (probing.next_slot, probing.left) = (first, slots);
        probing.next_ms = Some(now.monotonic_ms);
        let visited = (0..slots.min(VISITS_MAX)).map(|step| (first + step) % slots);
        let probed: Vec<_> = visited
            .filter_map(|slot| self.connections.at(slot))
            .filter(|(_, connection)| connection.session().is_some())
            .map(|(id, _)| id)
            .take(PROBES)
            .collect();
        for id in probed {
            self.ask_about(id);
        }
    }

    fn ask_about(&mut self, id: ConnectionId) {
        let Some(session) = self.connections.find(id).and_then(Connection::session) else { return };
        let request = Request::Lookup { client: session.client.clone() };
        self.shared.ask(Asked::Probe(id), request);
        self.shared.ownership.probing.unanswered += 1;
    }

    /// The next of those who are asked about.
    pub(super) fn go_on_probing(&mut self, now: Now) {
        let probing = &mut self.shared.ownership.probing;
        if probing.next_ms().is_none_or(|due_ms| due_ms > now.monotonic_ms) {
            return;
        }
        if !probing.has_begun {
            return self.probe(now);
        }
        probing.unanswered_max = UNANSWERED_MAX;
        let per_s = u64::from(self.shared.config.limits.restores_per_s) / RATE_DIVISOR;
        let mut room = (per_s * STEP_MS / 1_000).max(1);
        let mut visits = VISITS_MAX;
        loop {
            let probing = &mut self.shared.ownership.probing;
            let has_room = room > 0 && visits > 0 && probing.unanswered < UNANSWERED_MAX;
            if probing.left == 0 && probing.unanswered == 0 {
                return probing.end();
            }
            if probing.left == 0 || !has_room {
                probing.next_ms = Some(now.monotonic_ms + STEP_MS);
                return;
            }
            visits -= 1;
            let slot = probing.next_slot % self.connections.slots();
            probing.next_slot = slot + 1;
            probing.left -= 1;
            let Some((id, connection)) = self.connections.at(slot) else { continue };
            if connection.session().is_some_and(|session| probing.is_of_lately(session)) {
                room -= 1;
                self.ask_about(id);
            }
        }
    }

    /// The store knows the session of a connection here, or does not.
    pub(crate) fn handle_probed(&mut self, id: ConnectionId, result: &Result<Reply, StoreError>, now: Now) {
        self.shared.ownership.probing.unanswered -= 1;
        let Some(session) = self.connections.find(id).and_then(Connection::session) else { return };
        let is_lost = match result {
            Ok(Reply::Session(None)) => true,
            Ok(Reply::Session(Some(info))) => info.epoch < session.epoch,
            Ok(_) | Err(_) => false,
        };
        if is_lost {
            self.note_loss(now);
        }
    }
}
