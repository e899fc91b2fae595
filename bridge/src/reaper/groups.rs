//! Groups of shared subscriptions, reminded that their streams may hold something.
//!
//! Nobody is told of what a member gave back as it came to rest, left or was reaped, nor that a hold has ended by its time; and a word can be lost with a link
//! or a bridge. So each group with persistent members connected is told now and then, another member each time. A claim that finds nothing costs the
//! store two reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::core::Core;
use crate::fanout::{InterestTable, tell_that_it_waits};

/// How often. Messages for a group that are given back wait so long at most while a member with room is connected.
const REMIND_EVERY: Duration = Duration::from_secs(5);

/// Reminds all groups while this bridge is the one that reaps.
pub(super) async fn keep_reminding(core: &Arc<Core>, leads: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(REMIND_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if *leads.borrow() {
            for (group, filter) in core.read_interests(InterestTable::groups_with_readers) {
                tell_that_it_waits(core, &group, &filter);
            }
        }
    }
}
