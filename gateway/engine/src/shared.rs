//! What all connections of the shard share, so that handling one connection can borrow it beside that connection.

use std::collections::{BTreeMap, HashMap, VecDeque};

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::store::Request;
use rustc_hash::FxBuildHasher;

use crate::admission::Admission;
use crate::input::ConnectionId;
use crate::keeping::Keeping;
use crate::last_words::LastWords;
use crate::limits::EngineConfig;
use crate::outbox::Outbox;
use crate::output::{Action, RequestId};
use crate::ownership::Ownership;
use crate::remembered::Remembered;
use crate::requests::{Asked, PendingSubscribe, RetainedAsked};
use crate::rereading::Rereading;
use crate::stats::Stats;
use crate::stray::Strays;
use crate::takeover::asking::FormerOwners;
use crate::takeover::handed_over::HandedOver;
use crate::takeover::{Left, Unclaimed};
use crate::timers::Timers;
use crate::topics::interest::Interests;
use crate::topics::subscribers::Subscriptions;
use crate::unclosed::Unclosed;
use crate::uplink::Uplinks;
use crate::wills::Wills;

/// Everything but the connections themselves.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    /// Who we are to the store.
    pub(crate) owner: Owner,
    pub(crate) outbox: Outbox,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) uplinks: Uplinks,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) interests: Interests,
    pub(crate) timers: Timers,
    /// Questions the store has not answered. Bounded by what each connection may ask at a time; a close adds one that outlives its connection
    /// until the store answers or its deadline passes.
    pub(crate) asked: HashMap<RequestId, Asked, FxBuildHasher>,
    /// SUBSCRIBEs without their SUBACK, by ticket. Bounded by `connection::subscribe::UNANSWERED_MAX` for each connection.
    pub(crate) subscribes: HashMap<u64, PendingSubscribe, FxBuildHasher>,
    /// Pages of retained messages asked for, by token; at most one for each connection. Ordered, so that a replay from a seed asks again in the
    /// same order.
    pub(crate) retained_asked: BTreeMap<u64, RetainedAsked>,
    /// Reads of streams among `asked`.
    pub(crate) reads: u32,
    /// Sessions that are to read their streams again.
    pub(crate) rereading: Rereading,
    /// Wills on their way.
    pub(crate) wills: Wills,
    /// Those, and frames of connections that have ended.
    pub(crate) last_words: LastWords,
    /// Connections with more to send than one turn allows. At most once each for every time they were held back.
    pub(crate) behind: Vec<ConnectionId>,
    /// Persistent sessions that have something to save, and since when (monotonic ms).
    pub(crate) unsaved: VecDeque<(u64, ConnectionId)>,
    /// Sessions taken over whose former owner has not answered.
    pub(crate) former_owners: FormerOwners,
    /// What was told to next owners, for a moment.
    pub(crate) handed_over: HandedOver,
    /// What ended sessions knew, until the store has answered that it knows it too: should one be opened elsewhere meanwhile, its new owner is told. At most
    /// `endings::CLOSING_MAX`.
    pub(crate) closing: Remembered<Left>,
    /// Until when those of them are known that have another owner, in that order; of some it was asked meanwhile. One for each session that was
    /// lost within a minute.
    pub(crate) closing_until_ms: VecDeque<(u64, (ClientId, Epoch))>,
    /// What ended sessions had on its way down, until somebody else has it.
    pub(crate) keeping: Keeping,
    /// Sessions that the store could not close. Bounded like `closing`; beyond it one is left to whoever opens it next.
    pub(crate) unclosed: Unclosed,
    /// Connections whose session waits for what its former owner knows, and until when; in that order. Some of them have ended meanwhile.
    pub(crate) handovers: VecDeque<(u64, (ClientId, ConnectionId))>,
    /// Until when sessions remember what they have read, in that order: one for each connection, and some of ended ones.
    pub(crate) remembering: VecDeque<(u64, ConnectionId)>,
    /// Sessions whose connection ended before its CONNACK, until the store and the former owner have answered. At most the opens that are under way,
    /// and `takeover::UNCLAIMED_MAX`.
    pub(crate) unclaimed: BTreeMap<(ClientId, ConnectionId), Unclaimed>,
    /// Connections that wait for their session.
    pub(crate) admission: Admission,
    /// Sessions that may be ours without a connection.
    pub(crate) strays: Strays,
    /// Which sessions may not be ours any more.
    pub(crate) ownership: Ownership,
    pub(crate) stats: Stats,
    /// Room for a publication's properties while it is handled; empty in between.
    pub(crate) scratch: Vec<u8>,
    last_number: u64,
    random: u64,
}

impl Shared {
    pub(crate) fn new(config: EngineConfig, owner: Owner, links: u16, seed: u64) -> Self {
        Self {
            config,
            owner,
            outbox: Outbox::default(),
            actions: VecDeque::new(),
            uplinks: Uplinks::new(links),
            subscriptions: Subscriptions::default(),
            interests: Interests::default(),
            timers: Timers::new(),
            asked: HashMap::default(),
            subscribes: HashMap::default(),
            retained_asked: BTreeMap::new(),
            reads: 0,
            rereading: Rereading::default(),
            wills: Wills::default(),
            last_words: LastWords::default(),
            behind: Vec::new(),
            unsaved: VecDeque::new(),
            former_owners: FormerOwners::default(),
            handed_over: HandedOver::default(),
            closing: Remembered::default(),
            closing_until_ms: VecDeque::new(),
            keeping: Keeping::default(),
            unclosed: Unclosed::default(),
            handovers: VecDeque::new(),
            remembering: VecDeque::new(),
            unclaimed: BTreeMap::new(),
            admission: Admission::default(),
            strays: Strays::default(),
            ownership: Ownership::default(),
            stats: Stats::default(),
            scratch: Vec::new(),
            last_number: 0,
            random: seed,
        }
    }

    /// A number that this engine has not used for anything yet; never 0.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The next number of a sequence that the seed determines (`SplitMix64`). For names and jitter, not for secrets.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Asks the store; `asked` comes back with the answer.
    pub(crate) fn ask(&mut self, asked: Asked, body: Request) -> RequestId {
        let request = RequestId(self.number());
        self.asked.insert(request, asked);
        self.actions.push_back(Action::Store { request, body });
        request
    }
}
