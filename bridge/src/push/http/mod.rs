//! The push API by HTTP: JSON or lines in, JSON or lines out, errors as problem details.
//!
//! | route | answers |
//! | --- | --- |
//! | `POST /v1/push` | `single`: one push, to a device, a topic or a group |
//! | `POST /v1/push/batch` | `batch`: a push a line |
//! | `GET, PUT, DELETE /v1/groups/{group}/members`, `DELETE /v1/groups/{group}` | `groups` |
//! | `GET /v1/openapi.json`, `GET /v1/problems/{problem}` | `openapi`: what all of them take and answer |

mod batch;
mod groups;
mod lines;
pub mod openapi;
mod problem;
mod results;
mod single;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};

use crate::bridge::BridgeHandle;
use crate::http::{Kind, Problem};

/// The push API, to be mounted on whatever address the operator gave it.
pub fn router(bridge: BridgeHandle) -> Router {
    let body_bytes_max = bridge.core().config.push.body_bytes_max;
    Router::new()
        .route("/v1/push", post(single::handle))
        .route("/v1/push/batch", post(batch::handle))
        .route("/v1/push/{*rest}", any(refuse_path))
        .route("/v1/groups/{group}", delete(groups::end))
        .route("/v1/groups/{group}/members", get(groups::list).put(groups::add).delete(groups::remove))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/v1/problems/{problem}", get(openapi::show_problem))
        .method_not_allowed_fallback(refuse_method)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(bridge)
}

/// 404, for a server whose routes are the bridge's.
pub async fn refuse_path() -> Response {
    Problem::new(Kind::NotFound, "GET /v1/openapi.json says what there is").into_response()
}

/// 405, likewise; the `Allow` header says which methods are known.
pub async fn refuse_method() -> Response {
    Problem::new(Kind::MethodNotAllowed, "see the Allow header, or GET /v1/openapi.json").into_response()
}

/// How a body is written, as its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// No word of it, or what command line tools say without being asked.
    Unsaid,
    Json,
    JsonLines,
    TextLines,
}

/// How the body is written, if that is one of `known`.
fn form(headers: &HeaderMap, known: &[Form]) -> Result<Form, Problem> {
    let refuse = |what: &str| Err(Problem::new(Kind::UnsupportedMediaType, what));
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refuse("send it without Content-Encoding");
    }
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let (kind, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charset.is_some_and(|charset| !["utf-8", "utf8", "us-ascii"].contains(&charset.trim_matches('"'))) {
        return refuse("send it in UTF-8");
    }
    let form = match kind.trim() {
        "" | "application/x-www-form-urlencoded" => Form::Unsaid,
        "application/json" => Form::Json,
        kind if kind.starts_with("application/") && kind.ends_with("+json") => Form::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Form::JsonLines,
        "text/plain" => Form::TextLines,
        kind => return refuse(&format!("{kind:?}; {}", names(known))),
    };
    if form != Form::Unsaid && !known.contains(&form) {
        return refuse(&format!("{kind:?}; {}", names(known)));
    }
    Ok(form)
}

fn names(known: &[Form]) -> String {
    let names: Vec<_> = known.iter().map(|form| form.content_type()).collect();
    format!("send {}", names.join(" or "))
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Unsaid | Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::TextLines => "text/plain",
        }
    }
}

/// A body that is read at once did not come, or is too large.
fn not_read(rejected: &BytesRejection, bytes_max: usize) -> Problem {
    if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large(bytes_max);
    }
    Problem::new(Kind::Malformed, "the body ends before its end")
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("at most {bytes_max} bytes (push.body_bytes_max)"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn form(content_type: &str) -> Result<Form, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(content_type.as_bytes()).unwrap());
        super::form(&headers, &[Form::Json, Form::JsonLines])
    }

    #[test]
    fn a_content_type_says_how_a_body_is_written() {
        for (content_type, expected) in [
            ("application/json; charset=UTF-8", Form::Json),
            ("application/merge-patch+json", Form::Json),
            ("application/x-ndjson", Form::JsonLines),
            ("application/x-www-form-urlencoded", Form::Unsaid),
        ] {
            assert_eq!(form(content_type), Ok(expected), "{content_type}");
        }
        for content_type in ["text/plain", "application/xml", "application/json; charset=utf-16", "\u{e9}"] {
            assert!(form(content_type).is_err(), "{content_type}");
        }
        assert_eq!(super::form(&HeaderMap::new(), &[Form::Json]), Ok(Form::Unsaid));
        let compressed = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert!(super::form(&compressed, &[Form::Json]).is_err());
    }
}
