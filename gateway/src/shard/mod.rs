//! One shard: a thread with its poll, listeners, engine, links and sockets.
//!
//! The shell around the engine: it moves bytes and carries out actions, and decides nothing that a device could notice apart from the
//! bounds of its own buffers. Never blocks but in the poll. Start with [`event_loop`], which is one turn; `accepting`,
//! `reading` and `sending` are its steps.

mod accepting;
mod bridges;
pub(crate) mod clock;
mod event_loop;
mod holding;
mod judging;
mod letter;
mod pace;
mod reading;
mod sending;
mod token;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use holdfast_engine::{CloseReason, ConnectionId, Engine, LinkIndex, SocketEnd};
use holdfast_store::contract::Store;
use holdfast_wire::ids::{ClientId, NodeId, Owner, ShardId};
use holdfast_wire::link::{Hello, LINK_VERSION, ToBridge};
use mio::{Poll, Waker};

use crate::config::{DrainPlan, Settings};
use crate::io::lingering::Lingering;
use crate::io::listener::Listener;
use crate::io::room::SocketRoom;
use crate::io::sockets::Sockets;
use crate::lease::Lease;
use crate::link::{Dialer, Link};
use crate::logging::LogLimit;
use crate::mailbox::Mailbox;
use crate::metrics::{ShardMetrics, ShellStats};
use crate::store_client::StoreClient;
use clock::Clock;
use holding::Awake;
use judging::Judging;
use pace::Pace;
use token::Source;

pub(crate) use event_loop::ShardEnd;
pub(crate) use letter::{Letter, ShardReport};

/// Everything that one thread owns.
pub(crate) struct Shard {
    engine: Engine,
    owner: Owner,
    poll: Poll,
    clock: Clock,
    mailbox: Mailbox<Letter>,
    /// Scratch of `take_letters`.
    letters: VecDeque<Letter>,
    store: StoreClient<Letter>,
    lease: Arc<Lease>,
    /// When this thread was last known to run.
    awake: Awake,
    judging: Judging,
    listeners: Vec<Listener>,
    /// One for each index that the engine knows.
    links: Vec<Link>,
    /// What each link begins with.
    hello: Arc<[u8]>,
    sockets: Sockets,
    /// Sockets whose kernel buffer may hold bytes that no event will tell of. Bound: each socket stands here at most
    /// once.
    ready: VecDeque<ConnectionId>,
    lingering: Lingering,
    /// One read's bytes; shared by all connections, so that an idle one needs no buffer (promise P9).
    scratch: Box<[u8]>,
    unsent: Unsent,
    closes: Vec<(ConnectionId, CloseReason, Option<ClientId>)>,
    /// The engine may have something to do or say that no event will tell of.
    unsettled: bool,
    phase: Phase,
    pace: Pace,
    drain: DrainPlan,
    tick_due_ms: u64,
    lag_ms_max: u64,
    stats: ShellStats,
    metrics: ShardMetrics,
    accept_log: LogLimit,
    close_log: LogLimit,
}

/// What waits because devices do not read, and what a flush brought to light about them.
#[derive(Debug, Default)]
struct Unsent {
    /// Bytes in all send buffers.
    bytes: usize,
    /// Bound of one send buffer.
    bytes_max: usize,
    /// Scratch of a flush: connections that hold a send buffer since.
    blocked: Vec<ConnectionId>,
    /// Scratch of a flush: connections that are over.
    ended: Vec<(ConnectionId, SocketEnd)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    /// The node was declared dead at this time, in ms: last words leave, nothing else happens.
    Buried(u64),
    Stopped,
}

/// What a shard is made of; built by the node, before any thread runs.
pub(crate) struct ShardSetup {
    pub(crate) owner: Owner,
    pub(crate) poll: Poll,
    pub(crate) mailbox: Mailbox<Letter>,
    pub(crate) dialers: Vec<Dialer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) room: Arc<SocketRoom>,
    pub(crate) clock: Clock,
    pub(crate) lease: Arc<Lease>,
    pub(crate) seed: u64,
}

impl ShardSetup {
    /// A shard that admits nobody yet.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own, and there is one caller")]
    pub(crate) fn new(
        node: NodeId,
        shard: ShardId,
        dialers: Vec<Dialer>,
        store: Arc<dyn Store>,
        room: Arc<SocketRoom>,
        clock: Clock,
        lease: Arc<Lease>,
        seed: u64,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new(Waker::new(poll.registry(), Source::Mailbox.token())?);
        let owner = Owner { node, shard };
        Ok(Self { owner, poll, mailbox, dialers, store, room, clock, lease, seed })
    }
}

/// What one read asks for, in bytes.
const SCRATCH_BYTES: usize = 64 * 1024;

impl Shard {
    /// Puts the parts together; [`run`](Self::run) does the rest.
    pub(crate) fn new(setup: ShardSetup, settings: &Settings) -> Self {
        let ShardSetup { owner, poll, mailbox, dialers, store, room, clock, lease, seed } = setup;
        let mut hello = Vec::new();
        let receive_maximum = settings.engine.mqtt.receive_maximum;
        let secret = &settings.link_secret;
        ToBridge::Hello(Hello { version: LINK_VERSION, shard: owner, receive_maximum, secret })
            .encode(&mut hello);
        let hello: Arc<[u8]> = hello.into();
        let mut links: Vec<Link> = dialers
            .into_iter()
            .zip(0..)
            .map(|(dialer, index)| new_link(LinkIndex(index), dialer, &hello))
            .collect();
        if links.is_empty() {
            // The engine keeps who waits for any bridge at the first link, be there one or not.
            links.push(Link::vacant(LinkIndex(0), Source::Link(0).token(), Arc::clone(&hello)));
        }
        let largest_packet = settings.engine.mqtt.maximum_packet_size as usize;
        Self {
            engine: Engine::new(settings.engine.clone(), owner, links.len() as u16, seed),
            owner,
            poll,
            clock,
            lease,
            awake: Awake::starting(clock.now()),
            judging: Judging::default(),
            store: StoreClient::new(store, mailbox.clone()),
            mailbox,
            letters: VecDeque::new(),
            listeners: Vec::new(),
            links,
            hello,
            sockets: Sockets::new(room),
            ready: VecDeque::new(),
            lingering: Lingering::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            unsent: Unsent { bytes_max: settings.tcp.unsent_bytes_max + largest_packet, ..Unsent::default() },
            closes: Vec::new(),
            unsettled: true,
            phase: Phase::Serving,
            pace: Pace::new(settings.tcp.batch),
            drain: settings.drain,
            tick_due_ms: 0,
            lag_ms_max: 0,
            stats: ShellStats::default(),
            metrics: ShardMetrics::new(owner.shard.0),
            accept_log: LogLimit::default(),
            close_log: LogLimit::default(),
        }
    }
}

fn new_link(index: LinkIndex, dialer: Dialer, hello: &Arc<[u8]>) -> Link {
    Link::new(index, Source::Link(index.0).token(), dialer, Arc::clone(hello))
}
