//! A session store that has lost its data: one line when it has, and one when what gateways write back of it is there.
//!
//! ```text
//!   sound ──(it does not know our lease, which was renewed before)──> lost ──(its filters have come to rest)──> sound
//! ```
//!
//! The lease is a gateway's, renewed as gateways do, under the bridge's own name. It owns nothing, so it means nothing to anybody else, and its end buries
//! nobody. Nothing here changes what the bridge knows of filters: what is missing for a moment is on its way back.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::ids::NodeId;
use holdfast_wire::store::{Reply, Request};
use tokio::time::MissedTickBehavior;

use crate::core::Core;
use crate::fanout::InterestTable;
use crate::store_requests::ask;

/// How often the lease is renewed, and after a loss the filters are counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it lasts: it stands for nothing, so only that it was there matters, which a store knows for a day.
const LEASE_MS: u32 = 5_000;
/// Gateways have written back what they have once as many filters were counted so often in a row. They notice the loss within a second or two.
const SAME_COUNTS: u32 = 5;
/// The same where none were counted though there were some: gateways may need longer, up to a minute for what a store still takes for its own. After
/// that nobody is left who had any.
const COUNTS_OF_NONE: u32 = 60;

/// Looks for as long as the bridge runs.
pub(crate) async fn keep_noticing(core: Arc<Core>) {
    let mut store = Memory::default();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let renew = Request::RenewLease { node: NodeId(core.bridge.0), for_ms: LEASE_MS };
        if let Ok(Reply::Renewed { known }) = ask(&*core.store, renew).await
            && store.has_lost_all(known, || core.read_interests(InterestTable::holds_durable_ones))
        {
            tracing::warn!(
                "the session store has lost its data; gateways write the sessions of connected devices back, and what only the store had is gone: sessions at rest, their queues, retained messages, groups"
            );
        }
        if store.is_lost()
            && let Ok(Reply::Filters(filters)) = ask(&*core.store, Request::DurableFilters).await
            && store.is_back(filters.len())
        {
            let filters = filters.len();
            tracing::info!(
                filters,
                "gateways have written back to the session store what they had: the filters of persistent sessions are there"
            );
        }
    }
}

/// What is known of the store's memory.
#[derive(Debug, Default)]
struct Memory {
    /// It has taken our lease before.
    was_renewed: bool,
    lost: Option<Counts>,
}

/// Filters since the loss.
#[derive(Debug, Default)]
struct Counts {
    /// There were some before it.
    some_are_due: bool,
    last: Option<usize>,
    same: u32,
}

impl Memory {
    /// It took our lease, and says whether it knew it. Whether that tells a loss; `had_filters` says what was lost.
    fn has_lost_all(&mut self, known: bool, had_filters: impl FnOnce() -> bool) -> bool {
        let is_lost = std::mem::replace(&mut self.was_renewed, true) && !known;
        if is_lost {
            let some_are_due = had_filters();
            self.lost = Some(Counts { some_are_due, ..Counts::default() });
        }
        is_lost
    }

    fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// So many filters were counted. Whether that is what there will be.
    fn is_back(&mut self, filters: usize) -> bool {
        let Some(counts) = &mut self.lost else { return false };
        let is_same = counts.last.replace(filters) == Some(filters);
        counts.same = if is_same { counts.same + 1 } else { 1 };
        let enough = if filters == 0 && counts.some_are_due { COUNTS_OF_NONE } else { SAME_COUNTS };
        let is_back = counts.same >= enough;
        if is_back {
            self.lost = None;
        }
        is_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_renewed_and_is_not_known_tells_a_loss_once() {
        let mut store = Memory::default();
        assert!(!store.has_lost_all(false, || true), "the first one cannot be known");
        assert!(!store.has_lost_all(true, || true) && !store.is_lost());
        assert!(store.has_lost_all(false, || true) && store.is_lost());
        assert!(!store.has_lost_all(true, || true) && store.is_lost());
    }

    #[test]
    fn what_is_written_back_is_there_once_its_filters_have_come_to_rest() {
        let mut store = Memory::default();
        assert!(!store.is_back(0), "nothing is lost");
        store.has_lost_all(false, || true);
        store.has_lost_all(false, || true);
        let rises = [0, 0, 0, 0, 3, 8, 8, 8, 8];
        assert!(rises.into_iter().all(|filters| !store.is_back(filters)));
        assert!(store.is_back(8) && !store.is_lost());
    }

    #[test]
    fn none_is_no_rest_while_there_were_some_and_gateways_may_be_on_their_way() {
        let mut store = Memory::default();
        for had_filters in [false, true] {
            store.has_lost_all(false, || had_filters);
            store.has_lost_all(false, || had_filters);
            let counts = if had_filters { COUNTS_OF_NONE } else { SAME_COUNTS };
            assert!((1..counts).all(|_| !store.is_back(0)));
            assert!(store.is_back(0));
        }
    }

    #[test]
    fn another_loss_begins_the_count_anew() {
        let mut store = Memory::default();
        store.has_lost_all(false, || true);
        for _ in 0..2 {
            assert!(store.has_lost_all(false, || true));
            assert!((1..SAME_COUNTS).all(|_| !store.is_back(2)));
        }
        assert!(store.is_back(2));
    }
}
