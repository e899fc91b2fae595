//! Pushes: a notification on its way down to one device or to a topic, with exactly one outcome (promise P6).
//!
//! `request` says what may be asked and answered, `idempotency` sees to one outcome for each id, `deliver` brings it about, [`router`] speaks
//! HTTP. Knows the store, the fan-out and peers; neither sockets nor sinks.

mod deliver;
mod http;
mod idempotency;
mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use http::router;
pub use request::{PushAnswer, PushError, PushOutcome, PushRequest, PushTarget, Refusal};

use crate::config::PushConfig;
use crate::core::Core;
use crate::metrics as names;
use idempotency::{Entered, Outcomes};

/// What pushes share.
pub(crate) struct Pushes {
    outcomes: Mutex<Outcomes>,
    /// A push holds a permit until its outcome is known.
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
pub(crate) async fn push(
    core: &Arc<Core>,
    runtime: &Handle,
    request: PushRequest,
) -> Result<PushAnswer, PushError> {
    let id = request.id.clone().unwrap_or_else(|| format!("{:016x}", crate::core::random()));
    let wait = request.wait.min(core.config.push.wait_max);
    let message = request.message(core, crate::core::now_ms())?;
    let entered = core.pushes.outcomes().enter(&id, request.fingerprint(), Instant::now())?;
    let mut outcome = match entered {
        Entered::Known(outcome) => outcome,
        Entered::First(tell, outcome) => {
            let Ok(permit) = Arc::clone(&core.pushes.in_flight).try_acquire_owned() else {
                core.pushes.outcomes().forget(&id);
                return Err(PushError::Busy);
            };
            let (core, id) = (Arc::clone(core), id.clone());
            runtime.spawn(async move {
                let outcome = match &request.target {
                    PushTarget::Device(client) => deliver::to_device(&core, client, &message).await,
                    PushTarget::Topic(_) => deliver::to_topic(&core, &message).await,
                };
                match &outcome {
                    Ok(outcome) => metrics::counter!(names::PUSHES, "outcome" => outcome.name()).increment(1),
                    // Nobody was promised anything, so the same id may try again.
                    Err(_) => core.pushes.outcomes().forget(&id),
                }
                tell.send_replace(Some(outcome));
                drop(permit);
            });
            outcome
        }
    };
    // Waiting is the runtime's business: the caller may be on one without timers.
    let waited = runtime.spawn(async move {
        match tokio::time::timeout(wait, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Err(PushError::Stopped)),
            Err(_) => None,
        }
    });
    match waited.await {
        Ok(Some(outcome)) => outcome.map(|outcome| PushAnswer { id, outcome }),
        Ok(None) => Err(PushError::StillInFlight { id }),
        Err(_) => Err(PushError::Stopped),
    }
}
