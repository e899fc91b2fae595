//! Whether the sessions here are still ours, and what is done if not.
//!
//! ```text
//!                  a write is answered Fenced or Gone
//!   ours ────────────────────────────────────────────────> in doubt ── the lease was renewed ──> another owner has it: closed
//!    ^                                                      │    │
//!    │      the store has lost data: it is written back     │    └──── the node was buried ────> all sessions are lost: all closed
//!    └──────────────────────────────────────────────────────┘
//! ```
//! A store that has lost its data is written back all sessions of the shard's connections at a bounded rate. That it has shows in the lease, which it does
//! not know any more. Where the answer that would have said so was lost, or only the last moments are, it shows in a session that a store which was away for a while
//! does not know, or knows as it was before ([`probing`]).

mod probing;

use std::collections::{BTreeMap, VecDeque};

use holdfast_wire::ids::Owner;
use holdfast_wire::session_record::{Cursor, SessionRecord};
use holdfast_wire::store::{Progress, Reply, Request, StoreError};

use self::probing::Probing;
use crate::admission::Admission;
use crate::connection::close::CloseReason;
use crate::connection::{acknowledge, deliver, subscribe};
use crate::engine::Engine;
use crate::engine::endings::Leaving;
use crate::input::{ConnectionId, LeaseWord, Now};
use crate::last_words::LastWords;
use crate::output::{Action, RequestId};
use crate::requests::{Asked, Closing};
use crate::session::Session;
use crate::session::subscription::Subscription;
use crate::shared::Shared;
use crate::stray::Strays;
use crate::topics::interest::Waiter;
use crate::unclosed::Unclosed;
use crate::wills::Wills;

/// Sessions are written back in steps this far apart, in ms.
const STEP_MS: u64 = 50;
/// Sessions on their way back to the store. More do not follow until it answers.
const UNANSWERED_MAX: u32 = 256;
/// Connections that one step visits.
const VISITS_MAX: u32 = 4_096;
/// After a store that could not take a session back, or could not be asked about the lease, it is left alone for so long, in ms.
const REST_MS: u64 = 1_000;
/// A session opened less than this before the store's loss was known may be lost as well, though it was established later, in ms: longer than a store's
/// deadline and the wait for a former owner.
const OPENED_BEFORE_MS: u64 = 20_000;
/// How long after the store failed to answer a session that it does not know is believed to be lost with data, in ms.
const INTERRUPTED_MS: u64 = 600_000;

/// Stands where a connection would that is gone.
const GONE: ConnectionId = ConnectionId { slot: u32::MAX, generation: u32::MAX };

/// What is in doubt, and what is on its way back to the store.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    /// Sessions in doubt for which the lease was asked about. With `waiting` at most one for each connection, bounded by their number.
    asked: Vec<Doubt>,
    /// Those that came into doubt after that question had left.
    waiting: Vec<Doubt>,
    /// The lease is asked about ...
    is_asking: bool,
    /// ... or will be at this time.
    ask_again_ms: Option<u64>,
    /// SUBSCRIBEs that a store which had forgotten their session could not take up: they stand once it is written back. Bounded by
    /// `connection::subscribe::UNANSWERED_MAX` for each connection.
    parked: BTreeMap<ConnectionId, Vec<u64>>,
    walk: Walk,
    probing: Probing,
    /// When the store last failed to answer.
    failed_ms: Option<u64>,
    /// The failure after which everyone was last written back.
    mended_ms: Option<u64>,
    /// When the store was last found to have lost its data.
    forgot_ms: Option<u64>,
    /// The node is dead, and nobody is taken any more.
    is_buried: bool,
}

/// A session that a write found not to be ours.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    id: ConnectionId,
    /// The store does not know it at all.
    gone: bool,
    /// Writing it back was refused as well.
    is_final: bool,
}

/// How a session in doubt stands to the writing back of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayBack {
    /// Its turn is still to come.
    Awaited,
    /// The store has it back, or has been asked to take it.
    Taken,
    /// It is not to be written back.
    None,
}

/// Sessions on their way back to the store.
#[derive(Debug, Default)]
struct Walk {
    next_slot: u32,
    /// Slots still to be visited.
    left: u32,
    /// To be written back beside them: established since, or tried before. At most one for each connection and loss.
    beside: VecDeque<ConnectionId>,
    unanswered: u32,
    next_ms: Option<u64>,
    /// Who was written back under a number that is not above this one was so before the last loss.
    since: u64,
    /// The store may have lost once more what it was given back since, so everyone is written back again behind this.
    is_overtaken: bool,
}

impl Walk {
    /// Whether a session that was last written back under this number is still to be, or once more.
    fn awaits(&self, restored: u64) -> bool {
        self.next_ms.is_some() && (self.is_overtaken || restored <= self.since)
    }
}

impl Ownership {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let step = self.walk.next_ms.filter(|_| self.walk.unanswered < UNANSWERED_MAX);
        [self.ask_again_ms, step, self.probing.next_ms()].into_iter().flatten().min()
    }

    /// Whether the node was declared dead.
    pub(crate) fn is_buried(&self) -> bool {
        self.is_buried
    }

    /// The store could not answer.
    pub(crate) fn note_failure(&mut self, now: Now) {
        self.failed_ms = Some(now.monotonic_ms);
        self.probing.note_failure(now);
    }

    /// A connection was established. Its session may have been opened before the store lost its data, and be lost with it.
    pub(crate) fn note_established(&mut self, id: ConnectionId, now: Now) {
        self.probing.note_established(now);
        if self.forgot_ms.is_some_and(|forgot_ms| now.monotonic_ms < forgot_ms + OPENED_BEFORE_MS) {
            self.walk.beside.push_back(id);
            self.walk.next_ms.get_or_insert(now.monotonic_ms);
        }
    }

    fn was_interrupted(&self, now: Now) -> bool {
        self.failed_ms.is_some_and(|failed_ms| now.monotonic_ms < failed_ms + INTERRUPTED_MS)
    }
}

impl Shared {
    /// Asks about the lease, on behalf of everyone who is in doubt by now.
    pub(crate) fn ask_lease(&mut self) {
        let ownership = &mut self.ownership;
        if ownership.is_asking || ownership.ask_again_ms.is_some() {
            return;
        }
        ownership.is_asking = true;
        ownership.asked.append(&mut ownership.waiting);
        self.actions.push_back(Action::AskLease);
    }

    fn doubt(&mut self, doubt: Doubt) {
        self.ownership.waiting.push(doubt);
        self.ask_lease();
    }
}

impl Engine {
    /// The store has said something of the node's lease: because it was asked ([`Action::AskLease`]), or because it concerns everyone.
    pub fn handle_lease(&mut self, word: LeaseWord, now: Now) {
        let ownership = &mut self.shared.ownership;
        match word {
            LeaseWord::Unanswered => {
                ownership.note_failure(now);
                if std::mem::take(&mut ownership.is_asking) {
                    ownership.ask_again_ms = Some(now.monotonic_ms + REST_MS);
                }
            }
            LeaseWord::Renewed => {
                ownership.is_asking = false;
                self.judge_doubts(now);
            }
            LeaseWord::Recovered => {
                ownership.note_failure(now);
                self.probe(now);
            }
            LeaseWord::Forgotten => self.handle_forgotten(now),
            LeaseWord::Buried => self.handle_buried(now),
        }
    }

    /// A write of a session was refused, as it is not ours any more in the store's eyes. The SUBSCRIBE that asked for it, if one did, waits for what
    /// comes of that.
    pub(crate) fn doubt(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        error: &StoreError,
        ticket: Option<u64>,
        now: Now,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let doubted = connection.doubted;
        let Some(durable) = connection.session().and_then(|session| session.durable.as_ref()) else { return };
        // It was asked before the session was written back, so it says nothing of that.
        let is_stale = durable.restored > request.0;
        match ticket {
            // Written back together with the session.
            Some(ticket) if is_stale && durable.is_restored => return self.stand(vec![ticket], now),
            Some(ticket) => self.shared.ownership.parked.entry(id).or_default().push(ticket),
            None => {}
        }
        if is_stale || doubted {
            return;
        }
        connection.doubted = true;
        self.shared.doubt(Doubt { id, gone: *error == StoreError::Gone, is_final: false });
    }

    /// A connection has ended: what it waited for is not to be expected, and a session that the store has lost is written back before it is closed.
    pub(crate) fn give_up_doubts(
        &mut self,
        session: &Session,
        id: ConnectionId,
        is_doubted: bool,
        is_kept: bool,
    ) {
        for ticket in self.shared.ownership.parked.remove(&id).unwrap_or_default() {
            self.shared.subscribes.remove(&ticket);
        }
        let walk = &self.shared.ownership.walk;
        let is_awaited = session.durable.as_ref().is_some_and(|durable| walk.awaits(durable.restored));
        // Of one that is in doubt nobody will be told any more whether it is lost: the store takes it back only if it is.
        if is_kept && (is_awaited || is_doubted) {
            let owner = self.shared.owner;
            self.shared.ask(Asked::Restore(id), restore_request(session, owner));
            self.shared.ownership.walk.unanswered += 1;
        }
    }

    /// The store does not know a session whose connection has ended with a will. Should it have lost it with its data, the session is brought back for the will's
    /// sake alone, and ends at once.
    pub(crate) fn bring_back_for_its_will(&mut self, closing: Closing) {
        let Closing { client, epoch, will, .. } = &closing;
        let request = Request::Restore {
            client: client.clone(),
            owner: self.shared.owner,
            epoch: *epoch,
            expiry_s: 0,
            will: will.clone(),
            session: SessionRecord::default(),
        };
        self.shared.ask(Asked::Restore(GONE), request);
        self.shared.ownership.walk.unanswered += 1;
        self.shared
            .ask_to_close(Closing { expiry_s: 0, is_brought_back: true, ..closing }, Progress::default());
    }

    /// The node lives and the store has kept its data: who is in doubt was taken over; unless the store was away, and came back without them.
    fn judge_doubts(&mut self, now: Now) {
        let was_interrupted = self.shared.ownership.was_interrupted(now);
        for doubt in std::mem::take(&mut self.shared.ownership.asked) {
            let way_back = if doubt.is_final { WayBack::None } else { self.way_back(doubt.id) };
            match way_back {
                WayBack::Taken => {}
                WayBack::Awaited => _ = self.restore(doubt.id),
                WayBack::None if doubt.is_final || !was_interrupted => {
                    self.end(doubt.id, CloseReason::Fenced, now);
                }
                WayBack::None => {
                    if doubt.gone {
                        self.note_loss(now);
                    }
                    self.restore(doubt.id);
                }
            }
        }
        if !self.shared.ownership.waiting.is_empty() {
            self.shared.ask_lease();
        }
    }

    /// Whether a session is written back anyway, so that a refusal of what was asked before tells nothing of another owner: the store refused it because it
    /// had lost its data, and knows the lease again.
    fn way_back(&self, id: ConnectionId) -> WayBack {
        let Some(connection) = self.connections.find(id) else { return WayBack::None };
        let Some(durable) = connection.session().and_then(|session| session.durable.as_ref()) else {
            return WayBack::None;
        };
        if self.shared.ownership.walk.awaits(durable.restored) {
            WayBack::Awaited
        } else if !connection.doubted || (durable.restored != 0 && !durable.is_restored) {
            WayBack::Taken
        } else {
            WayBack::None
        }
    }

    /// The store does not know a lease that it had renewed before.
    fn handle_forgotten(&mut self, now: Now) {
        let Shared { ownership, .. } = &mut self.shared;
        let doubts: Vec<_> = ownership.asked.drain(..).chain(ownership.waiting.drain(..)).collect();
        self.begin_walk(now);
        for doubt in doubts {
            self.restore(doubt.id);
        }
    }

    /// A store that was away does not know a session: others may be lost too. That is seen to once for each time it was away; if it was away again while
    /// everyone is written back, then once that is done, however often it was.
    fn note_loss(&mut self, now: Now) {
        let ownership = &mut self.shared.ownership;
        if ownership.mended_ms == ownership.failed_ms {
            return;
        }
        if ownership.walk.next_ms.is_some() {
            ownership.walk.is_overtaken = true;
        } else {
            self.begin_walk(now);
        }
    }

    /// Everyone here is written back.
    fn begin_walk(&mut self, now: Now) {
        let since = self.shared.number();
        let ownership = &mut self.shared.ownership;
        ownership.mended_ms = ownership.failed_ms;
        ownership.probing.end();
        ownership.forgot_ms = Some(now.monotonic_ms);
        ownership.walk.since = since;
        ownership.walk.is_overtaken = false;
        ownership.walk.left = self.connections.slots();
        ownership.walk.next_ms.get_or_insert(now.monotonic_ms);
    }

    /// The next slice of those who are written back, and the next question about the lease.
    pub(crate) fn write_back(&mut self, now: Now) {
        self.go_on_probing(now);
        if self.shared.ownership.ask_again_ms.take_if(|due_ms| *due_ms <= now.monotonic_ms).is_some() {
            self.shared.ask_lease();
        }
        if self.shared.ownership.walk.next_ms.is_none_or(|due_ms| due_ms > now.monotonic_ms) {
            return;
        }
        let per_s = u64::from(self.shared.config.limits.restores_per_s);
        let mut room = (per_s * STEP_MS / 1_000).max(1);
        let mut visits = VISITS_MAX;
        while room > 0 && visits > 0 && self.shared.ownership.walk.unanswered < UNANSWERED_MAX {
            visits -= 1;
            let walk = &mut self.shared.ownership.walk;
            let id = if let Some(id) = walk.beside.pop_front() {
                Some(id)
            } else if walk.left > 0 {
                let slot = walk.next_slot % self.connections.slots();
                walk.next_slot = slot + 1;
                walk.left -= 1;
                self.connections.at(slot).map(|(id, _)| id)
            } else {
                return self.end_walk(now);
            };
            room -= u64::from(id.is_some_and(|id| self.restore(id)));
        }
        self.shared.ownership.walk.next_ms = Some(now.monotonic_ms + STEP_MS);
    }

    fn end_walk(&mut self, now: Now) {
        let Shared { ownership, interests, uplinks, .. } = &mut self.shared;
        if ownership.walk.unanswered == 0 && ownership.walk.is_overtaken {
            self.begin_walk(now);
        } else if ownership.walk.unanswered == 0 {
            ownership.walk.next_ms = None;
            // Bridges that missed filters in the store's list meanwhile append to their streams again.
            interests.say_durable_again(uplinks);
        } else {
            // Some may have to be tried again.
            ownership.walk.next_ms = ownership.walk.next_ms.map(|due_ms| due_ms + STEP_MS);
        }
    }

    /// Writes a session back, unless that was done since the loss. False if there was nothing to do.
    fn restore(&mut self, id: ConnectionId) -> bool {
        let owner = self.shared.owner;
        let Some(connection) = self.connections.find_mut(id) else { return false };
        let doubted = connection.doubted;
        let Some(session) = connection.session_mut() else { return false };
        let since = self.shared.ownership.walk.since;
        if !doubted && session.durable.as_ref().is_some_and(|durable| durable.restored > since) {
            return false;
        }
        let number = self.shared.ask(Asked::Restore(id), restore_request(session, owner));
        if let Some(durable) = &mut session.durable {
            durable.restored = number.0;
            durable.is_restored = false;
        }
        self.shared.ownership.walk.unanswered += 1;
        true
    }

    /// The store has a session back, or not.
    pub(crate) fn handle_restored(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        result: Result<Reply, StoreError>,
        now: Now,
    ) {
        let walk = &mut self.shared.ownership.walk;
        walk.unanswered -= 1;
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Some(session) = connection.session_mut() else { return };
        if session.durable.as_ref().is_some_and(|durable| durable.restored != request.0) {
            // It was written back once more meanwhile, after a further loss.
            return;
        }
        match result {
            Ok(Reply::Subscribed(cursors)) => self.take_restored(id, cursors, now),
            Err(StoreError::Fenced) => {
                // Another owner has it; or the node was buried, which the lease will tell.
                connection.doubted = true;
                self.shared.doubt(Doubt { id, gone: false, is_final: true });
            }
            // Gone: the store lost its data once more, between the steps that this takes.
            Ok(_) | Err(_) => {
                if let Some(durable) = &mut session.durable {
                    durable.restored = 0;
                }
                walk.beside.push_back(id);
                walk.next_ms = Some(now.monotonic_ms + REST_MS);
            }
        }
    }

    fn take_restored(&mut self, id: ConnectionId, cursors: Vec<Cursor>, now: Now) {
        self.shared.stats.restored += 1;
        let Some(connection) = self.connections.find_mut(id) else { return };
        let was_doubted = std::mem::replace(&mut connection.doubted, false);
        let Some(session) = connection.session_mut() else { return };
        if let Some(durable) = &mut session.durable {
            let stands = |cursor: &Cursor| {
                subscribe::is_read(&session.subscriptions, &durable.forgetting, &cursor.stream)
            };
            let cursors = cursors.into_iter().filter(stands).collect();
            durable.is_restored = true;
            durable.begin_anew(cursors, session.sending.as_deref_mut());
            deliver::touch(session, id, &mut self.shared, now);
        }
        deliver::pump(connection, id, &mut self.shared, now);
        let tickets = self.shared.ownership.parked.remove(&id).unwrap_or_default();
        self.stand(tickets, now);
        if was_doubted {
            self.trust(id, now);
        }
    }

    /// SUBSCRIBEs whose subscriptions the store knows since their session was written back.
    fn stand(&mut self, tickets: Vec<u64>, now: Now) {
        self.wake(tickets.into_iter().map(Waiter::Subscribe).collect(), now);
    }

    /// The session is ours after all: it is acknowledged what waited, and read again.
    fn trust(&mut self, id: ConnectionId, now: Now) {
        let Self { connections, shared, .. } = self;
        let Some(connection) = connections.find_mut(id) else { return };
        if let Err(reason) = acknowledge::acknowledge(connection, id, &mut shared.outbox, &mut shared.stats) {
            self.end(id, reason, now);
        } else if !connection.waiting {
            self.let_go_on(id, now);
        }
    }

    // ---- a node that was declared dead ----

    /// All sessions belong to whoever opens them next, and their wills to whoever declared it. Nothing is acknowledged any more, and nothing saved, not
    /// even what this turn had to say.
    fn handle_buried(&mut self, now: Now) {
        self.shared.ownership = Ownership { is_buried: true, ..Ownership::default() };
        for slot in 0..self.connections.slots() {
            let Some((id, _)) = self.connections.at(slot) else { continue };
            self.shared.outbox.discard(slot);
            self.end_as(id, CloseReason::NodeBuried, Leaving::Lost, now);
        }
        let shared = &mut self.shared;
        shared.actions.retain(|action| matches!(action, Action::Close { .. }));
        shared.asked.clear();
        shared.subscribes.clear();
        shared.unsaved.clear();
        shared.unclosed = Unclosed::default();
        shared.admission = Admission::default();
        shared.strays = Strays::default();
        shared.unclaimed.clear();
        shared.handovers.clear();
        shared.wills = Wills::default();
        shared.last_words = LastWords::default();
        shared.uplinks.forget_outputs();
    }
}

fn restore_request(session: &Session, owner: Owner) -> Request {
    let is_kept = session.durable.is_some();
    let held = session.subscriptions.iter().filter(|_| is_kept);
    let progress = session.progress();
    Request::Restore {
        client: session.client.clone(),
        owner,
        epoch: session.epoch,
        expiry_s: session.expiry_s,
        will: session.will.as_deref().cloned(),
        session: SessionRecord {
            subscriptions: held.map(Subscription::record).collect(),
            cursors: Vec::new(),
            received: progress.received,
            inflight: progress.inflight,
        },
    }
}
