//! Groups of shared subscriptions, reminded that their streams may hold something.
//!
//! Nobody is told of what a member gave back as it came to rest, left or was reaped, nor that a hold has ended by its time; and a word can be lost with a link
//! or a bridge, or reach members that stand still. So each group with persistent members connected whose stream holds anything is told now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::core::Core;
use crate::fanout::{InterestTable, remind};

/// How often: messages that are given back wait so long while a member with room is connected.
const REMIND_EVERY: Duration = Duration::from_secs(5);

/// Reminds all groups while this bridge is the one that reaps.
pub(super) async fn keep_reminding(core: &Arc<Core>, leads: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(REMIND_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if *leads.borrow() {
            for (group, filter) in core.read_interests(InterestTable::groups_with_readers) {
                remind(core, &group, &filter).await;
            }
        }
    }
}
