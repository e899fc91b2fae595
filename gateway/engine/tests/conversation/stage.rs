//! The stage: one engine, the sockets in front of it, the bridges and the store behind it, and a clock.
//!
//! Plays the shell's part as the shell does: reads a socket only while the engine allows it and looks again only when told to
//! ([`Action::ResumeRead`]), drains all outputs after each input, and frees a connection once it is closed.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine::{
    AcceptRefused, Action, CloseReason, ConnectionId, Engine, EngineConfig, LeaseWord, LinkIndex, Listener,
    Now, SocketEnd, Stats,
};
use holdfast_store::MemoryStore;
use holdfast_wire::ids::{BridgeId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::link::{ToGateway, Welcome};
use holdfast_wire::mqtt::{Connect, ProtocolVersion};

use crate::bridge::{Bridge, LinkEnd};
use crate::client::Client;
use crate::store::ScriptedStore;

/// Where the virtual clock begins, in ms of Unix time.
pub(crate) const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;
/// Bytes of unsettled uplinks that a bridge allows unless the story says otherwise.
const WINDOW_BYTES: u32 = 1 << 20;

/// The shard on its stage. Everyone who takes part holds a share of it.
#[derive(Clone)]
pub(crate) struct Shard(Rc<RefCell<Stage>>);

/// What there is.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) store: ScriptedStore,
    pub(crate) links: Vec<LinkEnd>,
    pub(crate) sockets: BTreeMap<ConnectionId, Socket>,
    clock: Arc<AtomicU64>,
    /// Slices of a fan-out are taken one at a time by [`Shard::works`].
    pub(crate) holds_work: bool,
    /// What the lease keeper answers at once; none: the story does.
    pub(crate) lease: Option<LeaseWord>,
    /// Questions about the lease that wait for the story.
    pub(crate) lease_asked: u32,
    /// How often a socket was to be looked at again.
    pub(crate) reads_resumed: usize,
}

/// One end of a connection.
#[derive(Default)]
pub(crate) struct Socket {
    /// Sent by the client and not read yet.
    pub(crate) unread: Vec<u8>,
    /// Sent to the client, each flush in one piece.
    pub(crate) heard: Vec<u8>,
    /// How often it was written to.
    pub(crate) writes: usize,
    pub(crate) closed: Option<CloseReason>,
}

impl Shard {
    /// A shard with one bridge, whose link is up.
    pub(crate) fn new() -> Self {
        Self::with(EngineConfig::default())
    }

    /// The same, set up otherwise.
    pub(crate) fn with(config: EngineConfig) -> Self {
        let shard = Self::without_links(config, 1);
        shard.bridge(0).comes_up();
        shard
    }

    /// A shard with so many configured bridges, none of which is there.
    pub(crate) fn without_links(config: EngineConfig, links: u16) -> Self {
        let clock = Arc::new(AtomicU64::new(EPOCH_UNIX_MS));
        let store = empty_store(&clock);
        Self(Rc::new(RefCell::new(Stage {
            engine: Engine::new(config, Self::OWNER, links, 7),
            now: Now { monotonic_ms: 1_000_000, unix_ms: EPOCH_UNIX_MS },
            store: ScriptedStore::new(store),
            links: (0..links).map(|_| LinkEnd::default()).collect(),
            sockets: BTreeMap::new(),
            clock,
            holds_work: false,
            lease: Some(LeaseWord::Renewed),
            lease_asked: 0,
            reads_resumed: 0,
        })))
    }

    /// Who this shard is.
    pub(crate) const OWNER: Owner = Owner { node: NodeId(1), shard: ShardId(0) };
    /// Who another one is.
    pub(crate) const OTHER: Owner = Owner { node: NodeId(2), shard: ShardId(3) };

    /// What lies on the stage. Not to be held while anybody acts.
    pub(crate) fn stage(&self) -> RefMut<'_, Stage> {
        self.0.borrow_mut()
    }

    /// A socket without a word yet, of a client that will speak MQTT 5.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        self.accepts(Listener::Mqtt, ProtocolVersion::V5).expect("there is room")
    }

    /// The same for 3.1.1.
    #[track_caller]
    pub(crate) fn client_311(&self) -> Client {
        self.accepts(Listener::Mqtt, ProtocolVersion::V311).expect("there is room")
    }

    pub(crate) fn accepts(
        &self,
        listener: Listener,
        version: ProtocolVersion,
    ) -> Result<Client, AcceptRefused> {
        let mut stage = self.stage();
        let now = stage.now;
        let id = stage.engine.handle_accept(listener, now)?;
        let former = stage.sockets.insert(id, Socket::default());
        assert!(former.is_none(), "{id:?} is given twice");
        drop(stage);
        Ok(Client::new(self.clone(), id, version))
    }

    /// A client that has sent this CONNECT and was accepted; its CONNACK is heard and forgotten.
    #[track_caller]
    pub(crate) fn connects(&self, connect: &Connect<'_>) -> Client {
        let client = self.accepts(Listener::Mqtt, connect.version).expect("there is room");
        client.sends(*connect);
        client.hears_acceptance();
        client
    }

    pub(crate) fn bridge(&self, link: u16) -> Bridge {
        Bridge::new(self.clone(), LinkIndex(link))
    }

    /// Time passes, in steps of at most the next timer, as the shell would wake.
    pub(crate) fn clock_advances_ms(&self, ms: u64) {
        self.advance(ms, Engine::handle_timers);
    }

    /// The same while what devices have said may still lie in the kernel.
    pub(crate) fn clock_advances_unheard_ms(&self, ms: u64) {
        self.advance(ms, Engine::handle_steps);
    }

    fn advance(&self, ms: u64, pass: impl Fn(&mut Engine, Now)) {
        let until = self.stage().now.monotonic_ms + ms;
        loop {
            let mut stage = self.stage();
            let now = stage.now;
            let next = stage.engine.next_timer_ms(now).map_or(until, |next| next.max(now.monotonic_ms));
            let passed = next.min(until) - now.monotonic_ms;
            // A timer that is due already and stays so must not stop the clock.
            let passed = if passed == 0 && now.monotonic_ms < until { 1 } else { passed };
            stage.now.monotonic_ms += passed;
            stage.now.unix_ms += passed;
            stage.clock.store(stage.now.unix_ms, Ordering::Relaxed);
            let now = stage.now;
            pass(&mut stage.engine, now);
            stage.turn();
            if stage.now.monotonic_ms == until {
                return;
            }
        }
    }

    /// One slice of what [`Stage::holds_work`] keeps back.
    pub(crate) fn works(&self) {
        let mut stage = self.stage();
        let now = stage.now;
        stage.engine.handle_work(now);
        stage.turn();
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stage().engine.stats().clone()
    }

    /// Does something to the engine, then takes the turn to its end.
    pub(crate) fn input<T>(&self, act: impl FnOnce(&mut Engine, Now) -> T) -> T {
        let mut stage = self.stage();
        let now = stage.now;
        let done = act(&mut stage.engine, now);
        stage.turn();
        done
    }
}

/// More than stories open sessions.
const FORMER_EPOCHS: Epoch = Epoch(1 << 20);

fn empty_store(clock: &Arc<AtomicU64>) -> MemoryStore {
    let clock = Arc::clone(clock);
    MemoryStore::new(Arc::new(move || clock.load(Ordering::Relaxed)), holdfast_store::Bounds::default())
}

impl Stage {
    /// A store on the same clock which has lost what was in it.
    pub(crate) fn empty_store(&self) -> MemoryStore {
        let store = empty_store(&self.clock);
        store.lose_data(FORMER_EPOCHS);
        store
    }

    /// Drains all outputs until nothing more follows from them.
    pub(crate) fn turn(&mut self) {
        loop {
            let mut is_quiet = true;
            while !self.holds_work && self.engine.has_work() {
                self.engine.handle_work(self.now);
                is_quiet = false;
            }
            let mut closes = Vec::new();
            while let Some(action) = self.engine.poll_action() {
                is_quiet = false;
                match action {
                    Action::Close { id, reason, .. } => closes.push((id, reason)),
                    Action::ResumeRead(id) => {
                        self.reads_resumed += 1;
                        self.read(id);
                    }
                    Action::AskLease => match self.lease {
                        Some(word) => self.engine.handle_lease(word, self.now),
                        None => self.lease_asked += 1,
                    },
                    Action::Store { request, body } => {
                        if let Some(result) = self.store.take(request, body) {
                            self.engine.handle_store_reply(request, result, self.now);
                        }
                    }
                }
            }
            self.flush();
            for (id, reason) in closes {
                let socket = self.sockets.get_mut(&id).expect("only accepted connections are closed");
                assert_eq!(socket.closed, None, "{id:?} is closed twice");
                socket.closed = Some(reason);
                self.engine.handle_closed(id, SocketEnd::ByUs, self.now);
            }
            for link in 0..self.links.len() {
                if self.links[link].is_stuck {
                    continue;
                }
                let index = LinkIndex(link as u16);
                let output = std::mem::take(self.engine.link_output(index));
                for token in self.links[link].hear(&output) {
                    is_quiet = false;
                    self.engine.handle_link_record(index, &ToGateway::InterestKnown(token), self.now);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn flush(&mut self) {
        let sockets = &mut self.sockets;
        self.engine.flush(|id, bytes| {
            let socket = sockets.get_mut(&id).expect("only accepted connections are written to");
            assert_eq!(socket.closed, None, "{id:?} is written to after its close");
            assert!(!bytes.is_empty());
            socket.heard.extend_from_slice(bytes);
            socket.writes += 1;
        });
    }

    /// What the kernel holds for a connection is read, if the engine wants it.
    pub(crate) fn read(&mut self, id: ConnectionId) {
        let socket = self.sockets.get_mut(&id).expect("only accepted connections are read");
        if socket.closed.is_none() && !socket.unread.is_empty() && self.engine.may_read(id) {
            let mut bytes = std::mem::take(&mut socket.unread);
            self.engine.handle_bytes(id, &mut bytes, self.now);
        }
    }

    pub(crate) fn link_comes_up(&mut self, link: LinkIndex, window_bytes: Option<u32>) {
        let welcome = Welcome {
            version: 1,
            bridge: BridgeId(u64::from(link.0) + 1),
            window_bytes: window_bytes.unwrap_or(WINDOW_BYTES),
        };
        self.engine.handle_link_up(link, welcome, self.now);
        self.turn();
    }
}
