//! One engine, with what its shell would hold: questions to the store on their way, closes to carry out.

use std::collections::VecDeque;

use holdfast_engine::{
    Action, CloseReason, ConnectionId, Engine, EngineConfig, LinkIndex, Now, RequestId, SocketEnd,
};
use holdfast_wire::ids::{BridgeId, ClientId, Owner};
use holdfast_wire::link::{ToGateway, Welcome, next_record};
use holdfast_wire::store::{Request, StoreError};

use crate::lease::Lease;
use crate::random::Random;
use crate::store::Store;

/// The bridge's doors: by the first one every shard is linked with it. By the other one some are, for a while, so that it passes for a bridge of its own, which has
/// just started and has not met the others.
pub(crate) const DOORS: usize = 2;
pub(crate) const FIRST: usize = 0;
pub(crate) const OTHER: usize = 1;

/// One link, as the shard has it.
#[derive(Default)]
pub(crate) struct Door {
    pub(crate) is_up: bool,
    /// Records from the bridge that have not arrived.
    pub(crate) records: VecDeque<Vec<u8>>,
}

/// What a shard did that others notice.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) sent: Vec<(ConnectionId, Vec<u8>)>,
    pub(crate) closed: Vec<(ConnectionId, CloseReason)>,
    /// To be read again.
    pub(crate) resumed: Vec<ConnectionId>,
}

pub(crate) struct Shard {
    pub(crate) owner: Owner,
    pub(crate) engine: Engine,
    /// Questions in the order they were asked; answered from the front.
    questions: VecDeque<(RequestId, Request)>,
    pub(crate) doors: [Door; DOORS],
    pub(crate) lease: Lease,
    /// The process does not run until then.
    pub(crate) paused_until_ms: Option<u64>,
    /// How far its system clock is ahead of the world's, in ms.
    pub(crate) clock_ahead_ms: u64,
    /// Its link was lost while it did not run.
    pub(crate) missed_link_loss: bool,
    has_new_questions: bool,
}

impl Shard {
    pub(crate) fn new(owner: Owner, config: EngineConfig, seed: u64) -> Self {
        Self {
            owner,
            engine: Engine::new(config, owner, DOORS as u16, seed),
            questions: VecDeque::new(),
            doors: Default::default(),
            lease: Lease::renewed(),
            paused_until_ms: None,
            clock_ahead_ms: 0,
            missed_link_loss: false,
            has_new_questions: false,
        }
    }

    pub(crate) fn link(&mut self, door: usize, bridge: BridgeId, now: Now) {
        self.doors[door] = Door { is_up: true, records: VecDeque::new() };
        let welcome = Welcome { version: 1, bridge, window_bytes: 400 };
        self.engine.handle_link_up(LinkIndex(door as u16), welcome, now);
    }

    pub(crate) fn unlink(&mut self, door: usize, now: Now) {
        if std::mem::take(&mut self.doors[door]).is_up {
            self.engine.handle_link_down(LinkIndex(door as u16), now);
        }
    }

    /// Whether all that bridges have said has arrived.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.doors.iter().all(|door| door.records.is_empty())
    }

    /// Drains what the engine wants done.
    pub(crate) fn drain(&mut self, now: Now) -> Effects {
        let mut effects = Effects::default();
        let asked = self.questions.len();
        loop {
            while self.engine.has_work() {
                self.engine.handle_work(now);
            }
            let mut closes = Vec::new();
            let mut idle = true;
            while let Some(action) = self.engine.poll_action() {
                idle = false;
                match action {
                    Action::Close { id, reason, .. } => closes.push((id, reason)),
                    Action::ResumeRead(id) => effects.resumed.push(id),
                    Action::AskLease => self.lease.ask(now.monotonic_ms),
                    Action::Store { request, body } => self.questions.push_back((request, body)),
                }
            }
            self.engine.flush(|id, bytes| effects.sent.push((id, bytes.to_vec())));
            for (id, reason) in closes {
                self.engine.handle_closed(id, SocketEnd::ByUs, now);
                effects.closed.push((id, reason));
            }
            if idle {
                self.has_new_questions = self.questions.len() > asked;
                return effects;
            }
        }
    }

    /// Whether it handles nothing: it does not run, or does not know yet whether its node lives.
    pub(crate) fn is_still(&self) -> bool {
        self.paused_until_ms.is_some() || self.lease.holds()
    }

    /// Whether it asked anything since it was last drained.
    pub(crate) fn has_new_questions(&self) -> bool {
        self.has_new_questions
    }

    /// Whether the store is still to close this client's session.
    pub(crate) fn is_closing(&self, client: &str) -> bool {
        self.questions
            .iter()
            .any(|(_, body)| matches!(body, Request::Close { client: closing, .. } if **closing == *client))
    }

    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// The store answers some question, but the oldest first of those about one client. It may fail, before or after it did what it was asked. True if it failed
    /// to write.
    pub(crate) fn answer_one(
        &mut self,
        store: &mut Store,
        fails: bool,
        random: &mut Random,
        now: Now,
    ) -> bool {
        if self.questions.is_empty() {
            return false;
        }
        let chosen = client_of(&self.questions[random.below(self.questions.len())].1).cloned();
        let first = self.questions.iter().position(|(_, body)| client_of(body) == chosen.as_ref());
        let Some((request, body)) = first.and_then(|first| self.questions.remove(first)) else {
            return false;
        };
        let is_write = client_of(&body).is_some();
        let failure = || Err(StoreError::Unavailable("it fails".to_owned()));
        let answer = match (fails, random.one_in(2)) {
            (false, _) => store.ask(body),
            (true, true) => failure(),
            (true, false) => store.ask(body).and_then(|_| failure()),
        };
        self.engine.handle_store_reply(request, answer, now);
        fails && is_write
    }

    /// The oldest record that came by this door arrives.
    pub(crate) fn hear_one(&mut self, door: usize, now: Now) {
        let Some(bytes) = self.doors[door].records.pop_front() else { return };
        let raw = next_record(&mut &bytes[..]).expect("whole").expect("a record");
        let record = ToGateway::decode(raw).expect("the bridge writes records");
        self.engine.handle_link_record(LinkIndex(door as u16), &record, now);
    }
}

fn client_of(request: &Request) -> Option<&ClientId> {
    match request {
        Request::Open { client, .. }
        | Request::Subscribe { client, .. }
        | Request::Unsubscribe { client, .. }
        | Request::Save { client, .. }
        | Request::Close { client, .. }
        | Request::Restore { client, .. }
        | Request::Lookup { client } => Some(client),
        _ => None,
    }
}
