//! What a frame or a push carries: JSON as it was written, or bytes in base64.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// The content of a frame or a push. The payload that Kafka, MQTT and other devices see is [`Data::as_bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'a> {
    /// One JSON value, byte for byte as it was written, without space around it: the field `data`.
    Json(&'a str),
    /// Anything else: the field `data_base64`, in the standard alphabet with padding.
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Data<'a> {
    /// Sorts a payload: JSON if it is one JSON value, else bytes. Space around the value is dropped.
    pub fn from_payload(payload: &'a [u8]) -> Self {
        std::str::from_utf8(payload)
            .ok()
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
            .map_or(Self::Bytes(Cow::Borrowed(payload)), |value| Self::Json(value.get()))
    }

    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The content of a message's fields; an error is one line for the device.
    pub(super) fn from_fields(
        json: Option<&'a RawValue>,
        base64: Option<&str>,
    ) -> Result<Self, &'static str> {
        match (json, base64) {
            (Some(json), None) => Ok(Self::Json(json.get())),
            (None, Some(text)) => STANDARD
                .decode(text)
                .map(|bytes| Self::Bytes(Cow::Owned(bytes)))
                .map_err(|_| "data_base64 is not base64 with padding"),
            (Some(_), Some(_)) => Err("data and data_base64 exclude each other"),
            (None, None) => Err("data is missing"),
        }
    }

    /// Appends `"data":…` or `"data_base64":"…"`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json(text) => {
                out.extend_from_slice(b"\"data\":");
                out.extend_from_slice(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                out.extend_from_slice(b"\"data_base64\":\"");
                let start = out.len();
                // Four characters for each three bytes begun; a Vec of bytes cannot be large enough to overflow this.
                out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room is what base64 needs");
                out.push(b'"');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_json_is_told_from_one_that_is_not() {
        assert_eq!(Data::from_payload(b"{\"x\": 1.50}"), Data::Json("{\"x\": 1.50}"));
        assert_eq!(Data::from_payload(b" 7\n"), Data::Json("7"));
        for payload in [&b""[..], b"hello", b"{\"x\":1}}", b"\xFF", b"1 2"] {
            assert_eq!(Data::from_payload(payload), Data::Bytes(Cow::Borrowed(payload)));
        }
    }

    #[test]
    fn bytes_are_written_in_base64() {
        for (payload, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"foob", "Zm9vYg=="), (b"\xFF\xFE\xFD", "//79")]
        {
            let mut out = Vec::new();
            Data::Bytes(Cow::Borrowed(payload)).encode(&mut out);
            assert_eq!(out, format!("\"data_base64\":\"{text}\"").into_bytes());
            assert_eq!(Data::from_fields(None, Some(text)), Ok(Data::Bytes(Cow::Borrowed(payload))));
        }
    }

    #[test]
    fn json_nested_deeper_than_any_stack_is_only_bytes_or_text() {
        let payload = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
        assert_eq!(Data::from_payload(payload.as_bytes()).as_bytes(), payload.as_bytes());
    }
}
