//! What a message up can be refused for, and the codes by which a device hears it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::{Downlink, Id};

/// Bytes of an error's message; what the parser says beyond that, quoting the device, is cut.
const MESSAGE_BYTES_MAX: usize = 200;

/// A message that cannot be taken. The device is told by [`Error::downlink`]; the connection may stay open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Whose kind of mistake it is.
    pub code: ErrorCode,
    /// The message's id, if at least that could be read.
    pub id: Option<Id>,
    /// One line for whoever programs the device.
    pub message: Cow<'static, str>,
}

/// Why a message, or what it asked for, was refused. Its name on the wire is in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not one JSON object.
    MalformedJson,
    /// A field is missing, unknown, given twice, or of the wrong type or range.
    InvalidMessage,
    /// No such type of message.
    UnknownType,
    /// A topic name that MQTT does not allow.
    TopicInvalid,
    /// A topic filter that MQTT does not allow.
    FilterInvalid,
    /// The device may not publish or subscribe there.
    NotAuthorized,
    /// More frames are unanswered than `welcome` allows.
    ReceiveMaximumExceeded,
    /// The message, or what it carries, is larger than allowed here.
    TooLarge,
    /// A rate or a number that an administrator set is used up.
    QuotaExceeded,
    /// The frame can never be stored, for example because its Kafka topic does not exist. It is not to be sent again.
    Refused,
    /// The node cannot do this now; to be tried again later.
    ServerBusy,
    /// The node made a mistake.
    Internal,
}

impl Error {
    /// An error about a message whose id is known, if it has one.
    pub fn new(code: ErrorCode, id: Option<Id>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message = Cow::Owned(message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned());
        }
        // What the parser quotes may hold line ends, and the message may go to a log.
        if message.contains(char::is_control) {
            message = Cow::Owned(message.replace(char::is_control, " "));
        }
        Self { code, id, message }
    }

    /// What the device is told.
    pub fn downlink(&self) -> Downlink<'_> {
        Downlink::Error { id: self.id, code: self.code, message: Cow::Borrowed(&self.message) }
    }
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::MalformedJson,
        Self::InvalidMessage,
        Self::UnknownType,
        Self::TopicInvalid,
        Self::FilterInvalid,
        Self::NotAuthorized,
        Self::ReceiveMaximumExceeded,
        Self::TooLarge,
        Self::QuotaExceeded,
        Self::Refused,
        Self::ServerBusy,
        Self::Internal,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::TopicInvalid => "topic_invalid",
            Self::FilterInvalid => "filter_invalid",
            Self::NotAuthorized => "not_authorized",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::TooLarge => "too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Refused => "refused",
            Self::ServerBusy => "server_busy",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Uplink;
    use super::*;

    #[test]
    fn a_code_is_read_by_the_name_it_is_written_with() {
        for code in ErrorCode::ALL {
            let name = format!("\"{code}\"");
            assert_eq!(serde_json::from_str::<ErrorCode>(&name).expect("the name is known"), code);
        }
    }

    #[test]
    fn a_message_that_quotes_too_much_is_cut_at_a_character() {
        let error = Error::new(ErrorCode::InvalidMessage, None, "€".repeat(100));
        assert_eq!(error.message.len(), 198);
    }

    #[test]
    fn a_message_stays_on_one_line_whatever_it_quotes() {
        let error = Uplink::decode(r#"{"type":"ping","a\nb\u001b":1}"#).expect_err("there is no such field");
        assert!(error.message.contains("unknown field `a b `"), "{error}");
    }
}
