//! A whole gateway process: what starts in which order, and how it ends.
//!
//! Start: every address is bound and every poll made, then the admin server's listener opens, then the threads run; so a wrong address or
//! a port in use leaves nothing half open. Devices' listeners open when the process says so ([`NodeHandle::admit`]). End: not ready → listeners closed → goodbyes → owed acknowledgements and session saves → threads joined →
//! admin server closed.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use holdfast_engine::Listener as Transport;
use holdfast_store::contract::Store;
use holdfast_wire::ids::{NodeId, ShardId};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;

use crate::admin::{self, Admin, Shards};
use crate::config::Settings;
use crate::control::Control;
use crate::drain::DrainTrigger;
use crate::io::listener::{BindError, BoundGroup, Listener};
use crate::io::room::SocketRoom;
use crate::lease::Lease;
use crate::link::{Dialer, LinkTarget, Resolver};
use crate::mailbox::Mailbox;
use crate::shard::clock::Clock;
use crate::shard::{Letter, Shard, ShardEnd, ShardSetup};

/// What a node is made of, besides its store and its bridges.
pub struct NodeConfig {
    /// The validated configuration.
    pub settings: Settings,
    /// What `/metrics` shows; from [`metrics::install_recorder`](crate::metrics::install_recorder).
    pub metrics: Option<PrometheusHandle>,
    /// Further routes of the admin server. They must not repeat its own.
    pub admin_extra: Router,
    /// How many files the process may have open; none: any number. Devices get what the rest of the process does not need.
    pub open_files_max: Option<u64>,
    /// Where the bridge is in this process: whether its sink stores now, for `/readyz`.
    pub sink_stores: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl NodeConfig {
    /// With nothing besides.
    pub fn new(settings: Settings) -> Self {
        Self { settings, metrics: None, admin_extra: Router::new(), open_files_max: None, sink_stores: None }
    }
}

/// Why a node did not start. Each displays as one line for an operator; nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A bridge in the same process gave another number of links than there are shards.
    #[error("the bridge offers {given} links for {shards} shards")]
    Links {
        /// How many it gave.
        given: usize,
        /// How many are needed.
        shards: u16,
    },
    /// The system refused a resource.
    #[error("the system refused {what}: {error}")]
    System {
        /// Which one.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// The gateway process.
pub struct Node;

impl Node {
    /// Starts a node with a fresh [`NodeId`]. Once it returns, it has its addresses and dials its bridges; devices can connect
    /// after [`NodeHandle::admit`].
    pub fn start(
        config: NodeConfig,
        store: Arc<dyn Store>,
        links: Vec<LinkTarget>,
    ) -> Result<NodeHandle, StartError> {
        let NodeConfig { settings, metrics, admin_extra, open_files_max, sink_stores } = config;
        let mut listeners = Listeners::bind(&settings)?;
        let node = NodeId(random()?);
        let clock = Clock::start();
        let Bridges { mut dialers, fixed, names } = Bridges::sort(links, settings.shards)?;
        let lease = Arc::new(Lease::new(node, clock, Arc::clone(&store)));
        let room = Arc::new(SocketRoom::within(open_files_max, settings.shards));
        let mut setups = Vec::new();
        for shard in 0..settings.shards {
            let dialers = dialers.for_shard(node, shard);
            let (store, room, lease) = (Arc::clone(&store), Arc::clone(&room), Arc::clone(&lease));
            let shard = ShardId(shard);
            let setup = ShardSetup::new(node, shard, dialers, store, room, clock, lease, random()?);
            setups.push(setup.map_err(system("a poll"))?);
        }

        let addresses = listeners.addresses();
        let admin_listener = listeners.admin.take().map(BoundGroup::listen_blocking).transpose()?;
        let mailboxes: Vec<_> = setups.iter().map(|setup| setup.mailbox.clone()).collect();
        lease.tell(mailboxes.clone());
        // One word from each shard: there is room for all of them, so none ever waits.
        let (ended, ends) = mpsc::sync_channel(setups.len());
        let settings = Arc::new(settings);
        let mut handle = NodeHandle {
            addresses,
            node,
            connections_max: room.sockets_max(),
            drain: DrainTrigger::default(),
            mailboxes: mailboxes.clone(),
            threads: Vec::new(),
            ends,
            listeners: Some(listeners),
            admits: Arc::default(),
            resolver: None,
            control: None,
        };
        for setup in setups {
            let (settings, ended) = (Arc::clone(&settings), ended.clone());
            let drain = handle.drain.clone();
            let shard = setup.owner.shard;
            let thread = Builder::new().name(format!("shard-{shard}")).spawn(move || {
                // Its lines say which shard speaks.
                let _span = tracing::info_span!("shard", %shard).entered();
                let end = Shard::new(setup, &settings).run();
                match &end {
                    Ok(end) if end.is_buried => drain.request(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "a shard cannot go on; the node drains, so that a whole one takes its place");
                        drain.request();
                    }
                }
                // Nobody listens any more once the handle is gone.
                let _ = ended.send(end);
            });
            handle.threads.push(thread.map_err(system("a thread"))?);
        }

        if !names.is_empty() {
            let shards = mailboxes.clone();
            let tell = move |found: &[SocketAddr]| {
                let all: Vec<SocketAddr> = fixed.iter().chain(found).copied().collect();
                tell_bridges(&shards, &all);
            };
            let resolver = Resolver::start(names, settings.resolve_every, tell);
            handle.resolver = Some(resolver.map_err(system("a thread"))?);
        }

        let admin = Arc::new(Admin {
            node,
            shards: Shards::new(mailboxes),
            store,
            lease: Arc::clone(&lease),
            admits: Arc::clone(&handle.admits),
            drain: handle.drain.clone(),
            metrics,
            sink_stores,
        });
        let router = admin::router(admin, admin_extra);
        let control = Control::start(admin_listener, router, lease);
        handle.control = Some(control.map_err(system("the control thread"))?);
        Ok(handle)
    }
}

/// The addresses really taken; none where a listener is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// MQTT over TCP.
    pub mqtt: Option<SocketAddr>,
    /// WebSocket.
    pub ws: Option<SocketAddr>,
    /// The admin server.
    pub admin: Option<SocketAddr>,
}

/// A running node. Dropping it cuts all connections and joins its threads.
pub struct NodeHandle {
    addresses: Addresses,
    node: NodeId,
    connections_max: usize,
    drain: DrainTrigger,
    mailboxes: Vec<Mailbox<Letter>>,
    threads: Vec<JoinHandle<()>>,
    ends: Receiver<io::Result<ShardEnd>>,
    /// Bound and not open yet.
    listeners: Option<Listeners>,
    admits: Arc<AtomicBool>,
    resolver: Option<Resolver>,
    control: Option<Control>,
}

/// Gives a running node another configuration; outlives it without harm.
pub struct Reloader {
    mailboxes: Vec<Mailbox<Letter>>,
}

impl Reloader {
    /// Goes on with the limits and announcements of another configuration; nobody is disconnected. Addresses, shards and socket
    /// options stay as they are until the next start.
    pub fn reload(&self, settings: &Settings) {
        for mailbox in &self.mailboxes {
            mailbox.post(Letter::Reload(Box::new(settings.engine.clone())));
        }
    }
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Everyone heard a goodbye and nothing was owed at the end.
    pub complete: bool,
    /// Connections that were cut because the time was up.
    pub cut: usize,
    /// A shard could not go on, which is why the node drained; its connections were cut.
    pub failed: bool,
    /// The node was declared dead, and gave up its sessions: others own them by now.
    pub buried: bool,
}

/// A shard that is told to stop does so within a turn; one that takes longer is stuck, and waiting would hang the process.
const STOP_WITHIN: Duration = Duration::from_secs(5);

impl NodeHandle {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its name, new at each start.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How many connections the limit of open files leaves to devices, in all shards together.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Opens the devices' listeners, once; until then a connection attempt is refused by the kernel.
    pub fn admit(&mut self) -> Result<(), StartError> {
        let Some(listeners) = self.listeners.take() else { return Ok(()) };
        let per_shard = listeners.open(self.mailboxes.len())?;
        for (mailbox, listeners) in self.mailboxes.iter().zip(per_shard) {
            mailbox.post(Letter::Admit(listeners));
        }
        self.admits.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until every shard has a link, at most `within`; false if one has none by then. What is published in between is not delivered live to
    /// sessions that have come already.
    pub fn await_links(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !self.has_links() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether every shard has a link to a bridge. Waits for a turn of each shard.
    pub fn has_links(&self) -> bool {
        let has_link = |mailbox: &Mailbox<Letter>| {
            let (answer, answered) = oneshot::channel();
            mailbox.ask(Letter::Report(answer)).is_ok()
                && answered.blocking_recv().is_ok_and(|report| report.links_up > 0)
        };
        self.mailboxes.iter().all(has_link)
    }

    /// Passes on what a reload needs, apart from the handle that is to drain.
    pub fn reloader(&self) -> Reloader {
        Reloader { mailboxes: self.mailboxes.clone() }
    }

    /// These are all bridges from now on, for a process that finds them by other means than names: those that are new are dialled, those
    /// that are missing keep their links as long as they stand.
    pub fn know_bridges(&self, addresses: &[SocketAddr]) {
        tell_bridges(&self.mailboxes, addresses);
    }

    /// What `POST /drain` sets; the caller may set it too, waits for it, and then calls [`drain`](Self::drain).
    pub fn drain_trigger(&self) -> DrainTrigger {
        self.drain.clone()
    }

    /// Says goodbye to all devices, sees to it that nothing is owed, and ends the shards; after `within` what is left is
    /// cut. Links must stay up meanwhile: stop the bridge afterwards. The admin server goes on until
    /// [`join`](Self::join).
    pub fn drain(&mut self, within: Duration) -> Drained {
        self.drain.request();
        // Whoever was not admitted yet never will be.
        self.listeners = None;
        let deadline = Instant::now() + within;
        for mailbox in &self.mailboxes {
            mailbox.post(Letter::Drain { within });
        }
        let mut drained = Drained { complete: true, cut: 0, failed: false, buried: false };
        let mut running = self.threads.len();
        while running > 0 {
            match self.ends.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(end) => drained.note(&end),
                Err(_) => break,
            }
            running -= 1;
        }
        for mailbox in &self.mailboxes {
            mailbox.post(Letter::Stop);
        }
        for _ in 0..running {
            match self.ends.recv_timeout(STOP_WITHIN) {
                Ok(end) => drained.note(&end),
                Err(_) => drained.complete = false,
            }
        }
        drained
    }

    /// Ends everything that still runs and waits for it.
    pub fn join(self) {
        drop(self);
    }
}

impl Drained {
    fn note(&mut self, end: &io::Result<ShardEnd>) {
        match end {
            Ok(end) => {
                self.cut += end.cut;
                self.complete &= end.cut == 0 && end.owed_nothing;
                self.buried |= end.is_buried;
            }
            Err(_) => {
                self.complete = false;
                self.failed = true;
            }
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        for mailbox in &self.mailboxes {
            mailbox.post(Letter::Stop);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            // One that is stuck ends with the process; waiting for it would keep that from ending.
            if !thread.is_finished() {
                continue;
            }
            // A panic has been printed by its own thread.
            let _ = thread.join();
        }
        self.control = None;
    }
}

/// All listening sockets, bound and not open yet.
struct Listeners {
    mqtt: Option<BoundGroup>,
    ws: Option<BoundGroup>,
    admin: Option<BoundGroup>,
}

impl Listeners {
    fn bind(settings: &Settings) -> Result<Self, BindError> {
        let group = |key, address: Option<SocketAddr>, shards| {
            address.map(|address| BoundGroup::bind(key, address, shards, &settings.tcp)).transpose()
        };
        Ok(Self {
            mqtt: group("listeners.mqtt", settings.listen.mqtt, settings.shards)?,
            ws: group("listeners.ws", settings.listen.ws, settings.shards)?,
            admin: group("listeners.admin", settings.listen.admin, 1)?,
        })
    }

    fn addresses(&self) -> Addresses {
        let address = |group: &Option<BoundGroup>| group.as_ref().map(|group| group.address);
        Addresses { mqtt: address(&self.mqtt), ws: address(&self.ws), admin: address(&self.admin) }
    }

    /// Opens the devices' listeners: those of each of `shards` shards, in their order.
    fn open(self, shards: usize) -> Result<Vec<Vec<Listener>>, BindError> {
        let mut per_shard: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
        for (group, transport) in [(self.mqtt, Transport::Mqtt), (self.ws, Transport::WebSocket)] {
            let Some(group) = group else { continue };
            for (listeners, listener) in per_shard.iter_mut().zip(group.listen(transport)?) {
                listeners.push(listener);
            }
        }
        Ok(per_shard)
    }
}

/// The bridges by how they are found.
struct Bridges {
    dialers: Dialers,
    /// Addresses that stay.
    fixed: Vec<SocketAddr>,
    names: Vec<String>,
}

impl Bridges {
    fn sort(links: Vec<LinkTarget>, shards: u16) -> Result<Self, StartError> {
        let (mut targets, mut fixed, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for link in links {
            match link {
                LinkTarget::Pair(ends) if ends.len() != usize::from(shards) => {
                    return Err(StartError::Links { given: ends.len(), shards });
                }
                LinkTarget::Pair(ends) => targets.push(Target::Pair(ends.into_iter())),
                LinkTarget::Address(address) if fixed.contains(&address) => {}
                LinkTarget::Address(address) => {
                    targets.push(Target::Address(address));
                    fixed.push(address);
                }
                LinkTarget::Name(name) => names.push(name),
            }
        }
        Ok(Self { dialers: Dialers(targets), fixed, names })
    }
}

/// The bridges known at the start, until each shard has taken its way to each of them.
struct Dialers(Vec<Target>);

enum Target {
    Pair(std::vec::IntoIter<UnixStream>),
    Address(SocketAddr),
}

impl Dialers {
    /// Shards are served in their order, each once.
    fn for_shard(&mut self, node: NodeId, shard: u16) -> Vec<Dialer> {
        let dialer = |target: &mut Target| match target {
            Target::Pair(ends) => Dialer::Pair(ends.next()),
            Target::Address(address) => Dialer::to_address(*address, node.0.rotate_left(u32::from(shard))),
        };
        self.0.iter_mut().map(dialer).collect()
    }
}

/// One letter for each time that the bridges changed, which takes seconds.
fn tell_bridges(shards: &[Mailbox<Letter>], addresses: &[SocketAddr]) {
    let addresses: Arc<[SocketAddr]> = addresses.into();
    for shard in shards {
        shard.post(Letter::Bridges(Arc::clone(&addresses)));
    }
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| system("random bytes")(error.into()))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}
