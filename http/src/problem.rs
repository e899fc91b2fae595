//! Errors as problem details (RFC 9457): every answer that is no outcome, of gateways and bridges alike.
//!
//! A problem's `type` is stable: a program may decide by it. `GET` at that address says what it means; docs/pushes.md lists them all. This table is
//! the only place where a type, its title and its status stand: answers, their explanation and the OpenAPI document are made of it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_wire::store::StoreError;
use schemars::JsonSchema;
use serde::Serialize;

const CONTENT_TYPE: &str = "application/problem+json";

/// What kind of problem there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "what each means is told by `Kind::describe`")]
pub enum Kind {
    Malformed,
    Invalid,
    NotFound,
    MethodNotAllowed,
    Timeout,
    TooLarge,
    AddressTooLong,
    UnsupportedMediaType,
    IdReused,
    HeadTooLarge,
    Busy,
    StoreAway,
    StoreUnreadable,
    StoreFull,
    InDoubt,
    Stopping,
    InFlight,
}

impl Kind {
    /// All there are, by their status.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Invalid,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::TooLarge,
        Self::AddressTooLong,
        Self::UnsupportedMediaType,
        Self::IdReused,
        Self::HeadTooLarge,
        Self::Busy,
        Self::StoreAway,
        Self::StoreUnreadable,
        Self::StoreFull,
        Self::InDoubt,
        Self::Stopping,
        Self::InFlight,
    ];

    /// The last part of its address, its status, its title.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "It cannot be read"),
            Self::Invalid => ("invalid", StatusCode::BAD_REQUEST, "It cannot be understood"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "Nothing is here"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The method is not known here")
            }
            Self::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT, "The rest of the request did not come"),
            Self::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "It is too large"),
            Self::AddressTooLong => ("address-too-long", StatusCode::URI_TOO_LONG, "The address is too long"),
            Self::UnsupportedMediaType => {
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                ("unsupported-media-type", status, "The content type is not known here")
            }
            Self::IdReused => {
                ("id-reused", StatusCode::UNPROCESSABLE_ENTITY, "The id belongs to another push")
            }
            Self::HeadTooLarge => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                ("head-too-large", status, "The head is too large")
            }
            Self::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE, "Too much is under way"),
            Self::StoreAway => {
                ("store-away", StatusCode::SERVICE_UNAVAILABLE, "The session store is unavailable")
            }
            Self::StoreUnreadable => {
                let title = "The session store holds what cannot be read";
                ("store-unreadable", StatusCode::SERVICE_UNAVAILABLE, title)
            }
            Self::StoreFull => {
                ("store-full", StatusCode::INSUFFICIENT_STORAGE, "The session store has no room")
            }
            Self::InDoubt => ("in-doubt", StatusCode::SERVICE_UNAVAILABLE, "The store cannot take it now"),
            Self::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE, "The bridge is stopping"),
            Self::InFlight => {
                let title = "The outcome is not known yet; ask again with the same id";
                ("in-flight", StatusCode::GATEWAY_TIMEOUT, title)
            }
        }
    }

    /// What it means, and what to do.
    fn meaning(self) -> &'static str {
        match self {
            Self::Malformed => {
                "The body, or one of its lines, is not JSON, or ends too early; or an escape in the address is none, or the head is no HTTP."
            }
            Self::Invalid => {
                "A field, a name or the query is not as it must be; `detail` says which, and what is allowed."
            }
            Self::NotFound => {
                "There is nothing at this address, or no session of this client, or it is not connected, or the group has no members."
            }
            Self::MethodNotAllowed => {
                "The address is right, the method is not: the Allow header says which are."
            }
            Self::Timeout => {
                "Nothing more of the body came for five minutes. What came before was carried out."
            }
            Self::TooLarge => "The body or the line is longer than allowed.",
            Self::AddressTooLong => {
                "The address has more than 65,534 bytes. A client id that needs more of them comes in the body of POST /v1/devices."
            }
            Self::UnsupportedMediaType => {
                "The body's content type, charset or encoding is none that is read here."
            }
            Self::IdReused => "Another push was asked for with this id. Give each push an id of its own.",
            Self::HeadTooLarge => {
                "The head of the request has more than 100 headers, or more than 131,072 bytes."
            }
            Self::Busy => {
                "A bound of this bridge is reached (push.in_flight_max, or 64 batches), or the gateway that holds the device's connection has no link to it now. Nothing was done; ask again later."
            }
            Self::StoreAway => {
                "The session store is away. A push went nowhere, one to a topic may have been stored; ask again."
            }
            Self::StoreUnreadable => {
                "The session store holds what this release cannot read. See to the store."
            }
            Self::StoreFull => {
                "The session store has no room for it, or the group would have too many members. A push to a topic may have been stored in part."
            }
            Self::InDoubt => {
                "The session store did not confirm that it keeps the push, and may keep it all the same. The bridge goes on trying; ask again with the same id to hear the outcome."
            }
            Self::Stopping => "This bridge is stopping. Ask another one.",
            Self::InFlight => "The outcome is not known yet. Ask again with the same id to hear it.",
        }
    }

    /// The same for a program.
    pub fn describe(self) -> Explanation {
        let (_, status, title) = self.row();
        Explanation { kind: self.address(), title, status: status.as_u16(), meaning: self.meaning() }
    }

    /// A problem's `type`.
    fn address(self) -> String {
        format!("/v1/problems/{}", self.name())
    }

    /// The last part of its address.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that it comes with.
    pub fn status(self) -> StatusCode {
        self.row().1
    }
}

impl From<&StoreError> for Kind {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::StoreFull,
            StoreError::Unreadable(_) => Self::StoreUnreadable,
            _ => Self::StoreAway,
        }
    }
}

/// What a kind of problem means.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// Which problem it is, as an address relative to the API's.
    #[serde(rename = "type")]
    kind: String,
    /// The same in words.
    title: &'static str,
    /// The HTTP status that it comes with.
    status: u16,
    /// When it comes, and what to do.
    meaning: &'static str,
}

/// A problem (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Which problem it is, as an address relative to the API's.
    #[serde(rename = "type")]
    #[schemars(extend("examples" = Kind::ALL.map(Kind::address)))]
    kind: String,
    /// The same in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong in this case.
    detail: String,
    /// The push's id, where asking again with it tells the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Where it is in a body of lines, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
}

impl Problem {
    /// `detail` says what is wrong and, where there is one, what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (_, status, title) = kind.row();
        Self {
            kind: kind.address(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            id: None,
            line: None,
        }
    }

    /// Of this push, which may be asked for again.
    #[must_use]
    pub fn of_push(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }

    /// In this line of a body of lines, counted from 1.
    #[must_use]
    pub fn at_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// Says also what was done before.
    #[must_use]
    pub fn after(mut self, done: &str) -> Self {
        self.detail.push_str(done);
        self
    }

    /// The whole answer in bytes, after which the connection is closed; for where there is no response to be made of it.
    pub(crate) fn last_answer(&self) -> Vec<u8> {
        let status = self.status_code();
        let body = self.body();
        let reason = status.canonical_reason().unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {CONTENT_TYPE}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            status.as_u16(),
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn body(&self) -> Vec<u8> {
        // Texts and numbers alone: there is nothing that could not be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        Self::new(Kind::from(error), error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status_code();
        let kind = HeaderValue::from_static(CONTENT_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, kind)], self.body()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
