//! From CONNECT to the store: who is asked about now, and who waits.
//!
//! ```text
//!   CONNECT ──> waiting ── there is room ──> asked ── answered ──> opened
//!                  ^                           │
//!                  └───── it could not ────────┘      waiting or asked for longer than connect_timeout: refused
//! ```
//! When everyone comes back at once and the store is slow, questions that all leave at once are answered too late for anybody. So no more are on their
//! way than the store answers in good time ([`window`]); the others wait here, where the end of a connection costs nothing. A question that the store could not
//! answer is asked again for as long as its connection waits: a refusal would bring the device back as a new connection, at the cost of
//! both.
//!
//! They are asked in their order. Once the first one has waited for [`IMPATIENT_MS`], the last one comes first: there are more than the store takes, and
//! who has waited for longest is the next to give up, perhaps while its question is on its way.

mod window;

use std::collections::{BTreeMap, VecDeque};

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Reply, Request, StoreError};

use self::window::{LATE_MS, Window};
use crate::connection::close::CloseReason;
use crate::connection::table::Connections;
use crate::connection::websocket::WebSocket;
use crate::connection::{Connection, Opening, Phase};
use crate::engine::Engine;
use crate::engine::endings::Leaving;
use crate::input::{ConnectionId, Now};
use crate::output::{Action, RequestId};
use crate::requests::Asked;

/// Half of the time after which the least patient clients give up, in ms.
const IMPATIENT_MS: u64 = 2_500;

/// A question that could not be answered is asked again after half of the time that its connection has waited, but not sooner than this, in ms ...
const AGAIN_MS_MIN: u64 = 100;
/// ... nor later than this.
const AGAIN_MS_MAX: u64 = 2_000;

/// Entries of connections that have ended are kept until there are so many more than waiting connections.
const SPARE: usize = 64;

/// Connections that wait for their session.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    window: Window,
    /// In their order; some have ended meanwhile. At most twice as many as wait, and [`SPARE`].
    waiting: VecDeque<ConnectionId>,
    /// Those that the store could not be asked about, by when it is asked again; beside those who wait for the first time, it comes to them last. Bounded with them.
    again: BTreeMap<(u64, u64), ConnectionId>,
    /// Connections that wait and are not being asked about.
    count: u32,
}

/// A question that makes this shard a session's owner.
#[derive(Debug)]
pub(crate) struct OpenAsked {
    pub(crate) id: ConnectionId,
    pub(crate) client: ClientId,
    /// Session expiry in seconds, should the connection be gone when the answer comes.
    pub(crate) expiry_s: u32,
    pub(crate) at_ms: u64,
}

impl Admission {
    /// When there is something to do without an answer of the store, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let due_ms =
            if self.waiting.is_empty() { self.again.keys().next().map(|(due_ms, _)| *due_ms)? } else { 0 };
        self.window.room_ms().map(|room_ms| room_ms.max(due_ms))
    }
}

impl Engine {
    /// CONNECTs that wait until the store may be asked about them.
    pub fn opens_waiting(&self) -> u32 {
        self.shared.admission.count
    }

    /// How many opens may be on their way to the store at once.
    pub fn opens_window(&self) -> u32 {
        self.shared.admission.window.size()
    }

    /// Whether a connection waits for its turn and has said nothing behind its CONNECT: if its peer is gone, nobody wants the session.
    pub fn only_waits(&self, id: ConnectionId) -> bool {
        waiting(&self.connections, id).is_some_and(|(connection, _)| {
            let has_messages = |websocket: &WebSocket| !websocket.waiting.is_empty();
            connection.partial.is_none() && !connection.websocket.as_deref().is_some_and(has_messages)
        })
    }

    /// A connection has said who it is: it waits for its session.
    pub(crate) fn await_session(&mut self, id: ConnectionId, now: Now) {
        let Self { connections, shared, .. } = self;
        let admission = &mut shared.admission;
        if admission.count == 0 {
            admission.window.begin();
        }
        if admission.waiting.len() + admission.again.len() >= 2 * admission.count as usize + SPARE {
            admission.waiting.retain(|id| waiting(connections, *id).is_some());
            admission.again.retain(|_, id| waiting(connections, *id).is_some());
        }
        admission.waiting.push_back(id);
        admission.count += 1;
        self.admit(now);
    }

    /// Asks the store about those who wait, as far as there is room.
    pub(crate) fn admit(&mut self, now: Now) {
        while self.shared.admission.count > 0 && self.shared.admission.window.has_room(now.monotonic_ms) {
            let Some(id) = self.next_waiting(now) else { return };
            self.ask_to_open(id, now);
        }
    }

    /// Whose turn it is. Who would be refused before the store can have answered is passed over.
    fn next_waiting(&mut self, now: Now) -> Option<ConnectionId> {
        let connect_timeout_ms = self.shared.config.limits.connect_timeout_ms;
        let patience_ms = connect_timeout_ms - LATE_MS.min(connect_timeout_ms / 4);
        let connections = &self.connections;
        let waited_ms = |id: ConnectionId| {
            waiting(connections, id).map(|(connection, _)| connection.silent_ms(now.monotonic_ms))
        };
        let Admission { waiting, again, .. } = &mut self.shared.admission;
        while let Some(first) = waiting.front() {
            let Some(first_waited_ms) = waited_ms(*first) else {
                waiting.pop_front();
                continue;
            };
            let next = if first_waited_ms > IMPATIENT_MS { waiting.pop_back() } else { waiting.pop_front() };
            if let Some(next) = next.filter(|next| waited_ms(*next).is_some_and(|ms| ms < patience_ms)) {
                return Some(next);
            }
        }
        while let Some(due) = again.first_entry().filter(|due| due.key().0 <= now.monotonic_ms) {
            let next = due.remove();
            if waited_ms(next).is_some_and(|ms| ms < patience_ms) {
                return Some(next);
            }
        }
        None
    }

    fn ask_to_open(&mut self, id: ConnectionId, now: Now) {
        let Some(Phase::Opening(opening)) =
            self.connections.find_mut(id).map(|connection| &mut connection.phase)
        else {
            return;
        };
        opening.is_asked = true;
        let session = &opening.session;
        let request = Request::Open {
            client: session.client.clone(),
            owner: self.shared.owner,
            clean_start: opening.clean_start,
            expiry_s: session.expiry_s,
            will: session.will.as_deref().cloned(),
        };
        let asked = OpenAsked {
            id,
            client: session.client.clone(),
            expiry_s: session.expiry_s,
            at_ms: now.monotonic_ms,
        };
        self.shared.close_before_opening(&asked.client);
        let number = self.shared.ask(Asked::Open(asked), request);
        let admission = &mut self.shared.admission;
        admission.count -= 1;
        admission.window.ask(number.0);
    }

    /// Opens a session whose client has no connection here: it rests again as soon as the store has told how far it came.
    pub(crate) fn open_for_nobody(&mut self, client: ClientId, expiry_s: u32, now: Now) {
        // Of no connection, and of no other such session.
        let id = ConnectionId { slot: u32::MAX, generation: self.shared.number() as u32 };
        let owner = self.shared.owner;
        let request =
            Request::Open { client: client.clone(), owner, clean_start: false, expiry_s, will: None };
        let asked = OpenAsked { id, client, expiry_s, at_ms: now.monotonic_ms };
        let number = self.shared.ask(Asked::Open(asked), request);
        self.shared.admission.window.ask(number.0);
    }

    /// The store has opened a session, or has not.
    pub(crate) fn handle_open_answer(
        &mut self,
        request: RequestId,
        asked: OpenAsked,
        result: Result<Reply, StoreError>,
        now: Now,
    ) {
        let OpenAsked { id, client, expiry_s, at_ms } = asked;
        let took_ms = now.monotonic_ms.saturating_sub(at_ms);
        let admission = &mut self.shared.admission;
        if let Err(StoreError::Unavailable(_)) = &result {
            admission.window.handle_failure(request.0, took_ms, now.monotonic_ms);
        } else {
            admission.window.handle_answer(request.0, took_ms, admission.count > 0);
        }
        let is_here = self.opening(id).is_some();
        match result {
            Ok(Reply::Opened(opened)) if is_here => self.handle_opened(id, opened, now),
            Ok(Reply::Opened(opened)) => self.handle_opened_unclaimed(id, client, expiry_s, opened, now),
            Err(StoreError::Unavailable(_)) if is_here => self.await_session_again(id, now),
            result => {
                let is_denied = result == Err(StoreError::Fenced);
                if is_denied {
                    // A node that was declared dead opens nothing any more.
                    self.shared.ask_lease();
                }
                let may_be_open = self.opening(id).map_or(Some(expiry_s), |opening| opening.may_be_open);
                self.end(id, CloseReason::StoreUnavailable, now);
                self.forget_unclaimed(&client, id, now);
                if let Some(expiry_s) = may_be_open.filter(|_| !is_denied) {
                    self.note_stray(client, expiry_s, now);
                }
            }
        }
        self.admit(now);
    }

    /// The store could not answer: it is asked again later, as far as `connect_timeout` allows. Whether it has opened the session nobody knows.
    fn await_session_again(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let waited_ms = connection.silent_ms(now.monotonic_ms);
        let Phase::Opening(opening) = &mut connection.phase else { return };
        (opening.is_asked, opening.may_be_open) = (false, Some(opening.session.expiry_s));
        let (client, successor) = (opening.session.client.clone(), opening.successor.take());
        let after_ms = (waited_ms / 2).clamp(AGAIN_MS_MIN, AGAIN_MS_MAX);
        let number = self.shared.number();
        let admission = &mut self.shared.admission;
        admission.again.insert((now.monotonic_ms + after_ms, number), id);
        admission.count += 1;
        self.shared.stats.opens_again += 1;
        // Its peer may have left while the store was asked, which nobody was to hear then.
        self.shared.actions.push_back(Action::ResumeRead(id));
        if let Some(successor) = successor {
            // Who waits for our word is not kept waiting for the store's.
            self.pass_on_what_is_left(&client, successor, now);
        }
    }

    /// A connection ended while it waited.
    pub(crate) fn leave_waiting(&mut self, opening: &Opening, leaving: Leaving, now: Now) {
        self.shared.admission.count -= 1;
        if let Some(expiry_s) = opening.may_be_open.filter(|_| leaving != Leaving::Lost) {
            self.note_stray(opening.session.client.clone(), expiry_s, now);
        }
    }

    fn opening(&self, id: ConnectionId) -> Option<&Opening> {
        match &self.connections.find(id)?.phase {
            Phase::Opening(opening) => Some(opening),
            _ => None,
        }
    }
}

/// The connection, if it still waits and the store is not being asked about it.
fn waiting(connections: &Connections, id: ConnectionId) -> Option<(&Connection, &Opening)> {
    let connection = connections.find(id)?;
    match &connection.phase {
        Phase::Opening(opening) if opening.is_waiting() => Some((connection, opening)),
        _ => None,
    }
}
