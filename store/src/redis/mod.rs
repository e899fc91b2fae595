//! The store that many processes share: sessions, streams and retained messages in a Redis server.
//!
//! Each step is one function of ours that the server runs on keys of one slot (`functions/*.lua`); what spans slots is a
//! sequence of such steps that may end anywhere and is taken up again by whoever sweeps (ADR 14 has the layout and the
//! argument). Nothing here knows what MQTT means.
//!
//! Start with [`RedisStore`], then `dispatch` (one request after the other, on a thread of its own), `sessions` and
//! `streams` (what each request does), `server` (a call and its answer), `routes` (which server has what: one, the one that sentinels
//! name, or a cluster's; `link` and `gate`: what happens when a connection is lost, or a slot moves).

mod answer;
mod claims;
mod cluster;
mod connect;
mod dispatch;
mod gate;
mod groups;
mod lanes;
mod library;
mod link;
mod listing;
mod metrics;
mod nodes;
mod pages;
mod partition;
mod reaping;
mod refusing;
mod rejoining;
mod replicas;
mod retained;
mod room;
mod routes;
mod sentinel;
mod server;
mod sessions;
mod streams;
mod subscribing;
mod sweep;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use self::connect::Dialler;
use self::dispatch::{Job, Order};
use self::refusing::Health;
use self::url::StoreUrl;
use crate::clock::Clock;
use crate::contract::{Bounds, ReplyTo, Request, Store, StoreError};
use crate::open_error::OpenError;

/// How a [`RedisStore`] behaves.
#[derive(Clone)]
pub struct RedisOptions {
    /// How much all its users together may keep. Each learns within seconds what the others added, so the bounds may be
    /// exceeded by what comes in meanwhile. The server's own `maxmemory` stands above them.
    pub bounds: Bounds,
    /// Within this time each request is answered, and a server that answered nothing at all for half of it is treated as
    /// absent.
    pub deadline: Duration,
    /// Requests that may wait for their answer at once; one more is answered with [`StoreError::Unavailable`].
    pub requests_max: usize,
    /// Begins the name of every key. Without braces.
    pub prefix: String,
    /// Replicas that must have a change of a session, a stream or a retained message before it is answered (`WAIT`), unless the URL
    /// says how many. Too few of them within a quarter of the deadline: [`StoreError::Unavailable`]. 0: none is waited for, and a
    /// failover may lose what was answered in the last moments before it.
    pub replicas: u32,
    /// Whether a store that begins with nothing is young at first: for a minute it keeps what everyone in it has settled, and lets those who come back
    /// read it, as they may have been lost with a server's data. One that loses its data later is young in any case. Without it for tests.
    pub begins_young: bool,
    /// The time by which sessions, leases and messages end; none for the server's clock, which all nodes share. For tests.
    pub clock: Option<Clock>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            deadline: Duration::from_secs(2),
            requests_max: 65_536,
            prefix: "hf".to_owned(),
            replicas: 0,
            begins_young: true,
            clock: None,
        }
    }
}

/// A store in a Redis server, version 7 or later.
///
/// Dropping it answers what is still asked, for at most the deadline.
pub struct RedisStore {
    orders: Option<mpsc::Sender<Order>>,
    waiting: Arc<AtomicUsize>,
    requests_max: usize,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

impl RedisStore {
    /// Connects to the servers that `url` names and makes sure that they can serve. Blocks for at most three times the deadline.
    ///
    /// | URL | What serves |
    /// | --- | --- |
    /// | `redis://user:password@host:port/db` | that server; `rediss://` over TLS |
    /// | `redis+sentinel://user:password@host:port,host:port/name` | the primary that the sentinels call `name` |
    /// | `redis+cluster://user:password@host:port,host:port` | the primaries of the cluster that these nodes belong to |
    ///
    /// Behind a `?` may stand, with `&` between them: `replicas=N` (see [`RedisOptions::replicas`]); `tls=yes`, `ca=FILE` (else the system's
    /// roots), `cert=FILE&key=FILE`; with sentinels `db=N`, and `sentinel_user`, `sentinel_password` if they want some of their own.
    ///
    /// A server that goes away later is dialled again, for as long as it takes; or the one that has taken its place.
    pub fn connect(url: &str, options: RedisOptions) -> Result<Self, OpenError> {
        let dialler = Dialler::new(StoreUrl::parse(url)?, &options.prefix, options.deadline)?;
        let requests_max = options.requests_max;
        // One that does not fit is refused by `order`.
        let (orders, queue) = mpsc::channel(requests_max.max(1));
        let (opened, outcome) = std::sync::mpsc::sync_channel(1);
        let health = Arc::<Health>::default();
        let told = Arc::clone(&health);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || dispatch::run(dialler, options, queue, told, &opened))
            .map_err(|source| OpenError::Thread { source })?;
        // The thread says how it went before it does anything else, or it ended.
        outcome
            .recv()
            .unwrap_or_else(|_| Err(OpenError::Thread { source: std::io::Error::other("it ended") }))?;
        Ok(Self { orders: Some(orders), waiting: Arc::default(), requests_max, health, thread: Some(thread) })
    }

    /// Clears away everything that has ended by now, then calls `done`. Goes on by itself all the time; this is for who
    /// cannot wait.
    pub fn sweep(&self, done: Box<dyn FnOnce() + Send>) {
        self.order(Job::Sweep(done));
    }

    fn order(&self, job: Job) {
        let waiting = Waiting::new(&self.waiting);
        let order = Order { job, at: Instant::now(), waiting };
        if let Some(orders) = &self.orders
            && let Err(refused) = orders.try_send(order)
        {
            let why = match &refused {
                TrySendError::Full(_) => "too many requests wait for an answer already",
                TrySendError::Closed(_) => "its thread has ended",
            };
            refused.into_inner().job.refuse(why);
        }
    }
}

/// The name under which a server has one of our functions. For tests of what a caller leaves that dies between two of them.
#[doc(hidden)]
pub fn function_name(function: &str) -> String {
    library::Library::new().function(function)
}

/// The one key that functions about a client, a filter or a topic of up to two levels are given. For tests as well.
#[doc(hidden)]
pub fn partition_key(prefix: &str, of: &str) -> String {
    partition::Partition::of_client(of).key(prefix)
}

impl Store for RedisStore {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if self.waiting.load(Ordering::Relaxed) >= self.requests_max {
            metrics::count_call(metrics::REFUSED);
            let why = format!("{} requests wait for an answer already", self.requests_max);
            return reply(Err(StoreError::Unavailable(why)));
        }
        self.order(Job::Request(request, reply));
    }

    fn is_refusing(&self) -> bool {
        self.health.is_refusing()
    }

    fn is_partly_away(&self) -> bool {
        self.health.is_partly_away()
    }

    fn has_just_begun(&self) -> bool {
        self.health.has_just_begun()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// A place among the requests that wait; given back when dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
