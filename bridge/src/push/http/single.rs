//! `POST /v1/push`: one push, to a device, a topic or a group.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdfast_http::{Form, Kind, Operation, Problem, form, reading, whole};
use holdfast_wire::ids::ClientId;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::results::{Answer, Lines, Result as Line, Results, Wish};
use super::too_large;
use crate::bridge::BridgeHandle;
use crate::push::begin_by_request;
use crate::push::body::{self, Body};
use crate::push::idempotency::Standing;
use crate::push::outcome::{PushOutcome, Refusal, Told};
use crate::push::request::{PushAnswer, PushError, PushRequest, PushTarget};

/// Members' outcomes on their way to whoever listens.
const MEMBERS_MAX: usize = 256;

/// A member's push to its outcome.
#[derive(Serialize, JsonSchema)]
struct Member {
    /// Its client id.
    device: String,
    #[serde(flatten)]
    told: Told,
}

pub(super) async fn handle(
    State(bridge): State<BridgeHandle>,
    query: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let wish = reading::query(query)?;
    form(&headers, &[Form::Json])?;
    let config = &bridge.core().config.push;
    let body = whole(request, config.body_bytes_max, too_large(config.body_bytes_max)).await?;
    let request = body::read(&body, config.wait_max)
        .and_then(|request| with_key(request, &headers).map_err(PushError::Invalid))
        .map_err(|error| Problem::from(&error))?;
    if let Some(results) = wish.results {
        if !matches!(request.target, PushTarget::Group(_)) {
            let why = "results: only a push to a group has more than one";
            return Err(Problem::new(Kind::Invalid, why));
        }
        if results == Results::Stream {
            return stream(&bridge, request).map_err(|error| Problem::from(&error));
        }
    }
    match bridge.push(request).await {
        Ok(PushAnswer { id, outcome }) => {
            Ok((status(outcome), Json(Answer { id, told: outcome.into() })).into_response())
        }
        Err(error) => Err(Problem::from(&error)),
    }
}

/// The id may stand in a header instead.
fn with_key(mut request: PushRequest, headers: &HeaderMap) -> Result<PushRequest, String> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(request) };
    let key = key.to_str().map_err(|_| "Idempotency-Key: not visible ASCII".to_owned())?;
    body::check_id(key)?;
    if request.id.as_deref().is_some_and(|id| id != key) {
        return Err("id and Idempotency-Key differ".to_owned());
    }
    request.id = Some(key.to_owned());
    Ok(request)
}

fn status(outcome: PushOutcome) -> StatusCode {
    match outcome {
        PushOutcome::Delivered | PushOutcome::Done(_) => StatusCode::OK,
        PushOutcome::Queued | PushOutcome::Accepted { .. } => StatusCode::ACCEPTED,
        PushOutcome::Expired => StatusCode::GONE,
        PushOutcome::Refused(refusal) => match refusal {
            Refusal::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NotSubscribed | Refusal::NotConnected | Refusal::ByDevice => StatusCode::CONFLICT,
            Refusal::NoSuchSession | Refusal::NoSuchGroup => StatusCode::NOT_FOUND,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // These come in counts and receipts alone.
            Refusal::Invalid => StatusCode::BAD_REQUEST,
            Refusal::IdReused => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Store => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

/// Each member's outcome as it comes, then the whole. The push goes on when nobody reads any more.
fn stream(bridge: &BridgeHandle, request: PushRequest) -> Result<Response, PushError> {
    let (listener, members) = mpsc::channel(MEMBERS_MAX);
    let (id, standing) = begin_by_request(bridge.core(), bridge.runtime(), request, Some(listener))?;
    let (lines, response) = Lines::begin();
    bridge.runtime().spawn(tell(lines, members, id, standing));
    Ok(response)
}

async fn tell(
    lines: Lines,
    mut members: mpsc::Receiver<(ClientId, PushOutcome)>,
    id: String,
    mut standing: watch::Receiver<Standing>,
) {
    while let Some((client, outcome)) = members.recv().await {
        if !lines.tell(&Member { device: client.to_string(), told: outcome.into() }).await {
            return;
        }
    }
    let known = standing.wait_for(Standing::is_known).await.map(|standing| standing.clone());
    let line = match known {
        Ok(Standing::Known(Ok(outcome))) => Line::Known(Answer { id, told: outcome.into() }),
        Ok(Standing::Known(Err(error))) => Line::Not { problem: Problem::from(&error) },
        _ => Line::Not { problem: Problem::from(&PushError::Stopped) },
    };
    lines.tell(&line).await;
}

pub(super) fn operation(schemas: &mut SchemaGenerator) -> Operation {
    let about = "The answer waits for the outcome, at most `wait_ms`. To a group it is `done` once every member's push has its outcome; with \
        `results=stream` it is a line of JSON for each member as its outcome comes, and the whole as the last line.";
    Operation::new("post", "/v1/push", "push", "Push to a device, a topic or a group", about)
        .query::<Results>(
            schemas,
            "results",
            "To a group: each member's outcome, or their counts (the default).",
        )
        .header("Idempotency-Key", "Stands for `id`.")
        .takes::<Body>(schemas, Form::Json.content_type())
        .answers::<Answer>(schemas, 200, "`delivered`, or to a group `done`")
        .answers::<Answer>(schemas, 202, "`queued`, or to a topic `accepted`")
        .answers::<Answer>(schemas, 404, "`refused`: `no_such_session`, `no_such_group`")
        .answers::<Answer>(schemas, 409, "`refused`: `not_connected`, `not_subscribed`, `refused_by_device`")
        .answers::<Answer>(schemas, 410, "`expired`")
        .answers::<Answer>(schemas, 413, "`refused`: `too_large`")
        .answers::<Answer>(schemas, 429, "`refused`: `queue_full`")
        .streams::<Member>(
            schemas,
            "with `results=stream`: a line for each member; the last one is an answer or holds a problem",
        )
        .problems(
            schemas,
            &[
                Kind::Malformed,
                Kind::Invalid,
                Kind::TooLarge,
                Kind::UnsupportedMediaType,
                Kind::IdReused,
                Kind::Busy,
                Kind::StoreAway,
                Kind::StoreUnreadable,
                Kind::StoreFull,
                Kind::InDoubt,
                Kind::Stopping,
                Kind::InFlight,
            ],
        )
}
