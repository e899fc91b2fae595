//! One engine, with what its shell would hold: questions to the store on their way, closes to carry out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use holdfast_engine::{Action, ConnectionId, Engine, EngineConfig, LinkIndex, Now, RequestId, SocketEnd};
use holdfast_store::{MemoryStore, Store};
use holdfast_wire::ids::{BridgeId, Owner};
use holdfast_wire::link::{ToGateway, Welcome, next_record};
use holdfast_wire::store::{Reply, Request, StoreError};

pub(crate) const LINK: LinkIndex = LinkIndex(0);

/// What a shard did that others notice.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) sent: Vec<(ConnectionId, Vec<u8>)>,
    pub(crate) closed: Vec<ConnectionId>,
}

pub(crate) struct Shard {
    pub(crate) owner: Owner,
    pub(crate) engine: Engine,
    /// Questions in the order they were asked; answered from the front.
    questions: VecDeque<(RequestId, Request)>,
    /// Records from the bridge that have not arrived.
    pub(crate) from_bridge: VecDeque<Vec<u8>>,
    pub(crate) link_up: bool,
}

impl Shard {
    pub(crate) fn new(owner: Owner, config: EngineConfig, seed: u64) -> Self {
        Self {
            owner,
            engine: Engine::new(config, owner, 1, seed),
            questions: VecDeque::new(),
            from_bridge: VecDeque::new(),
            link_up: false,
        }
    }

    pub(crate) fn link(&mut self, bridge: BridgeId, now: Now) {
        self.from_bridge.clear();
        self.link_up = true;
        let welcome = Welcome { version: 1, bridge, window_bytes: 4_000 };
        self.engine.handle_link_up(LINK, welcome, now);
    }

    pub(crate) fn unlink(&mut self, now: Now) {
        if std::mem::replace(&mut self.link_up, false) {
            self.from_bridge.clear();
            self.engine.handle_link_down(LINK, now);
        }
    }

    /// Drains what the engine wants done.
    pub(crate) fn drain(&mut self, now: Now) -> Effects {
        let mut effects = Effects::default();
        loop {
            while self.engine.has_work() {
                self.engine.handle_work(now);
            }
            let mut closes = Vec::new();
            let mut idle = true;
            while let Some(action) = self.engine.poll_action() {
                idle = false;
                match action {
                    Action::Close { id, .. } => closes.push(id),
                    Action::ResumeRead(_) => {}
                    Action::Store { request, body } => self.questions.push_back((request, body)),
                }
            }
            self.engine.flush(|id, bytes| effects.sent.push((id, bytes.to_vec())));
            for id in closes {
                self.engine.handle_closed(id, SocketEnd::ByUs, now);
                effects.closed.push(id);
            }
            if idle {
                return effects;
            }
        }
    }

    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// The store answers the oldest question.
    pub(crate) fn answer_one(&mut self, store: &MemoryStore, now: Now) {
        let Some((request, body)) = self.questions.pop_front() else { return };
        let answer = ask(store, body);
        self.engine.handle_store_reply(request, answer, now);
    }

    /// The oldest record from the bridge arrives.
    pub(crate) fn hear_one(&mut self, now: Now) {
        let Some(bytes) = self.from_bridge.pop_front() else { return };
        let raw = next_record(&mut &bytes[..]).expect("whole").expect("a record");
        let record = ToGateway::decode(raw).expect("the bridge writes records");
        self.engine.handle_link_record(LINK, &record, now);
    }
}

/// Asks the store, which answers at once.
pub(crate) fn ask(store: &MemoryStore, request: Request) -> Result<Reply, StoreError> {
    let answer = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&answer);
    store.submit(request, Box::new(move |reply| *slot.lock().expect("unpoisoned") = Some(reply)));
    let answer = answer.lock().expect("unpoisoned").take();
    answer.expect("the memory store answers inline")
}
