//! Gateways that died: their sessions come to rest, and their wills are published.
//!
//! One bridge at a time does it, the one that holds the lock in the store. It buries a node whose lease has run out beyond doubt, which the node
//! cannot undo, then takes its sessions from it one by one. Everything may be done twice and stop anywhere: what is left undone the store
//! names again.
//!
//! Start with [`keep_reaping`]; `suspects` says who is dead, `wills` brings the last words of their clients on their way. `expired` tells of sessions whose clients
//! did not come back at all, and `groups` reminds shared subscriptions' groups of what their members left, which one bridge does as well.

mod expired;
mod groups;
mod suspects;
mod wills;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use holdfast_wire::ids::{NodeId, Owner, ShardId};
use holdfast_wire::link::{Event, EventKind};
use holdfast_wire::store::{Reply, Request, SessionEntry, StoreError};
use tokio::sync::watch;

use self::suspects::Suspects;
use crate::core::{Core, now_ms};
use crate::metrics as names;
use crate::store_requests::ask;

/// How often the reaper looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long the lock is taken: a bridge that dies is replaced after that.
const LOCK_MS: u32 = 5_000;
/// The lock is taken again after so long while sessions are reaped.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
const LOCK: &str = "reaper";
/// Sessions on one page.
const PAGE_SESSIONS: u32 = 256;
/// Sessions that are reaped at once.
const AT_ONCE: usize = 64;

/// Looks for dead nodes for as long as the bridge runs. One that drains leaves it to another.
pub(crate) async fn keep_reaping(core: Arc<Core>) {
    let mut draining = core.draining.subscribe();
    let (leads, led) = watch::channel(false);
    tokio::select! {
        () = keep_looking(&core, &leads) => {}
        () = wills::keep_publishing(&core, led.clone()) => {}
        () = expired::keep_telling(&core, led.clone()) => {}
        () = groups::keep_reminding(&core, led) => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
}

async fn keep_looking(core: &Arc<Core>, leads: &watch::Sender<bool>) {
    let mut suspects = Suspects::default();
    let mut complained = false;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let looked = look(core, &mut suspects, leads).await;
        if let Err(error) = &looked {
            suspects.clear();
            if !complained {
                tracing::info!(%error, "dead gateways cannot be looked for now");
            }
        }
        complained = looked.is_err();
    }
}

async fn look(
    core: &Arc<Core>,
    suspects: &mut Suspects,
    leads: &watch::Sender<bool>,
) -> Result<(), StoreError> {
    let is_led = take_lock(core).await;
    // Whoever has the lock goes on with the wills that the store gives out, though it may not be able to name the dead.
    leads.send_replace(is_led == Ok(true));
    if !is_led? {
        suspects.clear();
        return Ok(());
    }
    let Reply::Nodes(dead) = ask(&*core.store, Request::DeadNodes).await? else { return Ok(()) };
    for node in suspects.look(&dead, Instant::now()) {
        match reap_node(core, node).await {
            Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
            // One that cannot be reaped keeps no other from it.
            Err(error) => {
                if core.complaints.admit("reaping", Instant::now()).is_some() {
                    tracing::warn!(%node, %error, "a dead gateway's sessions cannot all be reaped");
                }
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn take_lock(core: &Core) -> Result<bool, StoreError> {
    let lock = Request::TakeLock { name: LOCK.into(), holder: core.bridge.0, for_ms: LOCK_MS };
    Ok(matches!(ask(&*core.store, lock).await?, Reply::Lock(true)))
}

/// Takes all sessions from a node, unless it turns out to live.
async fn reap_node(core: &Arc<Core>, node: NodeId) -> Result<(), StoreError> {
    match ask(&*core.store, Request::Bury { node }).await {
        // It renewed its lease in the last moment.
        Err(StoreError::Fenced) => return Ok(()),
        answer => answer?,
    };
    let (mut reaped, mut failed) = (0_u64, None);
    let (mut page, mut locked_at) = (None, Instant::now());
    loop {
        let request = Request::Sessions { owner: Some(node), page, sessions_max: PAGE_SESSIONS };
        let Reply::Sessions { sessions, next } = ask(&*core.store, request).await? else { return Ok(()) };
        let reaping = sessions.into_iter().map(|session| reap(core, session));
        let mut reaping = stream::iter(reaping).buffer_unordered(AT_ONCE);
        while let Some(done) = reaping.next().await {
            match done {
                Ok(done) => reaped += u64::from(done),
                Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
                Err(error) => failed = Some(error),
            }
        }
        let Some(next) = next else { break };
        page = Some(next);
        if locked_at.elapsed() >= LOCK_AGAIN {
            if !take_lock(core).await? {
                return Ok(());
            }
            locked_at = Instant::now();
        }
    }
    if reaped > 0 {
        tracing::warn!(%node, sessions = reaped, "a gateway died; its sessions rest until their devices come back");
    }
    failed.map_or(Ok(()), Err)
}

/// Takes one session from its dead owner. False if somebody else had it by then.
async fn reap(core: &Core, session: SessionEntry) -> Result<bool, StoreError> {
    let request = Request::Reap { client: session.client.clone(), epoch: session.epoch };
    match ask(&*core.store, request).await {
        Err(StoreError::Fenced | StoreError::Gone) => return Ok(false),
        answer => answer?,
    };
    metrics::counter!(names::REAPED_SESSIONS).increment(1);
    if let Some(book) = core.books.events.get() {
        let kind = EventKind::Disconnected { reason: "node_died", session_ended: !session.persistent };
        let event = Event { client: &session.client, epoch: session.epoch, at_ms: now_ms(), kind };
        let nobody = Owner { node: NodeId(core.bridge.0), shard: ShardId(0) };
        book.note(session.owner.unwrap_or(nobody), &event);
    }
    Ok(true)
}
