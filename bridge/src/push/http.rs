//! `POST /v1/push`: JSON in, JSON out; errors as RFC 9457 problems.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use serde_json::json;

use super::body;
use super::request::{PushAnswer, PushError, PushOutcome, PushRequest, Refusal};
use crate::bridge::BridgeHandle;

/// The push API, to be mounted on whatever address the operator gave it.
pub fn router(bridge: BridgeHandle) -> Router {
    let body_bytes_max = bridge.core().config.push.body_bytes_max;
    Router::new()
        .route("/v1/push", post(handle_push).fallback(refuse_method))
        .route("/v1/push/{*rest}", any(refuse_path))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(bridge)
}

async fn handle_push(
    State(bridge): State<BridgeHandle>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let config = &bridge.core().config.push;
    let body = match body {
        Ok(body) => body,
        Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("a push has at most {} bytes (push.body_bytes_max)", config.body_bytes_max);
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "The push is too large", &detail, None);
        }
        Err(rejected) => {
            let detail = rejected.body_text();
            return problem(StatusCode::BAD_REQUEST, "The push cannot be read", &detail, None);
        }
    };
    let answer = match body::read(&body, config.wait_max).and_then(|request| with_key(request, &headers)) {
        Ok(request) => bridge.push(request).await,
        Err(why) => Err(PushError::Invalid(why)),
    };
    match answer {
        Ok(answer) => outcome(&answer),
        Err(error) => refuse(&error),
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

async fn refuse_method() -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = problem(status, "The method is not known here", "a push is a POST", None);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn refuse_path() -> Response {
    problem(StatusCode::NOT_FOUND, "Nothing is here", "pushes go to /v1/push", None)
}

fn outcome(PushAnswer { id, outcome }: &PushAnswer) -> Response {
    let mut body = json!({ "id": id, "outcome": outcome.name() });
    let status = match outcome {
        PushOutcome::Delivered => StatusCode::OK,
        PushOutcome::Queued => StatusCode::ACCEPTED,
        PushOutcome::Expired => StatusCode::GONE,
        PushOutcome::Accepted { shards, streams } => {
            body["shards"] = json!(shards);
            body["streams"] = json!(streams);
            StatusCode::ACCEPTED
        }
        PushOutcome::Refused(refusal) => {
            body["reason"] = json!(refusal.name());
            match refusal {
                Refusal::QueueFull => StatusCode::TOO_MANY_REQUESTS,
                Refusal::NotSubscribed | Refusal::NotConnected | Refusal::ByDevice => StatusCode::CONFLICT,
                Refusal::NoSuchSession => StatusCode::NOT_FOUND,
                Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            }
        }
    };
    (status, axum::Json(body)).into_response()
}

fn refuse(error: &PushError) -> Response {
    let (status, title) = match error {
        PushError::Invalid(_) => (StatusCode::BAD_REQUEST, "The push cannot be understood"),
        PushError::IdReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "The id belongs to another push"),
        PushError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many pushes are in flight"),
        PushError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "The session store is unavailable"),
        PushError::Held { .. } => (StatusCode::SERVICE_UNAVAILABLE, "The store cannot take it now"),
        PushError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "The bridge is stopping"),
        PushError::StillInFlight { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "The outcome is not known yet; ask again with the same id")
        }
    };
    let id = match error {
        PushError::StillInFlight { id } | PushError::Held { id } => Some(&**id),
        _ => None,
    };
    let mut response = problem(status, title, &error.to_string(), id);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn problem(status: StatusCode, title: &str, detail: &str, id: Option<&str>) -> Response {
    let mut body =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    if let Some(id) = id {
        body["id"] = json!(id);
    }
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}
