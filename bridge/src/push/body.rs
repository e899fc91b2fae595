//! A push as JSON, the same in an HTTP body and in a Kafka record. Pure.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_wire::mqtt::QoS;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::request::{PushRequest, PushTarget};

/// Longest id of a push, in bytes.
const ID_BYTES_MAX: usize = 256;

/// The fields. Unknown ones are refused: a misspelled `ttl_s` must not become a push that never expires.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    device: Option<String>,
    topic: Option<String>,
    #[serde(default, deserialize_with = "given")]
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    qos: Option<u8>,
    ttl_s: Option<u32>,
    content_type: Option<String>,
    #[serde(default)]
    retain: bool,
    id: Option<String>,
    wait_ms: Option<u64>,
    /// Known so that whoever asks for it hears why not: it would be lost without a word.
    collapse_key: Option<serde::de::IgnoredAny>,
}

/// Tells `null` from a field that is not there.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// Understands a push; without `wait_ms` it waits for its outcome for `wait`. The error says what is wrong with it.
pub(crate) fn read(json: &[u8], wait: Duration) -> Result<PushRequest, String> {
    // A sequence would be taken for the fields in their order.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first != b'{') {
        return Err("a push must be a JSON object".to_owned());
    }
    let body: Body = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let (target, topic) = match (body.device, body.topic) {
        (Some(device), topic) => (PushTarget::Device(device), topic),
        (None, Some(topic)) => (PushTarget::Topic(topic), None),
        (None, None) => return Err("name a device or a topic".to_owned()),
    };
    if body.retain && matches!(target, PushTarget::Device(_)) {
        return Err("retain: only a push to a topic can be retained".to_owned());
    }
    if body.collapse_key.is_some() {
        return Err("collapse_key: pushes that wait are not replaced by newer ones yet; use ttl_s".to_owned());
    }
    let payload = match (body.payload, body.payload_base64) {
        (Some(_), Some(_)) => return Err("give payload or payload_base64, not both".to_owned()),
        (Some(value), None) => bytes(&value)?,
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| format!("payload_base64: {error}"))?
        }
        (None, None) => return Err("give a payload; null stands for an empty one".to_owned()),
    };
    if let Some(id) = &body.id {
        check_id(id)?;
    }
    Ok(PushRequest {
        target,
        topic,
        payload,
        qos: QoS::try_from(body.qos.unwrap_or(1)).map_err(|qos| format!("qos: {qos} is none of 0, 1, 2"))?,
        ttl_s: body.ttl_s,
        content_type: body.content_type,
        retain: body.retain,
        id: body.id,
        wait: body.wait_ms.map_or(wait, Duration::from_millis),
    })
}

/// Whether it may be the id of a push.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!("id: 1 to {ID_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// A JSON string is meant as its text, null as nothing; any other value as it is written.
fn bytes(value: &RawValue) -> Result<Vec<u8>, String> {
    match value.get() {
        "null" => Ok(Vec::new()),
        text if text.starts_with('"') => serde_json::from_str::<String>(text)
            .map(String::into_bytes)
            .map_err(|error| format!("payload: {error}")),
        other => Ok(other.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<PushRequest, String> {
        super::read(json.as_bytes(), Duration::from_secs(1))
    }

    #[test]
    fn null_is_an_empty_payload_and_none_is_a_mistake() {
        assert_eq!(read(r#" {"device":"d","payload":null}"#).unwrap().payload, b"");
        assert_eq!(read(r#"{"device":"d","payload":"null"}"#).unwrap().payload, b"null");
        assert!(read(r#"{"device":"d"}"#).unwrap_err().starts_with("give a payload"));
    }

    #[test]
    fn what_is_no_object_is_told_so() {
        for json in ["[]", "7", "\"x\"", "  [1]"] {
            assert_eq!(read(json).unwrap_err(), "a push must be a JSON object", "{json}");
        }
    }
}
