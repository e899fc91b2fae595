//! The node's right to own sessions, renewed each second in the store.
//!
//! What the store says of it concerns the shards, and they are told: that the store has lost its data (it does not know a lease which it had renewed), that it
//! answers again after a while, and that the node was declared dead. A process that did not run for longer than its lease may have been declared dead
//! meanwhile: its shards hold until the store has said whether it was ([`Lease::await_word`]). One whose lease had run out before, as the store was away, holds after
//! a shorter sleep too, until the store has said so or has turned out to be away still. A store that is merely away holds up nobody who runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use holdfast_engine::LeaseWord;
use holdfast_store::contract::{Reply, Request, Store, StoreError};
use holdfast_wire::ids::NodeId;
use tokio::time::MissedTickBehavior;

use crate::mailbox::Mailbox;
use crate::shard::Letter;
use crate::shard::clock::Clock;

/// How far the store is behind with the node's lease; at the same time the proof that the store answers.
pub(crate) struct Lease {
    node: NodeId,
    clock: Clock,
    store: Arc<dyn Store>,
    /// Set once, before any shard runs.
    shards: OnceLock<Vec<Mailbox<Letter>>>,
    /// When the last renewal that succeeded was asked for, in ms of `clock`; 0 for none.
    renewed_at_ms: AtomicU64,
    state: Mutex<State>,
    /// A renewal was answered.
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Renewals that the store has not answered, by number. Bounded by its deadline: one a second, and one for each shard that asks.
    open: BTreeSet<u64>,
    last: u64,
    /// When the last one was asked for, in ms.
    asked_at_ms: u64,
    /// When the latest one was asked for that the store could not answer, in ms.
    failed_at_ms: u64,
    /// The last one that was answered was not confirmed.
    is_interrupted: bool,
    is_buried: bool,
}

/// What the lease is worth to a process that did not run for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// As much as before.
    Short,
    /// It ran out, or has had the time to be lost and won again: whether the node lives only the store can say.
    Outslept,
    /// It had run out before, as the store was away. If the store still is, nothing has changed; if it came back, others may have declared the node dead.
    Lapsed,
}

/// Whether the node may own sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The store has not said.
    Unknown,
    /// It may.
    Renewed,
    /// It was declared dead.
    Buried,
}

/// The lease runs out this long after its last renewal; then another process may declare the node dead.
const LEASE_MS: u32 = 5_000;

/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// A store that has confirmed no renewal for so long does not count as answering.
const FRESH_MS: u64 = 3_000;

/// A busy machine delays a thread by less than this; a process that comes to itself later than that did not run, in ms.
const NOTICEABLE_MS: u64 = 1_000;

impl Lease {
    /// Not renewed yet.
    pub(crate) fn new(node: NodeId, clock: Clock, store: Arc<dyn Store>) -> Self {
        Self {
            node,
            clock,
            store,
            shards: OnceLock::new(),
            renewed_at_ms: AtomicU64::new(0),
            state: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    /// These are the shards that are told.
    pub(crate) fn tell(&self, shards: Vec<Mailbox<Letter>>) {
        // There is one node to one lease, so there are no others.
        let _ = self.shards.set(shards);
    }

    /// Whether the store confirmed it lately.
    pub(crate) fn is_fresh(&self) -> bool {
        let renewed_at_ms = self.renewed_at_ms.load(Ordering::Relaxed);
        renewed_at_ms > 0 && self.now_ms().saturating_sub(renewed_at_ms) <= FRESH_MS
    }

    /// Renews it for as long as the task lives. Never waits for an answer: a store that hangs must not keep the next
    /// attempt from being made, and bounds the open ones by its own deadline.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut renewals = tokio::time::interval(RENEW_EVERY);
        // Not all those that a process missed while it did not run.
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewals.tick().await;
            self.renew(None);
        }
    }

    /// Renews it now and tells the shard ([`Letter::Lease`]) what came of that.
    pub(crate) fn ask(self: &Arc<Self>, shard: Mailbox<Letter>) {
        self.renew(Some(shard));
    }

    /// What a sleep of `slept_ms` does to the lease of a process that ran last at `before_ms` and had meant to sleep for `meant_ms` of its own: the lease grows
    /// old in that, too.
    pub(crate) fn judge_sleep(&self, before_ms: u64, meant_ms: u64, slept_ms: u64) -> Sleep {
        let age_ms = (before_ms + meant_ms).saturating_sub(self.renewed_at_ms.load(Ordering::Relaxed));
        let lease_ms = u64::from(LEASE_MS);
        if slept_ms < NOTICEABLE_MS || age_ms + slept_ms <= lease_ms {
            Sleep::Short
        } else if slept_ms > lease_ms || age_ms <= lease_ms {
            Sleep::Outslept
        } else {
            Sleep::Lapsed
        }
    }

    /// What the store says to a renewal that was asked for at `since_ms` or later; waits for it for at most `within`. Asks by itself, if nobody has.
    pub(crate) fn await_word(self: &Arc<Self>, since_ms: u64, within: Duration) -> Standing {
        let standing = |state: &State| {
            if state.is_buried {
                Standing::Buried
            } else if self.renewed_at_ms.load(Ordering::Relaxed) >= since_ms {
                Standing::Renewed
            } else {
                Standing::Unknown
            }
        };
        if self.state().asked_at_ms < since_ms {
            self.renew(None);
        }
        let (state, _) = self
            .answered
            .wait_timeout_while(self.state(), within, |state| standing(state) == Standing::Unknown)
            .unwrap_or_else(PoisonError::into_inner);
        standing(&state)
    }

    /// Whether the store could not answer a renewal that was asked for at `since_ms` or later.
    pub(crate) fn has_failed_since(&self, since_ms: u64) -> bool {
        self.state().failed_at_ms >= since_ms
    }

    fn renew(self: &Arc<Self>, asker: Option<Mailbox<Letter>>) {
        // At least 1, which tells it from "never".
        let asked_at_ms = self.now_ms().max(1);
        let number = {
            let mut state = self.state();
            state.last += 1;
            state.asked_at_ms = state.asked_at_ms.max(asked_at_ms);
            let number = state.last;
            state.open.insert(number);
            number
        };
        let lease = Arc::clone(self);
        let confirm = move |result| {
            let word = lease.handle_answer(number, asked_at_ms, &result);
            if let Some(asker) = asker {
                asker.post(Letter::Lease(word));
            }
        };
        self.store.submit(Request::RenewLease { node: self.node, for_ms: LEASE_MS }, Box::new(confirm));
    }

    /// The store answered a renewal. Returns what whoever asked is to hear.
    fn handle_answer(&self, number: u64, asked_at_ms: u64, result: &Result<Reply, StoreError>) -> LeaseWord {
        let mut state = self.state();
        state.open.remove(&number);
        let word = match result {
            Ok(Reply::Renewed { known }) => {
                let was_renewed = self.renewed_at_ms.fetch_max(asked_at_ms, Ordering::Relaxed) > 0;
                let was_interrupted = std::mem::take(&mut state.is_interrupted);
                if was_renewed && !*known {
                    tracing::warn!(
                        "the session store has lost its data; the sessions of connected devices are written back"
                    );
                    self.tell_all(LeaseWord::Forgotten);
                } else if was_interrupted {
                    self.tell_all(LeaseWord::Recovered);
                }
                // An earlier one may bring the word that this one does not, as the store knows the lease since.
                if state.open.first().is_some_and(|open| *open < number) {
                    LeaseWord::Unanswered
                } else {
                    LeaseWord::Renewed
                }
            }
            Err(StoreError::Fenced) => {
                if !std::mem::replace(&mut state.is_buried, true) {
                    tracing::error!(
                        "this node was declared dead while it did not run or could not reach the session store; it closes all connections and ends"
                    );
                    self.tell_all(LeaseWord::Buried);
                }
                LeaseWord::Buried
            }
            Ok(_) | Err(_) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "the lease was not renewed");
                }
                state.is_interrupted = true;
                state.failed_at_ms = state.failed_at_ms.max(asked_at_ms);
                LeaseWord::Unanswered
            }
        };
        drop(state);
        self.answered.notify_all();
        word
    }

    fn tell_all(&self, word: LeaseWord) {
        for shard in self.shards.get().into_iter().flatten() {
            shard.post(Letter::Lease(word));
        }
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().monotonic_ms
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use holdfast_store::ReplyTo;
    use mio::{Poll, Token, Waker};

    use super::*;

    /// A store that answers when the test does.
    #[derive(Default)]
    struct Silent(Mutex<VecDeque<ReplyTo>>);

    impl Store for Silent {
        fn submit(&self, _request: Request, reply: ReplyTo) {
            self.0.lock().unwrap().push_back(reply);
        }
    }

    impl Silent {
        fn answers(&self, answer: Result<Reply, StoreError>) {
            let reply = self.0.lock().unwrap().pop_front().expect("something was asked");
            reply(answer);
        }
    }

    struct Scene {
        lease: Arc<Lease>,
        store: Arc<Silent>,
        shard: Mailbox<Letter>,
        _poll: Poll,
    }

    fn scene() -> Scene {
        let store = Arc::new(Silent::default());
        let poll = Poll::new().unwrap();
        let shard = Mailbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let lease = Arc::new(Lease::new(NodeId(1), Clock::start(), Arc::clone(&store) as Arc<dyn Store>));
        lease.tell(vec![shard.clone()]);
        Scene { lease, store, shard, _poll: poll }
    }

    /// Renewed, with what was known of it; or no answer in time.
    fn answer(known: Option<bool>) -> Result<Reply, StoreError> {
        known.map(|known| Reply::Renewed { known }).ok_or_else(|| StoreError::Unavailable("away".to_owned()))
    }

    impl Scene {
        fn heard(&self) -> Vec<LeaseWord> {
            let mut letters = VecDeque::new();
            self.shard.take(&mut letters);
            letters
                .into_iter()
                .map(|letter| match letter {
                    Letter::Lease(word) => word,
                    other => panic!("{other:?} is not of the lease"),
                })
                .collect()
        }
    }

    #[test]
    fn a_store_that_does_not_know_a_renewed_lease_has_lost_its_data() {
        let scene = scene();
        scene.lease.renew(None);
        scene.store.answers(answer(Some(false)));
        assert_eq!(scene.heard(), [], "the first one cannot be known");
        scene.lease.renew(None);
        scene.store.answers(answer(Some(true)));
        assert_eq!(scene.heard(), []);
        scene.lease.renew(None);
        scene.store.answers(answer(Some(false)));
        assert_eq!(scene.heard(), [LeaseWord::Forgotten]);
    }

    #[test]
    fn a_store_that_answers_again_is_told_of_once() {
        let scene = scene();
        for given in [answer(Some(false)), answer(None), answer(None), answer(Some(true)), answer(Some(true))]
        {
            scene.lease.renew(None);
            scene.store.answers(given);
        }
        assert_eq!(scene.heard(), [LeaseWord::Recovered]);
    }

    #[test]
    fn who_asks_is_answered_unless_an_earlier_renewal_may_say_more() {
        let scene = scene();
        scene.lease.ask(scene.shard.clone());
        scene.store.answers(answer(Some(false)));
        assert_eq!(scene.heard(), [LeaseWord::Renewed]);
        scene.lease.renew(None);
        scene.lease.ask(scene.shard.clone());
        let earlier = scene.store.0.lock().unwrap().pop_front().unwrap();
        scene.store.answers(answer(Some(true)));
        assert_eq!(scene.heard(), [LeaseWord::Unanswered]);
        earlier(answer(Some(false)));
        assert_eq!(scene.heard(), [LeaseWord::Forgotten]);
    }

    #[test]
    fn a_burial_is_told_once_and_holds() {
        let scene = scene();
        scene.lease.renew(None);
        scene.store.answers(answer(Some(false)));
        for _ in 0..2 {
            scene.lease.renew(None);
            scene.store.answers(Err(StoreError::Fenced));
        }
        assert_eq!(scene.heard(), [LeaseWord::Buried]);
        assert_eq!(scene.lease.await_word(0, Duration::ZERO), Standing::Buried);
    }

    #[test]
    fn a_lease_is_outslept_by_a_process_that_did_not_run_for_it_and_not_by_an_absence_of_the_store() {
        let scene = scene();
        scene.lease.renewed_at_ms.store(10_000, Ordering::Relaxed);
        let sleep = |before_ms, slept_ms| scene.lease.judge_sleep(before_ms, 0, slept_ms);
        assert_eq!(sleep(10_900, 900), Sleep::Short, "a busy machine");
        assert_eq!(sleep(10_900, 4_000), Sleep::Short, "it is still good");
        assert_eq!(sleep(10_900, 4_200), Sleep::Outslept);
        assert_eq!(sleep(10_900, 60_000), Sleep::Outslept);
        // Both end at 15,800, which is beyond the lease: one woke after a second that it had meant to sleep.
        assert_eq!(sleep(10_900, 4_900), Sleep::Outslept);
        assert_eq!(scene.lease.judge_sleep(10_900, 1_000, 3_900), Sleep::Outslept);
        assert_eq!(sleep(40_000, 900), Sleep::Short, "the store is away, and the machine busy");
        assert_eq!(sleep(40_000, 4_000), Sleep::Lapsed, "the store was away before");
        assert_eq!(sleep(40_000, 6_000), Sleep::Outslept, "it may have come back meanwhile");
    }

    #[test]
    fn a_store_that_is_away_after_a_sleep_says_so_but_not_by_what_it_was_asked_before() {
        let scene = scene();
        scene.lease.renew(None);
        let since_ms = scene.lease.now_ms() + 2;
        while scene.lease.now_ms() < since_ms {
            std::thread::yield_now();
        }
        scene.store.answers(answer(None));
        assert!(!scene.lease.has_failed_since(since_ms));
        // It asks by itself.
        assert_eq!(scene.lease.await_word(since_ms, Duration::ZERO), Standing::Unknown);
        scene.store.answers(answer(None));
        assert!(scene.lease.has_failed_since(since_ms));
        assert_eq!(scene.lease.await_word(since_ms, Duration::ZERO), Standing::Unknown);
    }

    #[test]
    fn only_an_answer_to_a_later_renewal_counts_after_a_sleep() {
        let scene = scene();
        scene.lease.renew(None);
        let since_ms = scene.lease.now_ms() + 2;
        while scene.lease.now_ms() < since_ms {
            std::thread::yield_now();
        }
        scene.store.answers(answer(Some(true)));
        assert_eq!(scene.lease.await_word(since_ms, Duration::ZERO), Standing::Unknown);
        // It has asked by itself.
        scene.store.answers(answer(Some(true)));
        assert_eq!(scene.lease.await_word(since_ms, Duration::ZERO), Standing::Renewed);
    }
}
