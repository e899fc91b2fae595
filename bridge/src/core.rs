//! What all links and pushes of one bridge share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_store::Store;
use holdfast_wire::ids::BridgeId;
use holdfast_wire::mqtt::QoS;
use tokio::sync::{mpsc, watch};

use crate::books::Books;
use crate::complaints::Complaints;
use crate::config::BridgeConfig;
use crate::fanout::{AwaitedReports, InterestTable, LinkId, Owes, Owners};
use crate::link::Peers;
use crate::metrics::Counters;
use crate::pace::Pace;
use crate::push::Pushes;
use crate::sink::Sink;
use crate::store_pulse::StorePulse;
use crate::uplink::Waiter;
use crate::uplink::dedupe::Dedupe;
use crate::uplink::topic_map::{TopicMap, TopicMapError};

pub(crate) struct Core {
    pub(crate) config: BridgeConfig,
    pub(crate) bridge: BridgeId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_pulse: StorePulse,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) topic_map: TopicMap,
    pub(crate) peers: Peers,
    pub(crate) pushes: Pushes,
    pub(crate) books: Books,
    pub(crate) counters: Counters,
    pub(crate) complaints: Complaints,
    pub(crate) awaited_reports: Arc<AwaitedReports>,
    pub(crate) owners: Owners,
    /// True once the filters of persistent sessions are known: no link opens before that.
    pub(crate) ready: watch::Sender<bool>,
    /// True once links are to settle what they have and close.
    pub(crate) draining: watch::Sender<bool>,
    dedupe: Mutex<Dedupe<Waiter>>,
    interests: RwLock<InterestTable>,
    /// Whether the interest table holds anything; spares frames the lock where nobody listens.
    any_interest: AtomicBool,
    next_message_id: AtomicU64,
    next_link: AtomicU64,
    /// Each link's task holds a clone of the sender; the receiver ends when the last one has.
    pub(crate) links_open: Mutex<Option<mpsc::Sender<()>>>,
}

impl Core {
    pub(crate) fn new(
        config: BridgeConfig,
        store: Arc<dyn Store>,
        sink: Arc<dyn Sink>,
        links_open: mpsc::Sender<()>,
    ) -> Result<Self, TopicMapError> {
        Ok(Self {
            topic_map: TopicMap::new(config.topic_map.clone())?,
            bridge: BridgeId(random()),
            store,
            store_pulse: StorePulse::begin(),
            pace: Arc::new(Pace::new(sink.rest())),
            sink,
            peers: Peers::default(),
            pushes: Pushes::new(config.push.clone()),
            books: Books::default(),
            counters: Counters::new(),
            complaints: Complaints::default(),
            awaited_reports: Arc::new(AwaitedReports::new(config.group_deliveries_max)),
            owners: Owners::new(),
            ready: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            dedupe: Mutex::new(Dedupe::new(config.dedupe, random())),
            interests: RwLock::default(),
            any_interest: AtomicBool::new(false),
            next_message_id: AtomicU64::new(random()),
            next_link: AtomicU64::new(1),
            links_open: Mutex::new(Some(links_open)),
            config,
        })
    }

    pub(crate) fn dedupe(&self) -> MutexGuard<'_, Dedupe<Waiter>> {
        self.dedupe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a message owes before it is acknowledged, and whether anyone hears it.
    pub(crate) fn owes(&self, topic: &str, qos: QoS) -> Owes {
        if !self.any_interest.load(Ordering::Acquire) {
            return Owes::default();
        }
        self.read_interests(|interests| interests.owes(topic, qos))
    }

    pub(crate) fn read_interests<T>(&self, read: impl FnOnce(&InterestTable) -> T) -> T {
        read(&self.interests.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_interests(&self, change: impl FnOnce(&mut InterestTable)) {
        let mut interests = self.interests.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut interests);
        self.any_interest.store(!interests.is_empty(), Ordering::Release);
    }

    /// No other message has it, of this bridge or of another, now or before: each bridge counts from a random place of its own at each start, so two of them
    /// that number a million million messages each have one in common with a chance of about one in ten million. Never 0.
    pub(crate) fn next_message_id(&self) -> u64 {
        match self.next_message_id.fetch_add(1, Ordering::Relaxed) {
            0 => self.next_message_id(),
            id => id,
        }
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }
}

/// Now, in ms of Unix time.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A number that nobody can foretell: what seeds the standard library's hash maps comes from the system.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(SystemTime::now())
}
