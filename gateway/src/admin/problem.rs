//! Errors of the admin server as problem details (RFC 9457).
//!
//! Their `type` is the one that the push API gives the same problem, so that a program may decide by it whomever it asks; docs/pushes.md lists them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What kind of problem there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Invalid,
    NotFound,
    MethodNotAllowed,
    StoreAway,
    StoreUnreadable,
}

impl Kind {
    /// The last part of its address, its status.
    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::Invalid => ("invalid", StatusCode::BAD_REQUEST),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::StoreAway => ("store-away", StatusCode::SERVICE_UNAVAILABLE),
            Self::StoreUnreadable => ("store-unreadable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// An error response: `application/problem+json`.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
}

impl Problem {
    /// `detail` says what is wrong and, where there is one, what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status) = self.kind.row();
        let body = json!({
            "type": format!("/v1/problems/{name}"),
            "title": status.canonical_reason().unwrap_or("error"),
            "status": status.as_u16(),
            "detail": self.detail,
        });
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
