//! The store as nodes see one: it may fail, lose its last writes with a failover, or lose everything. Its epochs grow all the while.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use holdfast_store::{Bounds, MemoryStore, Store as _};
use holdfast_wire::ids::{ClientId, Epoch, NodeId};
use holdfast_wire::store::{Reply, Request, StoreError};

pub(crate) struct Store {
    memory: MemoryStore,
    /// The time at which it is asked.
    clock: Arc<AtomicU64>,
    world: Arc<AtomicU64>,
    /// Everything it was asked since it was empty, and when.
    log: Vec<(u64, Entry)>,
    last_epoch: Epoch,
    /// When it last lost everything.
    emptied_ms: Option<u64>,
    /// Nodes that were buried, whatever the store remembers of it.
    pub(crate) buried: BTreeSet<NodeId>,
}

#[derive(Clone)]
enum Entry {
    Asked(Request),
    /// It took the place of another one, which had given out epochs up to this one.
    Life(Epoch),
    /// It lost everything, and had given out epochs up to this one.
    Loss(Epoch),
}

/// For how long a store that lost everything says so of what it does not have, in ms.
const JUST_BEGUN_MS: u64 = 5_000;

impl Store {
    pub(crate) fn new(world: Arc<AtomicU64>) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        Self {
            memory: memory(&clock),
            clock,
            world,
            log: Vec::new(),
            last_epoch: Epoch(0),
            emptied_ms: None,
            buried: BTreeSet::new(),
        }
    }

    /// The world's time, in ms.
    pub(crate) fn now_ms(&self) -> u64 {
        self.world.load(Ordering::Relaxed)
    }

    /// Asks; the answer comes at once.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Reply, StoreError> {
        let now_ms = self.now_ms();
        self.log.push((now_ms, Entry::Asked(request.clone())));
        let burial = if let Request::Bury { node } = &request { Some(*node) } else { None };
        let answer = self.carry_out(now_ms, request);
        if answer.is_ok() {
            self.buried.extend(burial);
        }
        answer
    }

    /// Another one takes its place, which has not heard of its last writes. Gives whose sessions or subscriptions are lost with them.
    pub(crate) fn fail_over(&mut self, lost: usize) -> BTreeSet<ClientId> {
        let lost = self.log.split_off(self.log.len() - lost.min(self.log.len()));
        let log = std::mem::take(&mut self.log);
        self.memory = memory(&self.clock);
        for (at_ms, entry) in &log {
            match entry {
                Entry::Asked(request) => drop(self.carry_out(*at_ms, request.clone())),
                Entry::Life(former) => self.memory.begin_life(*former),
                Entry::Loss(former) => self.memory.lose_data(*former),
            }
        }
        self.log = log;
        self.begin_life();
        lost.into_iter().filter_map(|(_, entry)| whose_session(entry)).collect()
    }

    /// Nothing is in it any more.
    pub(crate) fn lose_everything(&mut self) {
        let now_ms = self.now_ms();
        self.log = vec![(now_ms, Entry::Loss(self.last_epoch))];
        self.memory.lose_data(self.last_epoch);
        self.emptied_ms = Some(now_ms);
    }

    /// Whether what it does not have may be on its way back.
    pub(crate) fn has_just_begun(&self) -> bool {
        let now_ms = self.now_ms();
        self.emptied_ms.is_some_and(|emptied_ms| now_ms < emptied_ms + JUST_BEGUN_MS)
    }

    fn carry_out(&mut self, now_ms: u64, request: Request) -> Result<Reply, StoreError> {
        self.clock.store(now_ms, Ordering::Relaxed);
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        self.memory.submit(request, Box::new(move |reply| *slot.lock().expect("unpoisoned") = Some(reply)));
        let answer = answer.lock().expect("unpoisoned").take().expect("the memory store answers inline");
        if let Ok(Reply::Opened(opened)) = &answer {
            self.last_epoch = self.last_epoch.max(opened.epoch);
        }
        answer
    }

    /// What is opened from now on has a larger epoch than all before, and what was opened before may be forgotten.
    fn begin_life(&mut self) {
        self.log.push((self.now_ms(), Entry::Life(self.last_epoch)));
        self.memory.begin_life(self.last_epoch);
    }
}

/// Whose session, or what it reads, a request changes.
fn whose_session(entry: Entry) -> Option<ClientId> {
    let Entry::Asked(request) = entry else { return None };
    match request {
        Request::Open { client, .. }
        | Request::Subscribe { client, .. }
        | Request::Restore { client, .. }
        | Request::Reap { client, .. }
        | Request::Close { client, .. } => Some(client),
        _ => None,
    }
}

fn memory(clock: &Arc<AtomicU64>) -> MemoryStore {
    let clock = Arc::clone(clock);
    MemoryStore::new(Arc::new(move || clock.load(Ordering::Relaxed)), Bounds::default())
}
