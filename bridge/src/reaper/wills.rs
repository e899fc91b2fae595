//! Wills of sessions whose owner died, on the way that all frames take: into the sink, into streams, to those who listen.

use std::sync::Arc;

use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::store::{DueWill, Reply, Request, StoreError};
use tokio::sync::mpsc;

use crate::core::{Core, now_ms};
use crate::fanout::publish;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::sink::Verdict;
use crate::store_requests::ask;

/// Wills that are on their way at once.
const WILLS_MAX: u32 = 256;

/// Publishes what has fallen due. What cannot be stored now the store gives again later.
pub(super) async fn publish_due(core: &Arc<Core>) -> Result<(), StoreError> {
    loop {
        let Reply::Wills(wills) = ask(&*core.store, Request::DueWills { wills_max: WILLS_MAX }).await? else {
            return Ok(());
        };
        let is_last = wills.len() < WILLS_MAX as usize;
        let messages: Vec<_> = wills.iter().map(|due| message(core, due)).collect();
        let stored = store(core, &wills, &messages).await;
        for ((due, message), stored) in wills.iter().zip(&messages).zip(stored) {
            if stored {
                publish(core, message).await?;
                let done = Request::WillPublished { client: due.client.clone(), number: due.number };
                ask(&*core.store, done).await?;
                metrics::counter!(names::REAPED_WILLS).increment(1);
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The will as it is published now: its expiry runs from here.
fn message(core: &Core, due: &DueWill) -> SharedMessage {
    let now_ms = now_ms();
    let expires_at_ms = match due.will.expiry_s {
        u32::MAX => 0,
        expiry_s => now_ms + u64::from(expiry_s) * 1_000,
    };
    SharedMessage::new(&Message {
        id: core.next_message_id(now_ms),
        published_at_ms: now_ms,
        expires_at_ms,
        ..due.will.message.view()
    })
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
