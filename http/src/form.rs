//! How a body is written, as its content type says.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// How long the rest of a body is read after the answer that it is too long.
const UNWANTED_WITHIN: Duration = Duration::from_secs(2);

/// What a body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// No word of it, or what command line tools say without being asked.
    Unsaid,
    /// One value.
    Json,
    /// A value a line.
    JsonLines,
    /// A text a line.
    TextLines,
}

impl Form {
    /// What to send it as.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Unsaid | Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::TextLines => "text/plain",
        }
    }
}

/// How the body is written, if that is one of `known`.
pub fn form(headers: &HeaderMap, known: &[Form]) -> Result<Form, Problem> {
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

/// A body that is read at once, of at most `bytes_max` bytes, which is also the route's limit; `allowed` says so to whoever sends more. One whose length is
/// said and too much is refused at once.
pub async fn whole(request: Request, bytes_max: usize, allowed: String) -> Result<Bytes, Problem> {
    if request.body().size_hint().lower() > bytes_max as u64 {
        tokio::spawn(timeout(UNWANTED_WITHIN, pass_over(request.into_body())));
        return Err(Problem::new(Kind::TooLarge, allowed));
    }
    Bytes::from_request(request, &()).await.map_err(|rejected| not_read(&rejected, allowed))
}

/// Reads what nobody wants: with bytes unread the connection would be reset, and whoever sends them might not hear why.
async fn pass_over(mut body: Body) {
    while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
}

fn not_read(rejected: &BytesRejection, allowed: String) -> Problem {
    if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(Kind::TooLarge, allowed);
    }
    Problem::new(Kind::Malformed, "the body ends before its end")
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
