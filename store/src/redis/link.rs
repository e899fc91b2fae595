//! One connection to one server, and what follows it when it is lost.
//!
//! ```text
//!          an error of the connection, or half a deadline without any answer
//!     up ─────────────────────────────────────────────────────────────────────> away: calls are refused at once
//!      ^                                                                          │
//!      └────────────── a dial that passes all checks ── waits between dials ──────┘
//! ```
//!
//! Knows nothing of who else serves: `routes` dials, and says which link leads where.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::connect::Peer;
use super::metrics;
use super::partition::{PARTITIONS, Partition};
use super::replicas::Replicas;
use super::url::Address;

/// Why a command brought no answer that its caller can use.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// It was not sent: nothing leads there.
    Away(Rc<str>),
    /// It was sent, and nobody knows what came of it.
    Lost(Rc<str>),
    /// The server said no. What it had begun to do stands.
    Refused(RedisError),
    /// The server said that another one has the slot, or nobody at the moment: nothing was done.
    Bounced(Rc<str>),
}

/// A connection that is up, or was.
pub(super) struct Wire {
    connection: MultiplexedConnection,
    /// When anything was last heard, or asked while nothing was owed.
    heard: Cell<Instant>,
    unanswered: Cell<usize>,
    /// Partitions that this server was told of the beginning of (`life.lua`), on this connection.
    begun: RefCell<Vec<bool>>,
    replicas: Replicas,
}

enum State {
    /// The first dial is under way.
    Coming,
    Up(Rc<Wire>),
    Away(Rc<str>),
}

/// Leads to a server, for as long as that is one of those that serve.
pub(super) struct Link {
    /// Of a cluster's node, which it is; else where the last dial led.
    address: RefCell<Option<Address>>,
    state: RefCell<State>,
    /// The connection that is up or was last.
    peer: RefCell<Option<Peer>>,
    /// Whether someone dials already.
    pub(super) dialling: Cell<bool>,
    /// Whether it is one no more.
    retired: Cell<bool>,
}

impl Wire {
    pub(super) fn new(connection: MultiplexedConnection) -> Self {
        Self {
            connection,
            heard: Cell::new(Instant::now()),
            unanswered: Cell::new(0),
            begun: RefCell::new(vec![false; usize::from(PARTITIONS)]),
            replicas: Replicas::default(),
        }
    }

    /// Sends a command; by the time this has been polled once, it has its place behind those before it.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let asked = Instant::now();
        if self.unanswered.get() == 0 {
            self.heard.set(asked);
        }
        let _owed = Owed::new(&self.unanswered);
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
        match answer {
            Ok(value) => {
                let heard = Instant::now();
                self.heard.set(heard);
                metrics::time_call(heard - asked);
                metrics::count_call(metrics::ANSWERED);
                Ok(value)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                self.heard.set(Instant::now());
                metrics::count_call(metrics::ERROR);
                Err(if is_bounce(&error) {
                    Failure::Bounced(error.to_string().into())
                } else {
                    Failure::Refused(error)
                })
            }
            Err(error) => {
                metrics::count_call(metrics::LOST);
                Err(Failure::Lost(error.to_string().into()))
            }
        }
    }

    /// The same connection, for questions that are not the functions'.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    pub(super) fn has_begun(&self, partition: Partition) -> bool {
        self.begun.borrow()[partition.index()]
    }

    pub(super) fn set_begun(&self, partition: Partition, begun: bool) {
        self.begun.borrow_mut()[partition.index()] = begun;
    }

    /// For how long it has owed an answer and given none.
    fn silent_for(&self) -> Duration {
        if self.unanswered.get() == 0 { Duration::ZERO } else { self.heard.get().elapsed() }
    }
}

impl Link {
    /// One that leads nowhere yet.
    pub(super) fn new(address: Option<Address>) -> Self {
        Self {
            address: RefCell::new(address),
            state: RefCell::new(State::Coming),
            peer: RefCell::new(None),
            dialling: Cell::new(false),
            retired: Cell::new(false),
        }
    }

    pub(super) fn address(&self) -> Option<Address> {
        self.address.borrow().clone()
    }

    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.address.borrow().as_ref() == Some(address)
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        self.peer.borrow().clone()
    }

    /// The connection, or why there is none.
    pub(super) fn wire(&self) -> Result<Rc<Wire>, Rc<str>> {
        match &*self.state.borrow() {
            State::Up(wire) => Ok(Rc::clone(wire)),
            State::Away(why) => Err(Rc::clone(why)),
            State::Coming => Err("it has not been dialled yet".into()),
        }
    }

    /// Whether it may be up in a moment, for the first time.
    pub(super) fn is_coming(&self) -> bool {
        matches!(&*self.state.borrow(), State::Coming)
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// A dial has succeeded.
    pub(super) fn rise(&self, address: Address, peer: Option<Peer>, wire: Wire) {
        wire.heard.set(Instant::now());
        *self.peer.borrow_mut() = peer;
        *self.address.borrow_mut() = Some(address);
        *self.state.borrow_mut() = State::Up(Rc::new(wire));
    }

    /// A dial has failed.
    pub(super) fn stay_away(&self, why: &str) {
        let mut state = self.state.borrow_mut();
        if !matches!(&*state, State::Up(_)) {
            *state = State::Away(why.into());
        }
    }

    /// This connection serves no more. Gives whether it did until now.
    pub(super) fn lose(&self, wire: &Rc<Wire>, why: &str) -> bool {
        let mut state = self.state.borrow_mut();
        let is_current = matches!(&*state, State::Up(up) if Rc::ptr_eq(up, wire));
        if is_current {
            *state = State::Away(why.into());
        }
        is_current
    }

    /// Loses a connection that has owed an answer for so long. Gives why, if it did.
    pub(super) fn lose_if_silent(&self, bound: Duration) -> Option<String> {
        let wire = self.wire().ok()?;
        let silent_for = wire.silent_for();
        let why = format!("no answer for {} ms", silent_for.as_millis());
        (silent_for >= bound && self.lose(&wire, &why)).then_some(why)
    }

    /// Its server is none of the store's any more.
    pub(super) fn retire(&self, why: &str) {
        self.retired.set(true);
        *self.state.borrow_mut() = State::Away(why.into());
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }
}

/// What is not an answer of the functions, but says that they were not called, and may be elsewhere or later.
fn is_bounce(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown))
}

/// Counts a command that has no answer yet.
struct Owed<'a>(&'a Cell<usize>);

impl<'a> Owed<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
