//! `POST /v1/push/batch`: a push a line in, a result a line out, in the order in which they come.
//!
//! ```text
//! body ──> line ──> window (pushes, bytes) ──> until its outcome is known ──> result ──> tally
//!                    └ full: no more is read                                    └ nobody reads: the window stays full
//! ```
//!
//! So a batch of any length costs the memory of its window. Whoever hangs up, or reads no results for a while, ends it: what has begun goes on and keeps the
//! batch's place until it is done, the rest is not read. While the bridge stops, each further line is told that it was not pushed, for a moment: a sender
//! that never ends would keep the bridge from its own end.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use holdfast_http::{Form, Kind, Operation, Problem, form, reading};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lines::{Broken, Line, LineReader};
use super::results::{Answer, Lines, Result as LineResult, Results, Wish};
use super::too_large;
use crate::bridge::BridgeHandle;
use crate::core::{Core, now_ms};
use crate::push::body::{self, Body};
use crate::push::outcome::{Counts, Refusal, Tally};
use crate::push::request::{PushError, PushRequest, PushTarget};
use crate::push::{STREAM_BYTES_MAX, Terms, fresh_id, until_known};

/// A sender that says nothing for so long while the bridge stops is not waited for.
const STOPPING_SILENT_MAX: Duration = Duration::from_secs(1);
/// Nor is one that goes on for so long, however many lines it has. Part of the half of `drain.deadline_ms` (25 s) that pushes have.
const STOPPING_MAX: Duration = Duration::from_secs(3);

/// A push's result.
#[derive(Serialize, JsonSchema)]
struct BatchLine {
    /// Its line, counted from 1.
    line: u64,
    #[serde(flatten)]
    result: LineResult,
}

/// The last line: without it, the batch was cut off.
#[derive(Serialize, JsonSchema)]
struct BatchEnd {
    /// Always true.
    end: bool,
    /// Pushes that have an outcome.
    pushes: u64,
    /// Lines that have none, each with its problem.
    problems: u64,
    /// Pushes by their outcome.
    outcomes: Counts,
    /// Those that were refused, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<BTreeMap<Refusal, u64>>,
    /// Why not all lines were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

pub(super) async fn handle(
    State(bridge): State<BridgeHandle>,
    query: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Problem> {
    let wish = reading::query(query)?;
    if bridge.core().pushes.are_refused() {
        return Err(stopping());
    }
    form(&headers, &[Form::JsonLines])?;
    if headers.contains_key("idempotency-key") {
        return Err(Problem::new(Kind::Invalid, "Idempotency-Key: each line has an id of its own"));
    }
    let core = Arc::clone(bridge.core());
    let place = Arc::clone(&core.pushes.batches)
        .try_acquire_owned()
        .map_err(|_| Problem::new(Kind::Busy, "too many batches at the same time"))?;
    let body_bytes_max = core.config.push.body_bytes_max;
    let (results, response) = Lines::begin();
    let window_max = core.config.push.stream_in_flight_max;
    let batch = Batch {
        window: Arc::new(Semaphore::new(window_max)),
        window_max,
        bytes: Arc::new(Semaphore::new(STREAM_BYTES_MAX)),
        shared: Arc::new(Shared {
            core,
            results,
            tells_each: wish.results != Some(Results::Counts),
            so_far: Mutex::default(),
            _place: place,
        }),
    };
    bridge.runtime().spawn(batch.run(LineReader::new(body, body_bytes_max)));
    Ok(response)
}

struct Batch {
    /// A permit for each push whose result is not on its way to the reader.
    window: Arc<Semaphore>,
    window_max: usize,
    /// A permit for each byte of them.
    bytes: Arc<Semaphore>,
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    results: Lines,
    tells_each: bool,
    so_far: Mutex<SoFar>,
    /// Free again with the last push that has begun: so there are never more windows than places.
    _place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct SoFar {
    tally: Tally,
    problems: u64,
}

impl Batch {
    async fn run(self, mut lines: LineReader) {
        tokio::select! {
            biased;
            // What has begun goes on in tasks of its own.
            () = self.shared.results.closed() => {}
            () = self.read(&mut lines) => {}
        }
    }

    async fn read(&self, lines: &mut LineReader) {
        let mut stopped = pin!(self.refused_for(STOPPING_MAX));
        let broken = loop {
            let line = tokio::select! {
                biased;
                // First, as a sender may always have another line.
                () = &mut stopped => break Some(stopping()),
                line = lines.next() => match line {
                    Ok(Some(line)) => line,
                    Ok(None) => break None,
                    Err(Broken::Body) => break Some(Problem::new(Kind::Malformed, "the body ends before its end")),
                    Err(Broken::Silent) => break Some(Problem::new(Kind::Timeout, "no further line came")),
                },
                () = self.refused_for(STOPPING_SILENT_MAX) => break Some(stopping()),
            };
            let permits =
                (self.permits(1, &self.window).await, self.permits(bytes(&line), &self.bytes).await);
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                shared.carry(line).await;
                drop(permits);
            });
        };
        let _all = self.permits(self.window_max, &self.window).await;
        let end = {
            let so_far = self.shared.so_far();
            BatchEnd {
                end: true,
                pushes: so_far.tally.pushes(),
                problems: so_far.problems,
                outcomes: so_far.tally.counts(),
                reasons: so_far.tally.reasons(),
                problem: broken,
            }
        };
        self.shared.results.tell(&end).await;
    }

    /// Until the bridge stops, and then a moment, from when this is first looked at.
    async fn refused_for(&self, moment: Duration) {
        self.shared.core.pushes.until_refused().await;
        tokio::time::sleep(moment).await;
    }

    /// Neither semaphore is ever closed.
    async fn permits(&self, count: usize, of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(of).acquire_many_owned(u32::try_from(count).unwrap_or(u32::MAX)).await.ok()
    }
}

/// Of a line that came too late.
fn stopping() -> Problem {
    Problem::from(&PushError::Stopped)
}

/// What a line holds of the window; one that is larger than that has it for itself.
fn bytes(line: &Line) -> usize {
    line.text.as_ref().map_or(0, |text| text.len().min(STREAM_BYTES_MAX))
}

impl Shared {
    async fn carry(&self, Line { number, text }: Line) {
        let bytes_max = self.core.config.push.body_bytes_max;
        let wait = self.core.config.push.wait_max;
        let request = match text {
            Ok(text) => body::read(&text, wait).map_err(|error| Problem::from(&error)),
            Err(_) => Err(Problem::new(Kind::TooLarge, too_large(bytes_max))),
        };
        let result = match request {
            Ok(request) => self.push(request).await,
            Err(problem) => LineResult::Not { problem },
        };
        if matches!(result, LineResult::Not { .. }) {
            self.so_far().problems += 1;
        }
        if self.tells_each {
            self.results.tell(&BatchLine { line: number, result }).await;
        }
    }

    async fn push(&self, request: PushRequest) -> LineResult {
        let given = request.id.clone();
        let terms = Terms {
            asked_ms: now_ms(),
            acknowledged_within: Some(self.core.config.push.acknowledged_within),
            has_receipt: false,
            is_remembered: given.is_some(),
        };
        let id = given.unwrap_or_else(fresh_id);
        // The members of a group take permits of their own.
        let is_group = matches!(request.target, PushTarget::Group(_));
        let _permit = if is_group { None } else { self.core.pushes.streamed.acquire().await.ok() };
        if self.core.pushes.are_refused() {
            return LineResult::Not { problem: stopping() };
        }
        match until_known(&self.core, &id, request, terms).await {
            Ok(outcome) => {
                self.so_far().tally.count(outcome);
                LineResult::Known(Answer { id, told: outcome.into() })
            }
            Err(error) => LineResult::Not { problem: Problem::from(&error) },
        }
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn operation(schemas: &mut SchemaGenerator) -> Operation {
    let about = "One push a line, as in `POST /v1/push`; each waits for its outcome, and `wait_ms` has no meaning. Results come in the order in which \
        they are known, with the number of their line; read them while you send. `results=counts` tells the last line alone. A client that \
        hangs up, or reads nothing for 30 s while results wait, ends the batch: what has begun goes on, the rest is not read. A bridge that stops brings what has \
        begun to its outcome, and tells each further line for up to 3 s that it was not pushed (problem `stopping`).";
    Operation::new("post", "/v1/push/batch", "pushBatch", "Push many, a line each", about)
        .query::<Results>(schemas, "results", "Each result (the default), or their counts.")
        .takes::<Body>(schemas, Form::JsonLines.content_type())
        .streams::<BatchLine>(schemas, "a line for each push")
        .streams::<BatchEnd>(schemas, "the last line")
        .problems(schemas, &[Kind::Invalid, Kind::UnsupportedMediaType, Kind::Busy, Kind::Stopping])
}
