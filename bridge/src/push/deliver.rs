//! Brings a push to its outcome.
//!
//! ```text
//! lookup ── no session ───────────────────────────────────────────────> refused
//!   ├── connected ──> its shard ──> report ───────────────────────────> delivered, expired, refused
//!   │                    └── connection or link lost, session moved ─┐
//!   └── away ──────────────────────────────────────────────────────> stream of the device ──> queued
//! ```

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, SessionInfo, StoreError};
use holdfast_wire::topic::matches;

use super::request::{PushError, PushOutcome, Refusal};
use crate::core::{Core, now_ms};
use crate::fanout;
use crate::link::Peer;
use crate::metrics as names;
use crate::store_requests::{ask, ask_until_answered};

/// How often and how long in all the link of a connected session's shard is waited for: 2 s.
const LINK_TRIES: u32 = 80;
const LINK_TRY_EVERY: Duration = Duration::from_millis(25);

/// Owners that are asked in a row before a session that keeps moving is taken for away.
const OWNERS_MAX: usize = 4;

/// Pushes to all that subscribe to the message's topic.
pub(super) async fn to_topic(core: &Arc<Core>, message: &SharedMessage) -> Result<PushOutcome, PushError> {
    let published = fanout::publish(core, message).await.map_err(PushError::Store)?;
    Ok(PushOutcome::Accepted { shards: published.shards, streams: published.streams })
}

/// Pushes to one device. An error only before anything was sent; from then on the store is asked until it answers, since the push
/// may have arrived.
pub(super) async fn to_device(
    core: &Arc<Core>,
    client: &str,
    message: &SharedMessage,
) -> Result<PushOutcome, PushError> {
    let refused = |refusal| Ok(PushOutcome::Refused(refusal));
    let lookup = || Request::Lookup { client: ClientId::new(client) };
    let Some(mut session) = session(ask(&*core.store, lookup()).await.map_err(PushError::Store)?) else {
        return refused(Refusal::NoSuchSession);
    };
    for _ in 0..OWNERS_MAX {
        let Some(peer) = connected_peer(core, client, &mut session).await else { break };
        match deliver(&peer, client, message).await {
            Some(Outcome::Delivered) => return Ok(PushOutcome::Delivered),
            Some(Outcome::Kept) => return Ok(PushOutcome::Queued),
            Some(Outcome::Expired) => return Ok(PushOutcome::Expired),
            Some(Outcome::NotSubscribed) => return refused(Refusal::NotSubscribed),
            Some(Outcome::QueueFull) => return refused(Refusal::QueueFull),
            Some(Outcome::TooLarge) => return refused(Refusal::TooLarge),
            Some(Outcome::RefusedByDevice) => return refused(Refusal::ByDevice),
            Some(Outcome::NotHere | Outcome::ConnectionLost) | None => {}
        }
        let Ok(reply) = ask_until_answered(&*core.store, lookup()).await else { break };
        let former = session.owner;
        session = match self::session(reply) {
            Some(found) => found,
            None => return refused(Refusal::NoSuchSession),
        };
        if session.owner == former {
            // The store has not heard yet that the connection is gone.
            break;
        }
    }
    Ok(keep(core, client, &session, message).await)
}

/// Leaves it to the session of a device that is away.
async fn keep(core: &Core, client: &str, session: &SessionInfo, message: &SharedMessage) -> PushOutcome {
    let view = message.view();
    if !session.persistent || view.qos == QoS::AtMostOnce {
        return PushOutcome::Refused(Refusal::NoSuchSession);
    }
    let hears = |filter: &str, qos| qos > QoS::AtMostOnce && matches(filter, view.topic);
    if !session.subscriptions.iter().any(|subscription| hears(&subscription.filter, subscription.qos)) {
        return PushOutcome::Refused(Refusal::NotSubscribed);
    }
    if view.is_expired(now_ms()) {
        return PushOutcome::Expired;
    }
    let request =
        Request::Append { streams: vec![StreamKey::Device(client.into())], message: message.clone() };
    let positions = match ask_until_answered(&*core.store, request).await {
        Ok(Reply::Appended(positions)) if !positions.is_empty() => positions,
        Ok(_) => return PushOutcome::Refused(Refusal::NoSuchSession),
        Err(StoreError::Full(_)) => return PushOutcome::Refused(Refusal::QueueFull),
        Err(error) => {
            tracing::warn!(%error, "a push cannot be queued");
            return PushOutcome::Refused(Refusal::NoSuchSession);
        }
    };
    // It may have come back, and read its stream, just before the append. Its session knows the position and takes the
    // message once.
    let lookup = Request::Lookup { client: ClientId::new(client) };
    if let Ok(reply) = ask_until_answered(&*core.store, lookup).await
        && let Some(peer) = self::session(reply).and_then(|session| peer(core, &session))
    {
        let _ = peer.send_record(&record(0, client, positions, message)).await;
    }
    PushOutcome::Queued
}

/// Sends it to the shard and waits for its report; none if the link was lost.
async fn deliver(peer: &Peer, client: &str, message: &SharedMessage) -> Option<Outcome> {
    let (delivery, report) = peer.expect_report();
    peer.send_record(&record(delivery, client, Positions::new(), message)).await.ok()?;
    metrics::counter!(names::DELIVERIES, "target" => "device").increment(1);
    report.await.ok()
}

fn record<'a>(
    delivery: u64,
    client: &'a str,
    positions: Positions,
    message: &'a SharedMessage,
) -> ToGateway<'a> {
    ToGateway::Deliver(Deliver {
        delivery,
        target: Target::Device(client),
        positions,
        message: message.view(),
    })
}

fn session(reply: Reply) -> Option<SessionInfo> {
    match reply {
        Reply::Session(session) => session,
        _ => None,
    }
}

/// The link to the shard that holds the connection. A shard takes devices before its link stands, and while a lost one is dialled again:
/// it is waited for a moment, as the session is there.
async fn connected_peer(core: &Core, client: &str, session: &mut SessionInfo) -> Option<Arc<Peer>> {
    for _ in 0..LINK_TRIES {
        if let Some(peer) = peer(core, session) {
            return Some(peer);
        }
        session.owner?;
        tokio::time::sleep(LINK_TRY_EVERY).await;
        let lookup = Request::Lookup { client: ClientId::new(client) };
        *session = self::session(ask_until_answered(&*core.store, lookup).await.ok()?)?;
    }
    None
}

fn peer(core: &Core, session: &SessionInfo) -> Option<Arc<Peer>> {
    core.peers.of_shard(session.owner?)
}
