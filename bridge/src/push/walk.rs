//! A push to a group: to each of its members, page by page, with a bounded number on their way.
//!
//! ```text
//! page of members ──> member: push to a device, again while the store is away ──> tally ──> done
//!      ^ next page, once there is room in the window        └──> line, if someone listens
//! ```
//!
//! So a group of a million costs the memory of one page and one window. The walk is remembered by the push's id as a whole, its members are not:
//! whoever asks for it again after this bridge died asks for all of them again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Page, Reply, Request, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::deliver::{self, Patience};
use super::outcome::{PushOutcome, Refusal, Tally};
use super::request::{PushError, PushRequest};
use super::{STREAM_BYTES_MAX, Terms};
use crate::core::{Core, now_ms};
use crate::metrics as names;
use crate::store_requests::{Retries, ask, ask_until_taken, is_temporary};

/// Members on a page.
const PAGE_MEMBERS: u32 = 1_000;
/// Who listens to outcomes and lets a walk wait for so long in all, or takes none of a batch's for so long, is given up; a walk goes on, a batch ends.
pub(super) const LISTENER_STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where members' outcomes are told as they come.
pub(super) type Listener = mpsc::Sender<(ClientId, PushOutcome)>;

/// Pushes to every member. An error says that nobody was pushed to, or, if the store's is none that passes, only those whom it could name.
pub(super) async fn to_group(
    core: &Arc<Core>,
    group: &str,
    request: &Arc<PushRequest>,
    terms: Terms,
    listener: Option<Listener>,
) -> Result<PushOutcome, PushError> {
    let mut listening = Listening { listener, patience: LISTENER_STUCK_AFTER };
    // Never closed, so there is always a permit to come.
    let _turn = core.pushes.walks.acquire().await;
    let question = |page| Request::GroupMembers { group: group.into(), page, members_max: PAGE_MEMBERS };
    let mut page = members(ask(&*core.store, question(None)).await).map_err(PushError::Store)?;
    let window =
        core.config.push.stream_in_flight_max.min(STREAM_BYTES_MAX / request.payload.len().max(1)).max(1);
    let mut pushing = JoinSet::new();
    let mut tally = Tally::default();
    let end = loop {
        for client in page.clients {
            if pushing.len() >= window {
                settle(pushing.join_next().await, &mut tally, &mut listening).await;
            }
            pushing.spawn(to_member(Arc::clone(core), client, Arc::clone(request), terms));
        }
        let Some(next) = page.next else { break Ok(()) };
        // An error that passes is none: those before would be pushed to again.
        page = match members(ask_until_taken(&*core.store, question(Some(next))).await) {
            Ok(page) => page,
            Err(error) => break Err(error),
        };
    };
    while let Some(joined) = pushing.join_next().await {
        settle(Some(joined), &mut tally, &mut listening).await;
    }
    if let Err(error) = end {
        let members = tally.pushes();
        tracing::error!(%error, group, members, "a group's members cannot be read to their end: the rest was not pushed to");
        return Err(PushError::Store(error));
    }
    if tally.pushes() == 0 {
        return Ok(PushOutcome::Refused(Refusal::NoSuchGroup));
    }
    Ok(PushOutcome::Done(tally))
}

struct MembersPage {
    clients: Vec<ClientId>,
    next: Option<Page>,
}

fn members(answer: Result<Reply, StoreError>) -> Result<MembersPage, StoreError> {
    match answer? {
        Reply::Members { clients, next } => Ok(MembersPage { clients, next }),
        _ => Err(StoreError::Unreadable("it answered another question".to_owned())),
    }
}

/// One member's push to its outcome; a store that is away is waited for, as long as the push is of use.
async fn to_member(
    core: Arc<Core>,
    client: ClientId,
    request: Arc<PushRequest>,
    terms: Terms,
) -> (ClientId, PushOutcome) {
    let outcome = match request.topic_for(&core, &client) {
        Ok(topic) => push(&core, &client, &request, &topic, terms).await,
        Err(_) => PushOutcome::Refused(Refusal::Invalid),
    };
    metrics::counter!(names::PUSHES, "outcome" => outcome.name()).increment(1);
    (client, outcome)
}

async fn push(
    core: &Arc<Core>,
    client: &str,
    request: &PushRequest,
    topic: &str,
    terms: Terms,
) -> PushOutcome {
    let _permit = core.pushes.streamed.acquire().await;
    let message = request.message(core, topic, terms.asked_ms);
    let mut retries = Retries::new();
    loop {
        if message.view().is_expired(now_ms()) {
            return PushOutcome::Expired;
        }
        let patience = Patience { until: terms.acknowledged_within.map(|within| Instant::now() + within) };
        let collapse_key = request.collapse_key.as_deref();
        match deliver::to_device(core, client, &message, collapse_key, patience, &|| {}).await {
            Ok(outcome) => return outcome,
            Err(PushError::Store(error)) if is_temporary(&error) => retries.wait().await,
            Err(_) => return PushOutcome::Refused(Refusal::Store),
        }
    }
}

async fn settle(
    joined: Option<Result<(ClientId, PushOutcome), tokio::task::JoinError>>,
    tally: &mut Tally,
    listening: &mut Listening,
) {
    // A member's task is not aborted and does not panic.
    let Some(Ok((client, outcome))) = joined else { return };
    tally.count(outcome);
    listening.tell(client, outcome).await;
}

/// Who listens, and for how long in all the walk still waits for it: one that takes a little now and then would hold a place among the walks for as
/// long as it likes.
struct Listening {
    listener: Option<Listener>,
    patience: Duration,
}

impl Listening {
    async fn tell(&mut self, client: ClientId, outcome: PushOutcome) {
        let Some(listener) = &self.listener else { return };
        let since = Instant::now();
        if listener.send_timeout((client, outcome), self.patience).await.is_err() {
            self.listener = None;
        }
        self.patience = self.patience.saturating_sub(since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_trickles_is_given_up_as_well() {
        const MEMBERS: usize = 1_000;
        let (tell, mut told) = mpsc::channel(1);
        let mut listening = Listening { listener: Some(tell), patience: Duration::from_millis(100) };
        let trickle = tokio::spawn(async move {
            let mut count = 0;
            while told.recv().await.is_some() {
                count += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            count
        });
        for _ in 0..MEMBERS {
            listening.tell(ClientId::new("d"), PushOutcome::Delivered).await;
        }
        assert!(listening.listener.is_none());
        assert!((1..MEMBERS).contains(&trickle.await.unwrap()));
    }

    #[tokio::test]
    async fn a_listener_that_keeps_up_costs_no_patience() {
        let (tell, mut told) = mpsc::channel(1);
        let mut listening = Listening { listener: Some(tell), patience: Duration::from_mins(10) };
        for _ in 0..100 {
            listening.tell(ClientId::new("d"), PushOutcome::Delivered).await;
            assert!(told.recv().await.is_some());
        }
        assert!(listening.listener.is_some() && listening.patience > Duration::from_mins(5));
    }
}
