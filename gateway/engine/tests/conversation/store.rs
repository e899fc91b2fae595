//! The store of a story: a memory store that answers at once, or when it is told to, or not at all.

use std::collections::VecDeque;
use std::sync::mpsc;

use holdfast_engine::{Engine, LeaseWord, RequestId};
use holdfast_store::{MemoryStore, Store};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::session_record::{Cursor, StreamKey};
use holdfast_wire::store::{DueWill, Opened, Reply, Request, SessionInfo, StoreError, WillRecord};

use crate::stage::Shard;

type Answer = Result<Reply, StoreError>;

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Answers,
    Holds,
    /// Those about ended connections alone.
    HoldsCloses,
    Away,
}

/// The store.
pub(crate) struct ScriptedStore {
    memory: MemoryStore,
    mood: Mood,
    /// Asked while it held its answers.
    held: VecDeque<(RequestId, Request)>,
    /// Everything it was asked, as far as the story has not looked.
    asked: Vec<Request>,
    /// The last epoch that it gave out.
    last_epoch: Epoch,
    /// What the next opening is answered beside its session.
    will: Option<DueWill>,
}

impl ScriptedStore {
    pub(crate) fn new(memory: MemoryStore) -> Self {
        Self {
            memory,
            mood: Mood::Answers,
            held: VecDeque::new(),
            asked: Vec::new(),
            last_epoch: Epoch(0),
            will: None,
        }
    }

    /// A question of the engine; none if the answer comes later.
    pub(crate) fn take(&mut self, request: RequestId, body: Request) -> Option<Answer> {
        self.asked.push(body.clone());
        match self.mood {
            Mood::Answers => Some(self.answer_engine(body)),
            Mood::HoldsCloses if !matches!(body, Request::Close { .. }) => Some(self.answer_engine(body)),
            Mood::Away => Some(Err(StoreError::Unavailable("it is away".to_owned()))),
            Mood::Holds | Mood::HoldsCloses => {
                self.held.push_back((request, body));
                None
            }
        }
    }

    fn answer_engine(&mut self, body: Request) -> Answer {
        let mut answer = self.answer(body);
        if let Ok(Reply::Opened(opened)) = &mut answer
            && let Some(will) = self.will.take()
        {
            opened.will = Some(will);
        }
        answer
    }

    /// Asks the memory store, whatever the mood.
    pub(crate) fn answer(&mut self, body: Request) -> Answer {
        let (reply, answer) = mpsc::channel();
        self.memory.submit(body, Box::new(move |result| reply.send(result).expect("it is waited for")));
        let answer = answer.try_recv().expect("a memory store answers at once");
        if let Ok(Reply::Opened(opened)) = &answer {
            self.last_epoch = self.last_epoch.max(opened.epoch);
        }
        answer
    }

    /// Nothing is in it any more, but its epochs go on.
    fn lose_everything(&mut self, memory: MemoryStore) {
        self.memory = memory;
        let (client, owner) = (ClientId::new("epochs"), Shard::OTHER);
        let last = self.last_epoch;
        while self.last_epoch <= last {
            let open =
                Request::Open { client: client.clone(), owner, clean_start: true, expiry_s: 0, will: None };
            self.answer(open).expect("an empty store opens sessions");
        }
    }
}

impl Shard {
    /// From now on the store keeps its answers to itself.
    pub(crate) fn store_holds(&self) {
        self.stage().store.mood = Mood::Holds;
    }

    /// From now on it does not say whether it has closed sessions.
    pub(crate) fn store_holds_closes(&self) {
        self.stage().store.mood = Mood::HoldsCloses;
    }

    /// From now on it cannot be reached.
    pub(crate) fn store_goes_away(&self) {
        self.stage().store.mood = Mood::Away;
    }

    /// It gives the answers that it held, in order, and further ones at once.
    pub(crate) fn store_answers(&self) {
        let mut stage = self.stage();
        stage.store.mood = Mood::Answers;
        while let Some((request, body)) = stage.store.held.pop_front() {
            let result = stage.store.answer_engine(body);
            let now = stage.now;
            stage.engine.handle_store_reply(request, result, now);
        }
        stage.turn();
    }

    /// With the next session that it opens, a will of its client's falls due under this number.
    pub(crate) fn store_answers_will(&self, number: u64, will: WillRecord) {
        let client = ClientId::new(will.message.view().publisher);
        self.stage().store.will = Some(DueWill { client, number, will });
    }

    /// It gives the first so many of the answers that it held.
    pub(crate) fn store_answers_first(&self, count: usize) {
        for _ in 0..count {
            self.store_settles_first(ScriptedStore::answer);
        }
    }

    /// It gives up on the first question that it held, having carried it out or not.
    pub(crate) fn store_gives_up_first(&self, is_carried_out: bool) {
        self.store_settles_first(|store, body| {
            if is_carried_out {
                store.answer(body).expect("the memory store takes it");
            }
            Err(StoreError::Unavailable("no answer in time".to_owned()))
        });
    }

    /// It answers the first question that it holds as if it did not know the session.
    pub(crate) fn store_misses_first(&self) {
        self.store_settles_first(|_, _| Err(StoreError::Gone));
    }

    /// It answers the first question that it holds with this.
    pub(crate) fn store_says_first(&self, reply: Reply) {
        self.store_settles_first(|_, _| Ok(reply));
    }

    fn store_settles_first(&self, settle: impl FnOnce(&mut ScriptedStore, Request) -> Answer) {
        let mut stage = self.stage();
        let (request, body) = stage.store.held.pop_front().expect("it was asked something");
        let result = settle(&mut stage.store, body);
        let now = stage.now;
        stage.engine.handle_store_reply(request, result, now);
        stage.turn();
    }

    /// It loses everything.
    pub(crate) fn store_loses_its_data(&self) {
        let mut stage = self.stage();
        let memory = stage.empty_store();
        stage.store.lose_everything(memory);
    }

    /// The lease keeper says something.
    pub(crate) fn lease_says(&self, word: LeaseWord) {
        self.input(|engine, now| engine.handle_lease(word, now));
    }

    /// From now on it answers only when the story says so.
    pub(crate) fn lease_keeper_holds(&self) {
        self.stage().lease = None;
    }

    /// Whether it was asked since the last look.
    pub(crate) fn lease_was_asked(&self) -> bool {
        std::mem::take(&mut self.stage().lease_asked) > 0
    }

    /// Subscriptions of a client's session as the store knows them; none if it does not know the session.
    pub(crate) fn stored_filters(&self, client: &str) -> Option<Vec<String>> {
        match self.store_is_asked(Request::Lookup { client: ClientId::new(client) }) {
            Reply::Session(session) => {
                let filters = |info: SessionInfo| {
                    info.subscriptions.iter().map(|held| held.filter.to_string()).collect()
                };
                session.filter(|info| info.owner.is_some()).map(filters)
            }
            other => panic!("a lookup is answered with {other:?}"),
        }
    }

    /// The epoch of a client's session as the store knows it.
    #[track_caller]
    pub(crate) fn stored_epoch(&self, client: &str) -> Epoch {
        match self.store_is_asked(Request::Lookup { client: ClientId::new(client) }) {
            Reply::Session(Some(session)) => session.epoch,
            other => panic!("a lookup is answered with {other:?}"),
        }
    }

    /// What the store was asked since the last look.
    pub(crate) fn store_was_asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.stage().store.asked)
    }

    /// Somebody else asks the store.
    #[track_caller]
    pub(crate) fn store_is_asked(&self, request: Request) -> Reply {
        self.stage().store.answer(request).expect("the memory store takes it")
    }

    /// A bridge appends a message to the streams of these filters (or of the device, after `@`).
    #[track_caller]
    pub(crate) fn appends(&self, streams: &[&str], message: &Message<'_>) -> Vec<Cursor> {
        let streams = streams
            .iter()
            .map(|name| match name.strip_prefix('@') {
                Some(client) => StreamKey::Device(client.into()),
                None => StreamKey::Filter((*name).into()),
            })
            .collect();
        let request = Request::Append { streams, message: SharedMessage::new(message), collapse_key: None };
        match self.store_is_asked(request) {
            Reply::Appended { at, .. } => at,
            other => panic!("an append is answered with {other:?}"),
        }
    }

    /// Another shard opens a client's session.
    #[track_caller]
    pub(crate) fn opened_elsewhere(&self, client: &str, expiry_s: u32) -> Opened {
        let request = Request::Open {
            client: ClientId::new(client),
            owner: Self::OTHER,
            clean_start: false,
            expiry_s,
            will: None,
        };
        match self.store_is_asked(request) {
            Reply::Opened(opened) => opened,
            other => panic!("an open is answered with {other:?}"),
        }
    }

    /// The epoch under which a client is connected here.
    #[track_caller]
    pub(crate) fn epoch_of(&self, client: &str) -> Epoch {
        let stage = self.stage();
        let engine: &Engine = &stage.engine;
        engine.device(client).expect("it is connected here").epoch
    }
}
