//! Whether the session store answers, as of a moment ago: all of it, or the part that one of its servers has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_store::Store;
use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Request, StoreError};
use tokio::time::MissedTickBehavior;

use crate::core::Core;

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A store that has answered nothing that was asked so lately does not count as answering.
const FRESH: Duration = Duration::from_secs(3);

/// How much of the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// As far as is known.
    All,
    /// Some of its servers do, others do not.
    Some,
    Nothing,
}

/// When it was last asked something that it answered.
pub(crate) struct StorePulse {
    begun: Instant,
    /// In ms since then.
    answered_at: AtomicU64,
}

impl StorePulse {
    /// Of a store that was opened a moment ago.
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), answered_at: AtomicU64::new(0) }
    }

    /// What the store answers. The questions here are about one name, so what only some servers answer the store says itself.
    pub(crate) fn answers(&self, store: &dyn Store) -> Answers {
        if store.is_partly_away() {
            Answers::Some
        } else if self.is_fresh() {
            Answers::All
        } else {
            Answers::Nothing
        }
    }

    fn is_fresh(&self) -> bool {
        let answered_at = Duration::from_millis(self.answered_at.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(answered_at) <= FRESH
    }

    fn note(&self, asked_at: Duration) {
        self.answered_at.fetch_max(asked_at.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Asks for as long as the bridge runs. Waits for no answer: a store that hangs must not keep the next question from being asked, and its own deadline
/// bounds how many are open.
pub(crate) async fn keep_asking(core: Arc<Core>) {
    // Nobody's name, and another one in each bridge.
    let nobody = ClientId::new(&core.bridge.to_string());
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (asked_at, asking) = (core.store_pulse.begun.elapsed(), Arc::downgrade(&core));
        core.store.submit(
            Request::Lookup { client: nobody.clone() },
            Box::new(move |answer| {
                if let Some(core) = asking.upgrade()
                    && !matches!(answer, Err(StoreError::Unavailable(_)))
                {
                    core.store_pulse.note(asked_at);
                }
            }),
        );
    }
}
