//! Which server has which partition, and seeing to it that there is a connection to each.
//!
//! One server, or the primary that sentinels name, is one link that all partitions share; a cluster has one to each of its primaries. The redis
//! crate's own cluster client would find them too, but sends again, inside and each request for itself, what was bounced or
//! lost: requests of one client would overtake each other, and one might be carried out twice (rule 1 of the contract).

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::answer::Answer;
use super::cluster::{self, Known, Map};
use super::connect::{Dialler, Peer};
use super::gate::Gate;
use super::library::Library;
use super::link::{Failure, Link, Wire};
use super::metrics;
use super::partition::Partition;
use super::sentinel::Sentinels;
use super::url::{Address, Form};
use crate::open_error::OpenError;

/// Waits between dials: doubled each time, up to the second of these. A failover is noticed that much later at most.
const DIAL_WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Waits between looks at where a slot has gone, likewise.
const GATE_WAITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Sentinels are asked so often whether the primary is still the same.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);
/// A cluster's nodes are asked so often for the map of its slots, if nothing else gives reason to.
const MAP_EVERY: Duration = Duration::from_secs(3);
/// So often while one of them is away.
const MAP_EVERY_AWAY: Duration = Duration::from_millis(200);
/// And at most so often.
const MAP_AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// How a server is found.
enum Finder {
    Server(Address),
    Sentinels(Sentinels),
    Cluster(Known),
}

/// All connections, and who takes which.
pub(super) struct Routes {
    dialler: Dialler,
    library: Rc<Library>,
    keys: Vec<String>,
    finder: Finder,
    gates: Vec<Rc<Gate>>,
    /// Never more than a cluster has primaries.
    links: RefCell<Vec<Rc<Link>>>,
    /// Gates that have closed, and that nobody opens yet.
    closed: RefCell<Vec<Partition>>,
    /// Something said that the map is out of date.
    is_outdated: Cell<bool>,
    /// When someone last began to look, and whether that goes on.
    looked: Cell<Instant>,
    is_looking: Cell<bool>,
    work: Notify,
    /// The mark of each partition's birth (`life.lua`).
    births: RefCell<Vec<Option<Vec<u8>>>>,
    has_lost: Cell<bool>,
    /// Whether a partition that begins with nothing is young.
    begins_young: bool,
}

impl Routes {
    /// Finds the servers and connects to each.
    pub(super) async fn open(
        dialler: Dialler,
        library: Rc<Library>,
        keys: Vec<String>,
        begins_young: bool,
    ) -> Result<Self, OpenError> {
        let finder = match &dialler.url.form {
            Form::Server(address) => Finder::Server(address.clone()),
            Form::Sentinel { sentinels, name, login } => {
                Finder::Sentinels(Sentinels::new(sentinels, name, login))
            }
            Form::Cluster { seeds } => Finder::Cluster(Known::new(seeds)),
        };
        let this = Self {
            gates: Partition::all().map(|partition| Rc::new(Gate::new(partition))).collect(),
            births: RefCell::new(vec![None; keys.len()]),
            dialler,
            library,
            keys,
            finder,
            links: RefCell::default(),
            closed: RefCell::default(),
            is_outdated: Cell::new(false),
            looked: Cell::new(Instant::now()),
            is_looking: Cell::new(false),
            work: Notify::new(),
            has_lost: Cell::new(false),
            begins_young,
        };
        if let Finder::Cluster(nodes) = &this.finder {
            let map = cluster::draw(&this.dialler, vec![], &nodes.all()).await?;
            if map.primaries.contains(&None) {
                let (server, why) = (this.dialler.url.shown(), "nobody serves some of its slots".to_owned());
                return Err(OpenError::RedisRefused { server, why });
            }
            this.follow(&map);
        } else {
            let link = Rc::new(Link::new(None));
            this.gates.iter().for_each(|gate| gate.set_link(Some(Rc::clone(&link))));
            this.links.borrow_mut().push(link);
        }
        let links = this.links.borrow().clone();
        for dialled in join_all(links.iter().map(|link| this.dial(link, true))).await {
            dialled?;
        }
        metrics::say_up(true);
        Ok(this)
    }

    pub(super) fn deadline(&self) -> Duration {
        self.dialler.deadline
    }

    pub(super) fn gate(&self, partition: Partition) -> &Rc<Gate> {
        &self.gates[partition.index()]
    }

    /// For each server, one of the partitions that it has.
    pub(super) fn one_of_each(&self) -> Vec<Partition> {
        let leads = |link: &Rc<Link>, partition| {
            self.gate(partition).link().is_some_and(|known| Rc::ptr_eq(&known, link))
        };
        let one_of = |link| Partition::all().find(|partition| leads(link, *partition));
        self.links.borrow().iter().filter_map(one_of).collect()
    }

    /// Someone has closed a gate: it is opened again once its way is known.
    pub(super) fn open_gate_soon(&self, partition: Partition) {
        self.closed.borrow_mut().push(partition);
        self.work.notify_one();
    }

    /// A connection serves no more.
    pub(super) fn lose(&self, wire: &Rc<Wire>, why: &str) {
        let links = self.links.borrow().clone();
        if let Some(link) = links.iter().find(|link| link.lose(wire, why)) {
            self.handle_loss(link, why);
        }
    }

    /// So does each that has owed an answer for half a deadline.
    pub(super) fn lose_silent(&self) {
        for link in self.links.borrow().iter() {
            if let Some(why) = link.lose_if_silent(self.deadline() / 2) {
                self.handle_loss(link, &why);
            }
        }
    }

    pub(super) fn take_loss(&self) -> bool {
        self.has_lost.take()
    }

    /// Dials what is lost, opens what is closed, and looks whether others serve now; for ever.
    pub(super) async fn keep_up(self: Rc<Self>) {
        loop {
            // A while without any work is what the silent ones are noticed by.
            let _ = timeout(self.deadline() / 8, self.work.notified()).await;
            self.lose_silent();
            for link in self.links.borrow().iter() {
                if !link.is_up() && !link.dialling.replace(true) {
                    spawn_local(Rc::clone(&self).dial_until_up(Rc::clone(link)));
                }
            }
            for partition in self.closed.take() {
                spawn_local(Rc::clone(&self).open_gate(partition));
            }
            if self.is_time_to_look() && !self.is_looking.replace(true) {
                spawn_local(Rc::clone(&self).look());
            }
        }
    }

    fn handle_loss(&self, link: &Link, why: &str) {
        warn!(server = self.shown(link), why, "the session store is away");
        metrics::say_up(false);
        self.is_outdated.set(true);
        self.work.notify_one();
    }

    fn shown(&self, link: &Link) -> String {
        link.address().map_or_else(|| self.dialler.url.shown(), |address| self.dialler.url.shown_at(&address))
    }

    async fn dial_until_up(self: Rc<Self>, link: Rc<Link>) {
        let (mut wait, mut last_word) = (DIAL_WAITS.0, String::new());
        while !link.is_retired() {
            match self.dial(&link, false).await {
                Ok(()) => {
                    metrics::count_reconnect();
                    metrics::say_up(self.links.borrow().iter().all(|link| link.is_up()));
                    info!(server = self.shown(&link), "the session store is back");
                    break;
                }
                Err(error) => {
                    let why = error.to_string();
                    if why != last_word {
                        warn!("{why}");
                    }
                    link.stay_away(&why);
                    last_word = why;
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(DIAL_WAITS.1);
        }
        link.dialling.set(false);
    }

    /// Connects a link, and begins with all partitions that it leads to.
    async fn dial(&self, link: &Rc<Link>, first: bool) -> Result<(), OpenError> {
        let mut said = None;
        let address = match &self.finder {
            Finder::Server(address) => address.clone(),
            Finder::Sentinels(sentinels) => {
                said.insert(sentinels.primary(&self.dialler).await?).primary.clone()
            }
            Finder::Cluster(_) => link.address().unwrap_or_else(|| unreachable!("a node has an address")),
        };
        let former = link.peer();
        let dialled = self.dialler.dial(&address, &self.library, first, former.as_ref()).await?;
        let (peer, wire) = (dialled.peer, Wire::new(dialled.connection));
        let life = life(peer.as_ref());
        let leads_here = |gate: &Rc<Gate>| gate.link().is_some_and(|known| Rc::ptr_eq(&known, link));
        let partitions = Partition::all().filter(|partition| leads_here(self.gate(*partition)));
        let begun = join_all(partitions.map(|partition| self.begin(&wire, &life, partition)));
        let server = || self.dialler.url.shown_at(&address);
        let why = format!("no answer within {} ms", self.deadline().as_millis());
        let begun = timeout(self.deadline(), begun).await;
        for outcome in begun.map_err(|_| OpenError::RedisUnreachable { server: server(), why })? {
            match outcome {
                // What did not begin is begun with when it is needed.
                Ok(()) | Err(Failure::Bounced(_)) => {}
                Err(Failure::Refused(error)) if error.code() == Some("NOREPLICAS") => {}
                Err(Failure::Refused(error)) => return Err(self.dialler.refused(&address, &error)),
                Err(Failure::Lost(why) | Failure::Away(why)) => {
                    return Err(OpenError::RedisUnreachable { server: server(), why: why.to_string() });
                }
            }
        }
        if let (Finder::Sentinels(sentinels), Some(said)) = (&self.finder, said) {
            sentinels.believe(said);
        }
        link.rise(address, peer, wire);
        Ok(())
    }

    /// Says on a connection which life of its server this is, before anything else is asked of a partition.
    async fn begin(&self, wire: &Wire, life: &str, partition: Partition) -> Result<(), Failure> {
        let call = |function: &str| {
            let mut command = redis::cmd("FCALL");
            command.arg(self.library.function(function)).arg(1).arg(&self.keys[partition.index()]);
            command
        };
        let unreadable = |_| Failure::Lost("the server answers what no function of ours does".into());
        let mut known = Answer::new(wire.send(&call("life")).await?).map_err(unreadable)?;
        let word = known.word();
        let (known_life, mut mark) = (known.bytes().map_err(unreadable)?, known.bytes().map_err(unreadable)?);
        let youth = known.bytes().map_err(unreadable)?;
        word.map_err(unreadable)?;
        if known_life != life.as_bytes() || mark.is_empty() || youth.is_empty() {
            let is_young = u8::from(self.begins_young);
            let begin = wire.send(call("begin").arg(life).arg(random_mark()).arg(is_young)).await?;
            let mut begun = Answer::new(begin).map_err(unreadable)?;
            begun.word().map_err(unreadable)?;
            mark = begun.bytes().map_err(unreadable)?;
        }
        self.compare_birth(partition, &mark);
        wire.set_begun(partition, true);
        Ok(())
    }

    fn compare_birth(&self, partition: Partition, mark: &[u8]) {
        let known = self.births.borrow_mut()[partition.index()].replace(mark.to_vec());
        if known.is_some_and(|known| known != mark) && !self.has_lost.replace(true) {
            warn!(server = self.dialler.url.shown(), "the session store has lost its data");
        }
    }

    async fn open_gate(self: Rc<Self>, partition: Partition) {
        let (gate, mut wait) = (self.gate(partition), GATE_WAITS.0);
        loop {
            gate.until_landed().await;
            let Some(link) = gate.link() else {
                return gate.refuse(&format!("nobody serves partition {}", partition.0).into());
            };
            match link.wire() {
                Ok(wire) => match self.begin(&wire, &life(link.peer().as_ref()), partition).await {
                    Ok(()) => return gate.open(&wire),
                    Err(Failure::Bounced(_)) => {
                        self.is_outdated.set(true);
                        self.work.notify_one();
                    }
                    Err(Failure::Refused(error)) => return gate.refuse(&error.to_string().into()),
                    Err(Failure::Lost(why) | Failure::Away(why)) => self.lose(&wire, &why),
                },
                Err(why) if !link.is_coming() => return gate.refuse(&why),
                Err(_) => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(GATE_WAITS.1);
        }
    }

    fn is_time_to_look(&self) -> bool {
        let since = self.looked.get().elapsed();
        match &self.finder {
            Finder::Server(_) => false,
            Finder::Sentinels(_) => since >= SENTINELS_EVERY,
            Finder::Cluster(_) if self.is_outdated.get() => since >= MAP_AT_MOST_EVERY,
            Finder::Cluster(_) if self.links.borrow().iter().any(|link| !link.is_up()) => {
                since >= MAP_EVERY_AWAY
            }
            Finder::Cluster(_) => since >= MAP_EVERY,
        }
    }

    async fn look(self: Rc<Self>) {
        self.looked.set(Instant::now());
        self.is_outdated.set(false);
        match &self.finder {
            Finder::Server(_) => {}
            Finder::Sentinels(sentinels) => self.mistrust(sentinels).await,
            Finder::Cluster(nodes) => {
                let links = self.links.borrow().clone();
                let known =
                    links.iter().filter_map(|link| Some((link.address()?, link.wire().ok()?.connection())));
                let known = known.collect();
                match cluster::draw(&self.dialler, known, &nodes.all()).await {
                    Ok(map) => self.follow(&map),
                    Err(_) => self.is_outdated.set(true),
                }
            }
        }
        self.is_looking.set(false);
        self.work.notify_one();
    }

    /// A primary that was cut off, or that has come back, does not know yet that another one has taken its place.
    async fn mistrust(&self, sentinels: &Sentinels) {
        let Some(link) = self.links.borrow().first().cloned() else { return };
        let Ok(wire) = link.wire() else { return };
        if let Some(primary) = sentinels.successor(&self.dialler).await
            && !link.is_at(&primary)
        {
            self.lose(&wire, &format!("the sentinels name {primary} now"));
        }
    }

    /// Leads partitions where a map says, and lets go of nodes that have none.
    fn follow(&self, map: &Map) {
        let Finder::Cluster(nodes) = &self.finder else { return };
        nodes.learn(map);
        let mut links = self.links.borrow_mut();
        for (gate, primary) in self.gates.iter().zip(&map.primaries) {
            // During an election nobody has the slot; it may yet be who had it.
            let Some(primary) = primary else { continue };
            let former = gate.link();
            if former.as_ref().is_some_and(|link| link.is_at(primary)) {
                continue;
            }
            let found = links.iter().find(|link| link.is_at(primary)).cloned();
            let link = found.unwrap_or_else(|| {
                let link = Rc::new(Link::new(Some(primary.clone())));
                links.push(Rc::clone(&link));
                link
            });
            gate.set_link(Some(link));
            if former.is_some() && gate.close() {
                self.closed.borrow_mut().push(gate.partition());
            }
        }
        links.retain(|link| {
            let serves = map.primaries.iter().flatten().any(|primary| link.is_at(primary));
            let is_wanted = serves
                || self.gates.iter().any(|gate| gate.link().is_some_and(|known| Rc::ptr_eq(&known, link)));
            if !is_wanted {
                info!(
                    server = self.shown(link),
                    "a node of the session store serves no slots of ours any more"
                );
                link.retire("it serves no slots any more");
            }
            is_wanted
        });
        metrics::say_up(links.iter().all(|link| link.is_up()));
        self.work.notify_one();
    }
}

/// What names this start of a server. One that does not say which it is may be another each time.
fn life(peer: Option<&Peer>) -> String {
    peer.map_or_else(|| format!("?{:016x}", random()), |peer| peer.run().to_owned())
}

fn random_mark() -> Vec<u8> {
    random().to_be_bytes().to_vec()
}

/// Differs each time, and from process to process.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
