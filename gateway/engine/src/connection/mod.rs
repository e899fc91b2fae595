//! One network connection, from its first byte to its end.
//!
//! ```text
//!                 upgrade taken          CONNECT                store answers
//!  Upgrading ───────────────────> Greeting ────────> Opening ──────────────────> Established
//!      │   (WebSocket only)          │                  │                             │
//!      └─────────────────────────────┴───── close ──────┴─────────────────────────────┘
//!                                               v
//!                                            Closing ── the shell reports the socket's end ──> free
//! ```
//! JSON devices say who they are in the upgrade's path and go from Upgrading to Opening.
//!
//! `table` holds them, `transport` frames what is sent, `connect` opens sessions, `established` handles packets, `publish`, `acknowledge`, `subscribe`,
//! `retained`, `deliver` and `streams` are its larger rooms, `websocket` and `json` the other ways in, `close` the table of all ways out.

pub(crate) mod acknowledge;
pub(crate) mod close;
pub(crate) mod connect;
pub(crate) mod deliver;
pub(crate) mod encode;
pub(crate) mod established;
pub(crate) mod json;
pub(crate) mod publish;
pub(crate) mod retained;
pub(crate) mod streams;
pub(crate) mod subscribe;
pub(crate) mod table;
pub(crate) mod transport;
pub(crate) mod websocket;

use crate::input::LinkIndex;
use crate::session::{Protocol, Session};
use crate::timers::TICK_MS;
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::store::Opened;
use transport::Framing;
use websocket::WebSocket;

/// One connection. 56 bytes at most: there are hundreds of thousands.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) generation: u32,
    /// Ticks of [`TICK_MS`] at which the current phase began or, once established, the last packet came. Wraps after 34 years.
    pub(crate) heard_tick: u32,
    /// Tick of its entry in the timers; other entries of this connection are left over and mean nothing.
    pub(crate) timer_tick: u32,
    pub(crate) phase: Phase,
    /// Bytes that are not a whole packet or message yet, or that wait until the connection may go on. At most one packet, or one read,
    /// whichever is larger.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes on each of hundreds of thousands of idle connections, not 24"
    )]
    pub(crate) partial: Option<Box<Vec<u8>>>,
    /// The reader of WebSocket frames; none on plain connections.
    pub(crate) websocket: Option<Box<WebSocket>>,
    pub(crate) protocol: Protocol,
    /// The kernel has not taken all that was sent.
    pub(crate) blocked: bool,
    /// A publication waits for its link to take more, or a SUBSCRIBE for the answers to those before it; what follows it waits too.
    pub(crate) stalled: bool,
    /// It stands in its link's list of waiting connections.
    pub(crate) waiting: bool,
    /// A drain has reached it: it closes once its owed acknowledgements are given.
    pub(crate) leaving: bool,
    /// The store says that its session has another owner, or none: until it is known why, it is neither read nor acknowledged to.
    pub(crate) doubted: bool,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Free,
    Upgrading,
    Greeting,
    Opening(Box<Opening>),
    Established(Box<Session>),
    Closing,
}

/// A session that the store is to open.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) session: Box<Session>,
    /// Whether CONNACK names the client id, the expiry and the keep alive, because they are not what was asked for.
    pub(crate) assigned_id: bool,
    pub(crate) changed_expiry: bool,
    pub(crate) changed_keep_alive: bool,
    pub(crate) clean_start: bool,
    /// The store is being asked, or has answered.
    pub(crate) is_asked: bool,
    /// The store may have opened the session for a question that it did not answer, which asked for this session expiry, in seconds.
    pub(crate) may_be_open: Option<u32>,
    /// Another owner was given the session meanwhile, and waits to hear what its former owners know.
    pub(crate) successor: Option<Successor>,
    /// The epoch of an older connection here that ended while it waited for what the former owner knows: that answer is this one's.
    pub(crate) inherited: Option<Epoch>,
    /// The store's answer, while the former owner is waited for.
    pub(crate) opened: Option<Opened>,
}

/// Who owns a session after us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Successor {
    pub(crate) owner: Owner,
    pub(crate) epoch: Epoch,
    /// The link over which it last asked what we know.
    pub(crate) through: LinkIndex,
}

impl Opening {
    /// Whether it waits for its turn to be asked about.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_asked
    }
}

impl Connection {
    pub(crate) fn free(generation: u32) -> Self {
        Self {
            generation,
            heard_tick: 0,
            timer_tick: 0,
            phase: Phase::Free,
            partial: None,
            websocket: None,
            protocol: Protocol::V311,
            blocked: false,
            stalled: false,
            waiting: false,
            leaving: false,
            doubted: false,
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Established(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Established(session) => Some(session),
            _ => None,
        }
    }

    /// The client id, once CONNECT named it.
    pub(crate) fn client(&self) -> Option<&ClientId> {
        match &self.phase {
            Phase::Established(session) => Some(&session.client),
            Phase::Opening(opening) => Some(&opening.session.client),
            _ => None,
        }
    }

    /// Whether packets may be taken now.
    pub(crate) fn takes_packets(&self) -> bool {
        !self.stalled
            && !self.leaving
            && !self.doubted
            && matches!(self.phase, Phase::Greeting | Phase::Established(_))
    }

    pub(crate) fn framing(&self) -> Framing {
        match (&self.websocket, self.protocol) {
            (None, _) => Framing::Plain,
            (Some(_), Protocol::Json) => Framing::Text,
            (Some(_), _) => Framing::Binary,
        }
    }

    pub(crate) fn hear(&mut self, monotonic_ms: u64) {
        self.heard_tick = (monotonic_ms / TICK_MS) as u32;
    }

    /// Milliseconds since [`Connection::hear`], to the tick.
    pub(crate) fn silent_ms(&self, monotonic_ms: u64) -> u64 {
        u64::from(((monotonic_ms / TICK_MS) as u32).wrapping_sub(self.heard_tick)) * TICK_MS
    }

    /// After how long a silence its timer is due, in ms; none if silence is fine.
    pub(crate) fn silence_ms_max(&self, connect_timeout_ms: u64) -> Option<u64> {
        match &self.phase {
            Phase::Upgrading | Phase::Greeting | Phase::Opening(_) => Some(connect_timeout_ms),
            // One and a half times the keep alive (MQTT-3.1.2-22).
            Phase::Established(session) if session.keep_alive_s > 0 => {
                Some(u64::from(session.keep_alive_s) * 1_500)
            }
            Phase::Established(_) | Phase::Closing | Phase::Free => None,
        }
    }

    /// Whether the connection has not shown who it is.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Upgrading | Phase::Greeting)
    }
}
