//! Pushes: a notification on its way down to one device or to a topic, with exactly one outcome (promise P6).
//!
//! `request` says what may be asked and answered, `body` reads it from JSON, `idempotency` sees to one outcome for each id, `deliver` brings it
//! about, [`router`] speaks HTTP; those that come by Kafka stay with `until_known`. Knows the store, the fan-out and peers; neither sockets nor
//! sinks.

pub(crate) mod body;
mod deliver;
mod http;
mod idempotency;
mod receipt;
mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use http::router;
pub(crate) use receipt::{Receipt, Source};
pub use request::{PushAnswer, PushError, PushOutcome, PushRequest, PushTarget, Refusal};

use crate::config::PushConfig;
use crate::core::{Core, now_ms};
use crate::metrics as names;
use crate::store_requests::{RETRY_MAX, RETRY_MIN, is_temporary};
use deliver::Patience;
use idempotency::{Entered, Outcomes, Standing};

/// What pushes share.
pub(crate) struct Pushes {
    outcomes: Mutex<Outcomes>,
    /// A push that came by HTTP holds a permit until its outcome is known.
    in_flight: Arc<Semaphore>,
}

impl Pushes {
    pub(crate) fn new(config: PushConfig) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            outcomes: Mutex::new(Outcomes::new(config)),
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pushes once for each id: whoever comes with an id that is known hears, or waits for, the outcome of the first. The work goes on when the caller
/// stops waiting.
pub(crate) async fn answer_within(
    core: &Arc<Core>,
    runtime: &Handle,
    request: PushRequest,
) -> Result<PushAnswer, PushError> {
    let id = request.id.clone().unwrap_or_else(|| format!("{:016x}", crate::core::random()));
    let wait = request.wait.min(core.config.push.wait_max);
    let permit = || Arc::clone(&core.pushes.in_flight).try_acquire_owned().ok();
    let mut standing = begin(core, runtime, &id, request, now_ms(), Patience::default(), || {
        permit().map(Bound::ByPermit).ok_or(PushError::Busy)
    })?;
    // Waiting is the runtime's business: the caller may be on one without timers.
    let waited = runtime.spawn(async move {
        let known = tokio::time::timeout(wait, standing.wait_for(Standing::is_known)).await;
        let known = known.map(|known| known.map(|standing| standing.clone()));
        match known {
            Ok(known) => known.unwrap_or(Standing::Known(Err(PushError::Stopped))),
            Err(_) => standing.borrow().clone(),
        }
    });
    match waited.await {
        Ok(Standing::Known(outcome)) => outcome.map(|outcome| PushAnswer { id, outcome }),
        Ok(Standing::Held) => Err(PushError::Held { id }),
        Ok(Standing::InFlight) => Err(PushError::StillInFlight { id }),
        Err(_) => Err(PushError::Stopped),
    }
}

/// Pushes once for each id, and stays with it until its outcome is known; a store that is away is waited for. An error says that this push can have
/// none: it is not valid, its id belongs to another one, the store cannot be read, or the bridge stops. Its time to live counts from `asked_ms`.
/// The caller bounds how many there are, and runs on the bridge's runtime.
pub(crate) async fn until_known(
    core: &Arc<Core>,
    id: &str,
    request: PushRequest,
    asked_ms: u64,
    acknowledged_within: Duration,
) -> Result<PushOutcome, PushError> {
    let mut retry_after = RETRY_MIN;
    loop {
        let patience = Patience { until: Some(Instant::now() + acknowledged_within) };
        let runtime = Handle::current();
        let mut standing =
            begin(core, &runtime, id, request.clone(), asked_ms, patience, || Ok(Bound::ByCaller))?;
        let known = match standing.wait_for(Standing::is_known).await {
            Ok(standing) => standing.clone(),
            Err(_) => return Err(PushError::Stopped),
        };
        match known {
            Standing::Known(Err(PushError::Store(error))) if is_temporary(&error) => {
                metrics::counter!(names::STORE_RETRIES).increment(1);
                tokio::time::sleep(retry_after).await;
                retry_after = (retry_after * 2).min(RETRY_MAX);
            }
            Standing::Known(outcome) => return outcome,
            Standing::InFlight | Standing::Held => {}
        }
    }
}

/// What bounds the number of pushes like this one.
enum Bound {
    ByPermit(#[expect(dead_code, reason = "held for what its end does")] OwnedSemaphorePermit),
    ByCaller,
}

/// Carries a push out, unless its id is known; says where to see how it stands.
fn begin(
    core: &Arc<Core>,
    runtime: &Handle,
    id: &str,
    request: PushRequest,
    asked_ms: u64,
    patience: Patience,
    bound: impl FnOnce() -> Result<Bound, PushError>,
) -> Result<watch::Receiver<Standing>, PushError> {
    let message = request.message(core, asked_ms)?;
    let entered = core.pushes.outcomes().enter(id, request.fingerprint(), Instant::now())?;
    let (tell, standing) = match entered {
        Entered::Known(standing) => return Ok(standing),
        Entered::First(tell, standing) => (tell, standing),
    };
    let bound = bound().inspect_err(|_| core.pushes.outcomes().forget(id))?;
    let (core, id) = (Arc::clone(core), id.to_owned());
    runtime.spawn(async move {
        let outcome = match &request.target {
            PushTarget::Device(client) => deliver::to_device(&core, client, &message, patience, &tell).await,
            PushTarget::Topic(_) => deliver::to_topic(&core, &message).await,
        };
        match &outcome {
            Ok(outcome) => {
                metrics::counter!(names::PUSHES, "outcome" => outcome.name()).increment(1);
                if matches!(bound, Bound::ByPermit(_))
                    && let Some(receipts) = core.books.receipts.get()
                {
                    receipts.note(&Receipt::of(&id, &request.target, *outcome, now_ms()));
                }
            }
            // Nobody was promised anything, so the same id may try again.
            Err(_) => core.pushes.outcomes().forget(&id),
        }
        tell.send_replace(Standing::Known(outcome));
        drop(bound);
    });
    Ok(standing)
}
