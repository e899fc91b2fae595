//! Wills of sessions whose owner died, on the way that all frames take: into the sink, into streams, to those who listen.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{DueWill, Reply, Request, StoreError};
use tokio::sync::{mpsc, watch};

use crate::core::{Core, now_ms};
use crate::fanout::publish;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::sink::Verdict;
use crate::store_requests::{RETRY_MAX, RETRY_MIN, ask};

/// How often the store is asked for wills that have fallen due.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Wills that are on their way at once.
const WILLS_MAX: u32 = 256;

/// Publishes what falls due while this bridge is the one that reaps. A sink that takes nothing holds up this task and nothing else.
pub(super) async fn keep_publishing(core: &Arc<Core>, leads: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(ASK_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        while *leads.borrow() && publish_due(core).await {}
    }
}

/// Publishes some; whether there may be more.
async fn publish_due(core: &Arc<Core>) -> bool {
    let wills = match ask(&*core.store, Request::DueWills { wills_max: WILLS_MAX }).await {
        Ok(Reply::Wills(wills)) => wills,
        Ok(_) => return false,
        Err(error) => {
            tracing::debug!(%error, "wills that fell due cannot be read");
            return false;
        }
    };
    let now_ms = now_ms();
    let messages: Vec<_> =
        wills.iter().map(|due| SharedMessage::new(&due.will.published(due.number, now_ms))).collect();
    let stored = store(core, &wills, &messages).await;
    for ((due, message), stored) in wills.iter().zip(&messages).zip(stored) {
        // What the sink could not store now, the store gives again later.
        if stored {
            tell(core, due, message).await;
        }
    }
    wills.len() == WILLS_MAX as usize
}

/// Stores what the topic map wants stored; says of each whether the sink is done with it.
async fn store(core: &Core, wills: &[DueWill], messages: &[SharedMessage]) -> Vec<bool> {
    let mut done = vec![true; wills.len()];
    let mut lane = core.sink.lane();
    let mut pushed = Vec::new();
    for (at, (due, message)) in wills.iter().zip(messages).enumerate() {
        let message = message.view();
        if core.topic_map.stores(message.topic) {
            let record = LogRecord {
                offset: 0,
                // In the place of the node that died, the bridge that speaks for it.
                node: NodeId(core.bridge.0),
                epoch: Epoch(due.number),
                packet_id: None,
                dup: false,
                resent: false,
                event_time_ms: 0,
                message,
            };
            lane.push(&record, false);
            pushed.push(at);
            done[at] = false;
        }
    }
    if pushed.is_empty() {
        return done;
    }
    // Each frame is in one run, so there are never more runs than frames.
    let (verdicts, mut settled) = mpsc::channel(pushed.len());
    let tell = move |frames, verdict| {
        // Whoever asked is there for as long as anything can be said.
        let _ = verdicts.try_send((frames, verdict));
    };
    if lane.send(Box::new(tell)).await.is_err() {
        return done;
    }
    let mut left = pushed.len();
    while left > 0
        && let Some((frames, verdict)) = settled.recv().await
    {
        for at in frames.start as usize..frames.end as usize {
            left -= 1;
            // One that is refused for good is heard by those who listen all the same.
            if let Some(at) = pushed.get(at) {
                done[*at] = verdict != Verdict::Withdrawn;
            }
        }
    }
    done
}

/// Brings one that is stored to streams and listeners, and strikes it out. It waits for the store as long as that takes: let go now, it would be stored
/// again.
async fn tell(core: &Arc<Core>, due: &DueWill, message: &SharedMessage) {
    let mut retry_after = RETRY_MIN;
    loop {
        match published(core, due, message).await {
            Ok(()) => return metrics::counter!(names::REAPED_WILLS).increment(1),
            Err(StoreError::Unavailable(_)) => {
                tokio::time::sleep(retry_after).await;
                retry_after = (retry_after * 2).min(RETRY_MAX);
            }
            Err(error) => {
                return tracing::warn!(client = %due.client, %error, "a will is stored, but not heard by all");
            }
        }
    }
}

async fn published(core: &Arc<Core>, due: &DueWill, message: &SharedMessage) -> Result<(), StoreError> {
    let heard = match publish(core, message).await {
        Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
        heard => heard.map(drop),
    };
    // Where the store has no room it will have none for the next attempt either.
    ask(&*core.store, Request::WillPublished { client: due.client.clone(), number: due.number }).await?;
    heard
}
