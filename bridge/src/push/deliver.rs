//! Brings a push to its outcome.
//!
//! ```text
//! lookup ── no session ───────────────────────────────────────────────> refused
//!   ├── connected ──> its shard ──> report ───────────────────────────> delivered, expired, refused
//!   │                    │ └── none before its time passed ───────────> expired
//!   │                    └── connection or link lost, session moved ─┐
//!   └── away ──────────────────────────────────────────────────────> stream of the device ──> queued, expired
//!                                                                       └── not confirmed: held, and asked again
//! ```
//! A session that is missing in a store that lost its data a moment ago is on its way back: at first that is an error, later it is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, SessionInfo, StoreError};
use holdfast_wire::topic::matches;
use tokio::time::timeout;

use super::outcome::{PushOutcome, Refusal};
use super::request::PushError;
use crate::core::{Core, now_ms};
use crate::fanout::{Publication, Published, has_lost_its_data};
use crate::link::Peer;
use crate::metrics as names;
use crate::store_requests::{Retries, ask, ask_until_answered, is_temporary};

/// How often and how long in all the link of a connected session's shard is waited for: 2 s.
const LINK_TRIES: u32 = 80;
const LINK_TRY_EVERY: Duration = Duration::from_millis(25);

/// Owners that are asked in a row before a session that keeps moving is taken for away.
const OWNERS_MAX: usize = 4;

/// Until when a device that is connected may acknowledge a push.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// None: for as long as the push and the connection live.
    pub(super) until: Option<Instant>,
}

impl Patience {
    /// None: for ever.
    fn left(self, message: &SharedMessage) -> Option<Duration> {
        let asked = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let lives = match message.view().expires_at_ms {
            0 => None,
            expires_at_ms => Some(Duration::from_millis(expires_at_ms.saturating_sub(now_ms()))),
        };
        match (asked, lives) {
            (Some(asked), Some(lives)) => Some(asked.min(lives)),
            (asked, lives) => asked.or(lives),
        }
    }
}

/// Pushes to all that subscribe to the message's topic, or goes on with it.
pub(super) async fn to_topic(
    core: &Arc<Core>,
    publication: &mut Publication,
) -> Result<PushOutcome, PushError> {
    if publication.message().view().is_expired(now_ms()) {
        return Ok(PushOutcome::Expired);
    }
    if is_never_kept(core, publication.message())
        && publication.is_to_be_kept(core).await.map_err(PushError::Store)?
    {
        return Ok(PushOutcome::Refused(Refusal::TooLarge));
    }
    let Published { shards, streams, streams_full } =
        publication.publish(core).await.map_err(PushError::Store)?;
    Ok(PushOutcome::Accepted { shards, streams, streams_full })
}

/// Pushes to one device. An error only before anything was sent, or where the store holds what cannot be read; otherwise it is asked until it
/// answers, since the push may have arrived, and `held` is told so meanwhile.
pub(super) async fn to_device(
    core: &Arc<Core>,
    client: &str,
    message: &SharedMessage,
    collapse_key: Option<&str>,
    patience: Patience,
    held: &(dyn Fn() + Sync),
) -> Result<PushOutcome, PushError> {
    let refused = |refusal| Ok(PushOutcome::Refused(refusal));
    let lookup = Request::Lookup { client: ClientId::new(client) };
    let Some(mut session) = session(ask(&*core.store, lookup).await.map_err(PushError::Store)?) else {
        if core.store.has_just_begun() {
            return Err(PushError::Store(has_lost_its_data()));
        }
        return refused(Refusal::NoSuchSession);
    };
    for _ in 0..OWNERS_MAX {
        let Some(peer) = connected_peer(core, client, &mut session, held).await else { break };
        // A record may have waited for longer than it is of use.
        if message.view().is_expired(now_ms()) {
            return Ok(PushOutcome::Expired);
        }
        match deliver(&peer, client, message, patience).await {
            Some(Outcome::Delivered) => return Ok(PushOutcome::Delivered),
            Some(Outcome::Kept) => return Ok(PushOutcome::Queued),
            Some(Outcome::Expired) => return Ok(PushOutcome::Expired),
            Some(Outcome::NotSubscribed) => return refused(Refusal::NotSubscribed),
            Some(Outcome::QueueFull) => return refused(Refusal::QueueFull),
            Some(Outcome::TooLarge) => return refused(Refusal::TooLarge),
            Some(Outcome::RefusedByDevice) => return refused(Refusal::ByDevice),
            Some(Outcome::NotHere | Outcome::ConnectionLost | Outcome::InDoubt) | None => {}
        }
        let Ok(found) = session_again(core, client, held).await else { break };
        let former = session.owner;
        session = match found {
            Some(found) => found,
            None => return refused(Refusal::NoSuchSession),
        };
        if session.owner == former {
            // The store has not heard yet that the connection is gone.
            break;
        }
    }
    keep(core, client, &session, message, collapse_key, held).await
}

/// Leaves it to the session of a device that is away.
async fn keep(
    core: &Core,
    client: &str,
    session: &SessionInfo,
    message: &SharedMessage,
    collapse_key: Option<&str>,
    held: &(dyn Fn() + Sync),
) -> Result<PushOutcome, PushError> {
    if let Some(refusal) = cannot_keep(session, message) {
        return Ok(PushOutcome::Refused(refusal));
    }
    if is_never_kept(core, message) {
        return Ok(PushOutcome::Refused(Refusal::TooLarge));
    }
    let request = Request::Append {
        streams: vec![StreamKey::Device(client.into())],
        message: message.clone(),
        collapse_key: collapse_key.map(Into::into),
    };
    let (mut retries, mut is_second) = (Retries::new(), false);
    let positions = loop {
        if message.view().is_expired(now_ms()) {
            return Ok(PushOutcome::Expired);
        }
        match ask(&*core.store, request.clone()).await {
            Ok(Reply::Appended { at: positions, .. }) if !positions.is_empty() => break positions,
            Ok(Reply::Appended { full, .. }) if !full.is_empty() => {
                return Ok(PushOutcome::Refused(Refusal::QueueFull));
            }
            // It went since the look at it: it has ended, or the store has lost it and is about to be given it back.
            Ok(_) => match session_again(core, client, held).await {
                Ok(Some(_)) if !is_second => is_second = true,
                Ok(_) => return Ok(PushOutcome::Refused(Refusal::NoSuchSession)),
                Err(error) => return Err(PushError::Store(error)),
            },
            // It may have taken effect all the same (rule 4 of the contract), so this is no outcome.
            Err(error) if is_temporary(&error) => {
                held();
                let wait = retries.next_wait();
                tokio::time::sleep(Patience::default().left(message).unwrap_or(wait).min(wait)).await;
            }
            Err(error) => return Err(PushError::Store(error)),
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
    Ok(PushOutcome::Queued)
}

/// Why a session does not keep a message for the time when its device is back.
fn cannot_keep(session: &SessionInfo, message: &SharedMessage) -> Option<Refusal> {
    let view = message.view();
    if !session.persistent {
        return Some(Refusal::NoSuchSession);
    }
    let mut matching = session
        .subscriptions
        .iter()
        .filter(|subscription| matches(&subscription.filter, view.topic))
        .peekable();
    if matching.peek().is_none() {
        return Some(Refusal::NotSubscribed);
    }
    let is_kept = view.qos > QoS::AtMostOnce && matching.any(|found| found.qos > QoS::AtMostOnce);
    (!is_kept).then_some(Refusal::NotConnected)
}

/// Whether it is larger than any stream may be; the store would say each time that it is full.
fn is_never_kept(core: &Core, message: &SharedMessage) -> bool {
    message.as_bytes().len() as u64 > core.config.push.stream_bytes_max
}

/// Sends it to the shard and waits for its report; none if the link was lost. A report that does not come in time says that it has expired.
async fn deliver(peer: &Peer, client: &str, message: &SharedMessage, patience: Patience) -> Option<Outcome> {
    let (delivery, report) = peer.expect_report();
    peer.send_record(&record(delivery, client, Positions::new(), message)).await.ok()?;
    metrics::counter!(names::DELIVERIES, "target" => "device").increment(1);
    let Some(left) = patience.left(message) else { return report.await.ok() };
    match timeout(left, report).await {
        Ok(report) => report.ok(),
        Err(_) => {
            peer.forget_report(delivery);
            Some(Outcome::Expired)
        }
    }
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

/// Looks at a session that was there a moment ago. None: it has ended. One that the store has lost since is on its way back, so it is waited for, for
/// at most the seconds in which a store says that it has just begun.
async fn session_again(
    core: &Core,
    client: &str,
    held: &(dyn Fn() + Sync),
) -> Result<Option<SessionInfo>, StoreError> {
    let mut retries = Retries::new();
    loop {
        let lookup = Request::Lookup { client: ClientId::new(client) };
        let found = session(ask_until_answered(&*core.store, lookup).await?);
        if found.is_some() || !core.store.has_just_begun() {
            return Ok(found);
        }
        held();
        retries.wait().await;
    }
}

/// The link to the shard that holds the connection. A shard takes devices before its link stands, and while a lost one is dialled again:
/// it is waited for a moment, as the session is there.
async fn connected_peer(
    core: &Core,
    client: &str,
    session: &mut SessionInfo,
    held: &(dyn Fn() + Sync),
) -> Option<Arc<Peer>> {
    for _ in 0..LINK_TRIES {
        if let Some(peer) = peer(core, session) {
            return Some(peer);
        }
        session.owner?;
        tokio::time::sleep(LINK_TRY_EVERY).await;
        *session = session_again(core, client, held).await.ok()??;
    }
    None
}

fn peer(core: &Core, session: &SessionInfo) -> Option<Arc<Peer>> {
    core.peers.of_shard(session.owner?)
}
