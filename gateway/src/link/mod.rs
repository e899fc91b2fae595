//! One shard's link to one bridge: dialling, the greeting, and records in both directions.
//!
//! ```text
//! Down ──dial──> Connecting ──connected, Hello sent──> Greeting ──Welcome──> Up
//!  ^                 │ 5 s, error                          │ 5 s, Refused      │ error, garbage, end
//!  └─────────────────┴─────────────────────────────────────┴───────────────────┘ (an address is dialled again, unless it left its name)
//! ```
//! Moves records between a socket and the engine; knows nothing of what they mean and nothing of client sockets.
//! Start with [`Link::read`] and [`Link::write`]; `resolver` says which bridges there are.

mod dialer;
mod input;
mod keep_alive;
mod output;
mod resolver;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_engine::{Engine, LinkIndex, Now};
use holdfast_wire::ids::BridgeId;
use holdfast_wire::link::{LINK_VERSION, LinkError, ToBridge, ToGateway};
use mio::event::Event;
use mio::{Interest, Registry, Token};

pub use dialer::LinkTarget;

pub(crate) use dialer::Dialer;
pub(crate) use resolver::Resolver;

use input::{Filled, Input};
use keep_alive::{KeepAlive, Quiet};
use output::Output;
use stream::LinkStream;

/// A link in any of its phases.
#[derive(Debug)]
pub(crate) struct Link {
    index: LinkIndex,
    token: Token,
    dialer: Dialer,
    /// The encoded first record.
    hello: Arc<[u8]>,
    phase: Phase,
    stream: Option<LinkStream>,
    /// When to dial again while down; when patience ends while connecting or greeting; when to see whether both ends live while up.
    due_ms: Option<u64>,
    life: KeepAlive,
    /// The bridge that last answered.
    bridge: Option<BridgeId>,
    /// Its address stands for a bridge no more: it is kept while it is up and not dialled again.
    retired: bool,
    input: Input,
    output: Output,
    /// The kernel may hold bytes that no event will tell of, or whole records wait in `input`.
    readable: bool,
    /// The bridge's end was reported: read until it is reached.
    peer_closed: bool,
    /// The kernel takes no more; an event will tell when it does.
    blocked: bool,
    /// The poll reports room to write.
    reports_room: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Connecting,
    Greeting,
    Up,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkLoss {
    #[error("the bridge closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the bridge sent garbage: {0}")]
    Garbage(#[from] LinkError),
    #[error("the bridge refused it: {0}")]
    Refused(String),
    #[error("the bridge speaks version {0} of the link, this gateway version {LINK_VERSION}")]
    Version(u16),
    #[error("the bridge sent a record before its welcome")]
    NotWelcomed,
    #[error("no answer within {GREETING_MS_MAX} ms")]
    NoAnswer,
    #[error("the bridge gave no sign of life for 15 s")]
    Silent,
    #[error("the bridge takes nothing, and too much waits for it")]
    Overrun,
}

/// How long connecting and greeting may take each, in ms.
const GREETING_MS_MAX: u64 = 5_000;

impl Link {
    /// A link that is down and due to be dialled at once.
    pub(crate) fn new(index: LinkIndex, token: Token, dialer: Dialer, hello: Arc<[u8]>) -> Self {
        Self {
            index,
            token,
            dialer,
            hello,
            phase: Phase::Down,
            stream: None,
            due_ms: Some(0),
            life: KeepAlive::default(),
            bridge: None,
            retired: false,
            input: Input::default(),
            output: Output::default(),
            readable: false,
            peer_closed: false,
            blocked: false,
            reports_room: false,
        }
    }

    /// The place of a link that leads nowhere yet.
    pub(crate) fn vacant(index: LinkIndex, token: Token, hello: Arc<[u8]>) -> Self {
        Self { retired: true, due_ms: None, ..Self::new(index, token, Dialer::Pair(None), hello) }
    }

    /// Whether records flow.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether what is due next judges the bridge by its silence.
    pub(crate) fn awaits_word(&self) -> bool {
        self.phase != Phase::Down
    }

    /// The bridge that it is up to.
    pub(crate) fn bridge(&self) -> Option<BridgeId> {
        self.bridge.filter(|_| self.is_up())
    }

    /// Where it leads; none within the process.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.dialer.address()
    }

    /// Whether it is to be up: it leads to a bridge that there is.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.retired
    }

    /// Whether its place may be given to another bridge.
    pub(crate) fn is_vacant(&self) -> bool {
        self.retired && self.phase == Phase::Down
    }

    /// Its address stands for a bridge again, or no longer. A link that is up stays so: the bridge may be draining, and says itself when it
    /// has settled everything.
    pub(crate) fn want(&mut self, wanted: bool, now: Now) {
        if self.retired != wanted {
            return;
        }
        self.retired = !wanted;
        if !self.is_up() {
            self.clear();
            self.due_ms = wanted.then_some(now.monotonic_ms);
        }
    }

    /// Its place goes to another bridge; it must be vacant.
    pub(crate) fn lead_to(&mut self, dialer: Dialer) {
        debug_assert!(self.is_vacant());
        *self = Self::new(self.index, self.token, dialer, Arc::clone(&self.hello));
    }

    /// Whether it is about to dial the bridge that answered it before and that another link reaches already, under another address
    /// of the same machine. A bridge takes one link of each shard.
    pub(crate) fn is_redundant(&self, reached: impl Fn(BridgeId) -> bool) -> bool {
        self.phase == Phase::Down && self.bridge.is_some_and(reached)
    }

    /// Puts the next attempt off.
    pub(crate) fn put_off(&mut self, now: Now) {
        self.due_ms = self.dialer.pause_ms().map(|pause_ms| now.monotonic_ms + pause_ms);
    }

    /// When [`handle_due`](Self::handle_due) wants to be called.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether [`read`](Self::read) has something to do without a further event.
    pub(crate) fn wants_read(&self) -> bool {
        self.readable && self.phase != Phase::Connecting
    }

    /// Whether everything that the engine wrote for it is in the kernel, or can never get there.
    pub(crate) fn is_flushed(&self, engine: &mut Engine) -> bool {
        !self.is_up() || (self.output.is_empty() && engine.link_output(self.index).is_empty())
    }

    /// Dials, or gives up on a bridge that does not answer, if it is time.
    pub(crate) fn handle_due(&mut self, engine: &mut Engine, registry: &Registry, now: Now) {
        if self.due_ms.take_if(|due_ms| *due_ms <= now.monotonic_ms).is_none() {
            return;
        }
        let dialled = match self.phase {
            Phase::Down => self.dial(registry, now),
            Phase::Connecting | Phase::Greeting => Err(LinkLoss::NoAnswer),
            Phase::Up => self.see_whether_both_live(now),
        };
        self.lose_on_error(dialled, engine, now);
    }

    /// The poll reported its socket.
    pub(crate) fn handle_event(&mut self, event: &Event, engine: &mut Engine, registry: &Registry, now: Now) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.peer_closed |= event.is_read_closed() || event.is_error();
        if event.is_writable() && self.phase == Phase::Connecting {
            let connected = self.finish_connecting(now);
            self.lose_on_error(connected, engine, now);
        }
        if event.is_writable() {
            self.blocked = false;
            self.write(engine, registry, now);
        }
    }

    /// Takes the records that are there, at most one read's worth and none while the engine is busy with a fan-out: what stays
    /// in the kernel holds the bridge back.
    pub(crate) fn read(&mut self, engine: &mut Engine, now: Now) {
        let read = self.read_once(engine, now);
        self.lose_on_error(read, engine, now);
    }

    /// Sends what the engine wrote in this turn.
    pub(crate) fn write(&mut self, engine: &mut Engine, registry: &Registry, now: Now) {
        let written = self.send(engine, registry, now).and_then(|()| self.bear_with_bridge(engine));
        self.lose_on_error(written, engine, now);
    }

    fn dial(&mut self, registry: &Registry, now: Now) -> Result<(), LinkLoss> {
        let Some(stream) = self.dialer.dial() else { return Ok(()) };
        let stream = self.stream.insert(stream?);
        stream.register(registry, self.token, Interest::READABLE | Interest::WRITABLE)?;
        self.reports_room = true;
        self.phase = Phase::Connecting;
        self.due_ms = Some(now.monotonic_ms + GREETING_MS_MAX);
        Ok(())
    }

    fn see_whether_both_live(&mut self, now: Now) -> Result<(), LinkLoss> {
        if self.readable {
            // Unread while a fan-out is under way, and a sign of life all the same.
            self.life.note_heard(now.monotonic_ms);
        }
        match self.life.quiet(now.monotonic_ms) {
            Quiet::There => return Err(LinkLoss::Silent),
            Quiet::Here => {
                // A bridge that takes nothing need not hear it, and what it has not taken does not pile up.
                if !self.blocked {
                    let mut alive = Vec::new();
                    ToBridge::Alive.encode(&mut alive);
                    self.output.begin(&alive);
                }
                self.life.note_said(now.monotonic_ms);
            }
            Quiet::No => {}
        }
        self.due_ms = Some(self.life.next_due_ms());
        Ok(())
    }

    fn finish_connecting(&mut self, now: Now) -> Result<(), LinkLoss> {
        let Some(stream) = &self.stream else { return Ok(()) };
        if stream.is_connected()? {
            self.phase = Phase::Greeting;
            self.due_ms = Some(now.monotonic_ms + GREETING_MS_MAX);
            self.output.begin(&self.hello);
        }
        Ok(())
    }

    fn read_once(&mut self, engine: &mut Engine, now: Now) -> Result<(), LinkLoss> {
        self.take_records(engine, now)?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if engine.has_work() {
            return Ok(());
        }
        let filled = self.input.fill(stream)?;
        self.life.note_heard(now.monotonic_ms);
        self.readable = match filled {
            Filled::Closed => return Err(LinkLoss::Closed),
            Filled::Empty => false,
            Filled::Some => self.peer_closed,
            Filled::Full => true,
        };
        self.take_records(engine, now)?;
        // Records that a fan-out kept from being taken wait in the input.
        self.readable |= engine.has_work();
        Ok(())
    }

    fn take_records(&mut self, engine: &mut Engine, now: Now) -> Result<(), LinkLoss> {
        while !engine.has_work() {
            let Some(raw) = self.input.next_record()? else { return Ok(()) };
            match (self.phase, ToGateway::decode(raw)?) {
                (Phase::Up, record) => engine.handle_link_record(self.index, &record, now),
                (_, ToGateway::Welcome(welcome)) if welcome.version == LINK_VERSION => {
                    self.phase = Phase::Up;
                    self.bridge = Some(welcome.bridge);
                    self.life = KeepAlive::starting(now.monotonic_ms);
                    // The other end of a pair cannot vanish alone.
                    self.due_ms = self.address().map(|_| self.life.next_due_ms());
                    self.dialer.note_success();
                    if self.address().is_some() {
                        tracing::info!(link = self.index.0, bridge = %welcome.bridge, "link is up");
                    } else {
                        tracing::debug!(link = self.index.0, bridge = %welcome.bridge, "link within the process is up");
                    }
                    engine.handle_link_up(self.index, welcome, now);
                }
                (_, ToGateway::Welcome(welcome)) => return Err(LinkLoss::Version(welcome.version)),
                (_, ToGateway::Refused(reason)) => return Err(LinkLoss::Refused(reason.to_owned())),
                _ => return Err(LinkLoss::NotWelcomed),
            }
        }
        Ok(())
    }

    fn send(&mut self, engine: &mut Engine, registry: &Registry, now: Now) -> Result<(), LinkLoss> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if self.blocked || self.phase == Phase::Connecting {
            return Ok(());
        }
        let nothing_yet = &mut Vec::new();
        let next = if self.phase == Phase::Up { engine.link_output(self.index) } else { nothing_yet };
        if !next.is_empty() {
            self.life.note_said(now.monotonic_ms);
        }
        let sent = self.output.send(stream, next)?;
        if sent == self.reports_room {
            // A socket pair reports room each time its other end reads anything. Asking only while something waits
            // keeps those reports from waking the shard.
            let interest = if sent { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            stream.reregister(registry, self.token, interest)?;
            self.reports_room = !sent;
        }
        self.blocked = !sent;
        Ok(())
    }

    /// A bridge that takes nothing is borne with until too much waits for it. One within the process always is: it could not be dialled again, and stands still
    /// only with us.
    fn bear_with_bridge(&self, engine: &Engine) -> Result<(), LinkLoss> {
        let may_dial_again = self.address().is_some();
        if may_dial_again && self.is_up() && self.blocked && engine.link_overflows(self.index) {
            return Err(LinkLoss::Overrun);
        }
        Ok(())
    }

    fn lose_on_error(&mut self, result: Result<(), LinkLoss>, engine: &mut Engine, now: Now) {
        let Err(loss) = result else { return };
        let address = self.address().map(tracing::field::display);
        if self.is_up() || self.dialer.is_first_failure() {
            tracing::warn!(link = self.index.0, address, reason = %loss, "link is down");
        } else {
            tracing::debug!(link = self.index.0, address, reason = %loss, "link stays down");
        }
        let was_up = self.is_up();
        self.clear();
        self.due_ms = None;
        if !self.retired {
            self.put_off(now);
        }
        if was_up {
            engine.handle_link_down(self.index, now);
            // Written for the link that is gone; the engine says again what matters.
            engine.link_output(self.index).clear();
        }
    }

    /// Forgets the stream and what was under way on it.
    fn clear(&mut self) {
        self.phase = Phase::Down;
        self.stream = None;
        self.input.clear();
        self.output.clear();
        self.readable = false;
        self.peer_closed = false;
        self.blocked = false;
    }
}
