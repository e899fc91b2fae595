//! `POST /v1/push`: JSON in, JSON out; errors as RFC 9457 problems.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_wire::mqtt::QoS;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::request::{PushAnswer, PushError, PushOutcome, PushRequest, PushTarget, Refusal};
use crate::bridge::BridgeHandle;

/// Longest id of a push, in bytes.
const ID_BYTES_MAX: usize = 256;

/// The push API, to be mounted on whatever address the operator gave it.
pub fn router(bridge: BridgeHandle) -> Router {
    let body_bytes_max = bridge.core().config.push.body_bytes_max;
    Router::new()
        .route("/v1/push", post(handle_push))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(bridge)
}

/// The request's body. Unknown fields are refused: a misspelled `ttl_s` must not become a push that never expires.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    device: Option<String>,
    topic: Option<String>,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    qos: Option<u8>,
    ttl_s: Option<u32>,
    content_type: Option<String>,
    #[serde(default)]
    retain: bool,
    id: Option<String>,
    wait_ms: Option<u64>,
}

async fn handle_push(State(bridge): State<BridgeHandle>, headers: HeaderMap, body: Bytes) -> Response {
    let wait_max = bridge.core().config.push.wait_max;
    let answer = match request(&headers, &body, wait_max) {
        Ok(request) => bridge.push(request).await,
        Err(why) => Err(PushError::Invalid(why)),
    };
    match answer {
        Ok(answer) => outcome(&answer),
        Err(error) => problem(&error),
    }
}

fn request(headers: &HeaderMap, body: &[u8], wait_max: Duration) -> Result<PushRequest, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (target, topic) = match (body.device, body.topic) {
        (Some(device), topic) => (PushTarget::Device(device), topic),
        (None, Some(topic)) => (PushTarget::Topic(topic), None),
        (None, None) => return Err("name a device or a topic".to_owned()),
    };
    if body.retain && matches!(target, PushTarget::Device(_)) {
        return Err("retain: only a push to a topic can be retained".to_owned());
    }
    let payload = match (body.payload, body.payload_base64) {
        (Some(_), Some(_)) => return Err("give payload or payload_base64, not both".to_owned()),
        (Some(value), None) => text(&value)?,
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| format!("payload_base64: {error}"))?
        }
        (None, None) => Vec::new(),
    };
    let qos = QoS::try_from(body.qos.unwrap_or(1)).map_err(|qos| format!("qos: {qos} is none of 0, 1, 2"))?;
    let key = match headers.get("idempotency-key").map(HeaderValue::to_str).transpose() {
        Ok(key) => key.map(str::to_owned),
        Err(_) => return Err("Idempotency-Key: not visible ASCII".to_owned()),
    };
    let id = match (body.id, key) {
        (Some(id), Some(key)) if id != key => return Err("id and Idempotency-Key differ".to_owned()),
        (id, key) => id.or(key),
    };
    if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
        return Err(format!("id: 1 to {ID_BYTES_MAX} bytes"));
    }
    Ok(PushRequest {
        target,
        topic,
        payload,
        qos,
        ttl_s: body.ttl_s,
        content_type: body.content_type,
        retain: body.retain,
        id,
        wait: body.wait_ms.map_or(wait_max, Duration::from_millis),
    })
}

/// A JSON string is meant as its text; any other value as it is written.
fn text(value: &RawValue) -> Result<Vec<u8>, String> {
    if value.get().starts_with('"') {
        let text: String = serde_json::from_str(value.get()).map_err(|error| format!("payload: {error}"))?;
        return Ok(text.into_bytes());
    }
    Ok(value.get().as_bytes().to_vec())
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
                Refusal::NotSubscribed | Refusal::ByDevice => StatusCode::CONFLICT,
                Refusal::NoSuchSession => StatusCode::NOT_FOUND,
                Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            }
        }
    };
    (status, axum::Json(body)).into_response()
}

fn problem(error: &PushError) -> Response {
    let (status, title) = match error {
        PushError::Invalid(_) => (StatusCode::BAD_REQUEST, "The push cannot be understood"),
        PushError::IdReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "The id belongs to another push"),
        PushError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many pushes are in flight"),
        PushError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "The session store is unavailable"),
        PushError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "The bridge is stopping"),
        PushError::StillInFlight { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "The outcome is not known yet; ask again with the same id")
        }
    };
    let mut body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": error.to_string() });
    if let PushError::StillInFlight { id } = error {
        body["id"] = json!(id);
    }
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
