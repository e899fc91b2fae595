//! The one connection to the server: calls on it, how its loss is noticed, and how it is dialled again.
//!
//! ```text
//!          an error of the connection, or half a deadline without any answer
//!     up ─────────────────────────────────────────────────────────────────────> away: calls are refused at once
//!      ^                                                                          │
//!      └────────────── a dial that passes all checks ── waits between dials ──────┘
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, ToRedisArgs, Value};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::answer::Answer;
use super::connect::{Peer, Target, format_key};
use super::library::Library;
use super::metrics;
use super::partition::{PARTITIONS, Partition};
use crate::contract::StoreError;
use crate::open_error::OpenError;

/// Waits between dials: doubled each time, up to the second of these.
const DIAL_WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The server, as far as we know it.
pub(super) struct Server {
    target: Target,
    library: Library,
    keys: Vec<String>,
    format_key: String,
    deadline: Duration,
    link: RefCell<Link>,
    /// The connection that is up or was last.
    peer: RefCell<Option<Peer>>,
    lost: Notify,
    /// When anything was last heard, or asked while nothing was owed.
    heard: Cell<Instant>,
    unanswered: Cell<usize>,
    /// Whether it said that its memory is full since it was last asked.
    pressed: Cell<bool>,
}

enum Link {
    Up { connection: MultiplexedConnection, generation: u64 },
    Away { why: String, generation: u64 },
}

impl Server {
    /// Dials for the first time.
    pub(super) async fn open(target: Target, prefix: &str, deadline: Duration) -> Result<Self, OpenError> {
        metrics::describe();
        let (library, format_key) = (Library::new(), format_key(prefix));
        let (connection, peer) = target.dial(&library, &format_key, deadline, true, None).await?;
        metrics::say_up(true);
        info!(server = target.shown(), "the session store is a Redis server");
        Ok(Self {
            target,
            library,
            keys: (0..PARTITIONS).map(|number| Partition(number).key(prefix)).collect(),
            format_key,
            deadline,
            link: RefCell::new(Link::Up { connection, generation: 0 }),
            peer: RefCell::new(peer),
            lost: Notify::new(),
            heard: Cell::new(Instant::now()),
            unanswered: Cell::new(0),
            pressed: Cell::new(false),
        })
    }

    /// A call of one of our functions on a partition; what is given to it follows with [`Call::arg`].
    pub(super) fn call(&self, function: &str, partition: Partition) -> Call {
        let mut command = redis::cmd("FCALL");
        command.arg(self.library.function(function)).arg(1).arg(&self.keys[partition.index()]);
        Call(command)
    }

    /// The name of a key of a partition, for plain commands.
    pub(super) fn key(&self, partition: Partition, kind: &str) -> String {
        format!("{}:{kind}", self.keys[partition.index()])
    }

    /// Sends a call; by the time this has been polled once, it has its place behind those before it.
    pub(super) async fn answer(&self, call: Call) -> Result<Answer, StoreError> {
        Answer::new(self.send(&call.0).await?)
    }

    /// Sends any command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        let (mut connection, generation) = match &*self.link.borrow() {
            Link::Up { connection, generation } => (connection.clone(), *generation),
            Link::Away { why, .. } => {
                metrics::count_call(metrics::REFUSED);
                return Err(StoreError::Unavailable(why.clone()));
            }
        };
        let asked = Instant::now();
        if self.unanswered.get() == 0 {
            self.heard.set(asked);
        }
        let _owed = Owed::new(&self.unanswered);
        let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
        let heard = Instant::now();
        match answer {
            Ok(value) => {
                self.heard.set(heard);
                metrics::time_call(heard - asked);
                metrics::count_call(metrics::ANSWERED);
                Ok(value)
            }
            Err(error) => Err(self.failed(&error, generation, heard)),
        }
    }

    /// A request has had no answer within its deadline. Whether that is the server's fault shows in what else it answered.
    pub(super) fn handle_deadline(&self) {
        metrics::count_call(metrics::LOST);
        let silent_for = self.heard.get().elapsed();
        let generation = match &*self.link.borrow() {
            Link::Up { generation, .. } if silent_for >= self.deadline / 2 => *generation,
            _ => return,
        };
        self.lose(generation, format!("no answer for {} ms", silent_for.as_millis()));
    }

    /// Whether its memory has been full since this was last asked.
    pub(super) fn take_pressure(&self) -> bool {
        self.pressed.replace(false)
    }

    /// Dials again whenever the connection is lost; for ever.
    pub(super) async fn keep_up(self: Rc<Self>) {
        loop {
            self.lost.notified().await;
            let mut wait = DIAL_WAITS.0;
            let (mut last_word, generation) = match &*self.link.borrow() {
                Link::Away { why, generation } => (why.clone(), *generation),
                Link::Up { .. } => continue,
            };
            warn!(server = self.target.shown(), why = last_word, "the session store is away");
            loop {
                let former = self.peer.borrow().clone();
                let dialled =
                    self.target.dial(&self.library, &self.format_key, self.deadline, false, former.as_ref());
                match dialled.await {
                    Ok((connection, peer)) => {
                        *self.peer.borrow_mut() = peer;
                        self.heard.set(Instant::now());
                        *self.link.borrow_mut() = Link::Up { connection, generation: generation + 1 };
                        metrics::count_reconnect();
                        metrics::say_up(true);
                        info!(server = self.target.shown(), "the session store is back");
                        break;
                    }
                    Err(error) => {
                        let why = error.to_string();
                        if why != last_word {
                            warn!("{why}");
                        }
                        *self.link.borrow_mut() = Link::Away { why: why.clone(), generation };
                        last_word = why;
                    }
                }
                sleep(wait).await;
                wait = (wait * 2).min(DIAL_WAITS.1);
            }
        }
    }

    fn failed(&self, error: &RedisError, generation: u64, heard: Instant) -> StoreError {
        let kind = error.kind();
        let is_answer = matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension);
        metrics::count_call(if is_answer { metrics::ERROR } else { metrics::LOST });
        if !is_answer {
            self.lose(generation, error.to_string());
            return StoreError::Unavailable(error.to_string());
        }
        self.heard.set(heard);
        let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        let is_elsewhere =
            matches!(kind, ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading));
        if is_elsewhere || matches!(code, "NOAUTH") || detail.contains("Function not found") {
            // Another server answers there now, or one that has lost everything: it is checked and given the functions like a new one.
            self.lose(generation, error.to_string());
        }
        if code == "OOM" {
            self.pressed.set(true);
        }
        match code {
            "OOM" | "MISCONF" => StoreError::Full(detail.to_owned()),
            "FOREIGN" => StoreError::Unreadable(detail.to_owned()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }

    fn lose(&self, generation: u64, why: String) {
        let mut link = self.link.borrow_mut();
        if matches!(*link, Link::Up { generation: current, .. } if current == generation) {
            *link = Link::Away { why, generation };
            metrics::say_up(false);
            self.lost.notify_one();
        }
    }
}

/// A command that is being put together.
pub(super) struct Call(Cmd);

impl Call {
    pub(super) fn arg(mut self, value: impl ToRedisArgs) -> Self {
        self.0.arg(value);
        self
    }
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
