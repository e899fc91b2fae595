//! Pushes: a notification on its way down to one device, to a topic or to a group, with exactly one outcome (promise P6).
//!
//! `request` says what may be asked and `outcome` what is answered, `body` reads it from JSON, `idempotency` sees to one outcome for each id,
//! `carry` takes it there over as many tries as it takes, `deliver` to a device or a topic, `walk` to a group; `http` speaks HTTP; those that come by
//! Kafka or in a batch stay with `until_known`.
//! Knows the store, the fan-out and peers; neither sockets nor sinks.

pub(crate) mod body;
mod carry;
mod deliver;
mod http;
mod idempotency;
mod outcome;
mod receipt;
mod request;
mod walk;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use http::{openapi, router};
pub use outcome::{PushOutcome, Refusal, Tally};
pub(crate) use receipt::{Receipt, Source};
pub use request::{COLLAPSE_KEY_BYTES_MAX, GROUP_BYTES_MAX, PushAnswer, PushError, PushRequest, PushTarget};

use crate::config::PushConfig;
use crate::core::{Core, now_ms};
use crate::metrics as names;
use crate::store_requests::{Retries, is_temporary};
use carry::{Carry, Tries};
use idempotency::{Entered, Outcomes, Standing};
use walk::Listener;

/// Bytes of payloads that one batch, or one push to a group, has on their way at most; a single one may be larger.
const STREAM_BYTES_MAX: usize = 8 << 20;
/// Batches at the same time. Full: 503 with Retry-After.
const BATCHES_MAX: usize = 64;
/// Groups that are walked at the same time. Full: the next one waits for its turn.
const WALKS_MAX: usize = 16;

/// What pushes share.
pub(crate) struct Pushes {
    outcomes: Mutex<Outcomes>,
    /// A push that came by a request of its own holds a permit until its outcome is known.
    in_flight: Arc<Semaphore>,
    /// The same for lines of batches and members of groups, which wait for it; so they cannot keep requests out. A push to a group holds none.
    streamed: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    walks: Semaphore,
    in_flight_max: u32,
    /// True once nothing more is begun by HTTP.
    refuses: watch::Sender<bool>,
}

impl Pushes {
    pub(crate) fn new(config: PushConfig) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            streamed: Arc::new(Semaphore::new(config.in_flight_max)),
            batches: Arc::new(Semaphore::new(BATCHES_MAX)),
            walks: Semaphore::new(WALKS_MAX),
            in_flight_max: u32::try_from(config.in_flight_max).unwrap_or(u32::MAX),
            refuses: watch::Sender::new(false),
            outcomes: Mutex::new(Outcomes::new(config)),
        }
    }

    /// Begins no more pushes that come by HTTP.
    pub(crate) fn refuse(&self) {
        self.refuses.send_replace(true);
    }

    /// Whether it does.
    pub(crate) fn are_refused(&self) -> bool {
        *self.refuses.borrow()
    }

    /// Until they are refused.
    async fn until_refused(&self) {
        // The sender is at hand, so this is no error.
        let _ = self.refuses.subscribe().wait_for(|refuses| *refuses).await;
    }

    /// Until every push that came by HTTP has its outcome, and every batch its end.
    pub(crate) async fn until_done(&self) {
        for (permits, of) in [(self.in_flight_max, &self.in_flight), (BATCHES_MAX as u32, &self.batches)] {
            // Never closed.
            let _ = of.acquire_many(permits).await;
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a push is carried out, beyond what it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// When it was asked for, in ms of Unix time: its time to live counts from there.
    pub(crate) asked_ms: u64,
    /// How long a device that stays connected may take to acknowledge; none: as long as the push and the connection live.
    pub(crate) acknowledged_within: Option<Duration>,
    /// Whether its receipt is seen to elsewhere.
    pub(crate) has_receipt: bool,
    /// Whether someone may ask for it again: its id was given, or is told before its outcome is.
    pub(crate) is_remembered: bool,
}

/// Pushes once for each id: whoever comes with an id that is known hears, or waits for, the outcome of the first. The work goes on when the caller
/// stops waiting.
pub(crate) async fn answer_within(
    core: &Arc<Core>,
    runtime: &Handle,
    request: PushRequest,
) -> Result<PushAnswer, PushError> {
    let wait = request.wait.min(core.config.push.wait_max);
    let (id, mut standing) = begin_by_request(core, runtime, request, None)?;
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

/// Begins a push that came by a request of its own, unless its id is known; says where to see how it stands.
fn begin_by_request(
    core: &Arc<Core>,
    runtime: &Handle,
    request: PushRequest,
    listener: Option<Listener>,
) -> Result<(String, watch::Receiver<Standing>), PushError> {
    let id = request.id.clone().unwrap_or_else(fresh_id);
    // Members of a group wait for each other, so none may keep the others waiting for ever.
    let is_group = matches!(request.target, PushTarget::Group(_));
    let acknowledged_within = is_group.then_some(core.config.push.acknowledged_within);
    let terms = Terms { asked_ms: now_ms(), acknowledged_within, has_receipt: false, is_remembered: true };
    let permit = || {
        if core.pushes.are_refused() {
            return Err(PushError::Stopped);
        }
        Arc::clone(&core.pushes.in_flight).try_acquire_owned().map_err(|_| PushError::Busy)
    };
    let carry = Carry { request: Arc::new(request), terms, listener, tries: Tries::One };
    let standing = begin(core, runtime, &id, carry, || permit().map(Some))?;
    Ok((id, standing))
}

/// For a push that was given none.
fn fresh_id() -> String {
    format!("{:016x}", crate::core::random())
}

/// Pushes once for each id, and stays with it until its outcome is known; a store that is away is waited for. An error says that this push can have
/// none: it is not valid, its id belongs to another one, the store cannot be read, or the bridge stops. The caller bounds how many there are, and
/// runs on the bridge's runtime.
pub(crate) async fn until_known(
    core: &Arc<Core>,
    id: &str,
    request: PushRequest,
    terms: Terms,
) -> Result<PushOutcome, PushError> {
    let request = Arc::new(request);
    let mut retries = Retries::new();
    loop {
        let carry =
            Carry { request: Arc::clone(&request), terms, listener: None, tries: Tries::UntilAnswered };
        let mut standing = begin(core, &Handle::current(), id, carry, || Ok(None))?;
        let known = match standing.wait_for(Standing::is_known).await {
            Ok(standing) => standing.clone(),
            Err(_) => return Err(PushError::Stopped),
        };
        match known {
            // Of a request of its own with the same id, which is over with it.
            Standing::Known(Err(PushError::Store(error))) if is_temporary(&error) => retries.wait().await,
            Standing::Known(outcome) => return outcome,
            Standing::InFlight | Standing::Held => {}
        }
    }
}

/// Carries a push out, unless its id is known; says where to see how it stands. `permit` is held until the outcome is known, and asked for while all
/// outcomes are locked.
fn begin(
    core: &Arc<Core>,
    runtime: &Handle,
    id: &str,
    carry: Carry,
    permit: impl FnOnce() -> Result<Option<OwnedSemaphorePermit>, PushError>,
) -> Result<watch::Receiver<Standing>, PushError> {
    let (terms, request) = (carry.terms, Arc::clone(&carry.request));
    request.check(core)?;
    let (tell, standing, permit) = if terms.is_remembered {
        match core.pushes.outcomes().enter(id, request.fingerprint(), Instant::now(), permit)? {
            Entered::Known(standing) => return Ok(standing),
            Entered::First(tell, standing, permit) => (tell, standing, permit),
        }
    } else {
        let (tell, standing) = watch::channel(Standing::InFlight);
        (tell, standing, permit()?)
    };
    let (core, id) = (Arc::clone(core), id.to_owned());
    runtime.spawn(async move {
        let held = || {
            tell.send_replace(Standing::Held);
        };
        let outcome = carry.out(&core, &held).await;
        match &outcome {
            Ok(outcome) => {
                core.pushes.outcomes().known(&id, Instant::now());
                if !terms.has_receipt
                    && let Some(receipts) = core.books.receipts.get()
                {
                    receipts.note(&Receipt::of(&id, &request.target, *outcome, now_ms()));
                }
            }
            // Nobody was promised anything, so the same id may try again.
            Err(_) => core.pushes.outcomes().forget(&id),
        }
        tell.send_replace(Standing::Known(outcome));
        drop(permit);
    });
    Ok(standing)
}
