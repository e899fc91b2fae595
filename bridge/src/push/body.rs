//! A push as JSON, the same in an HTTP body and in a Kafka record. Pure.

use std::time::Duration;

use base64::prelude::BASE64_STANDARD;
use base64::{DecodeError, Engine};
use holdfast_http::reading::{self, Unreadable};
use holdfast_wire::mqtt::QoS;
use schemars::{JsonSchema, Schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::request::{PushError, PushRequest, PushTarget};

/// Longest id of a push, in bytes.
const ID_BYTES_MAX: usize = 256;

/// A push. One of `device`, `topic` and `group` says whom it is for; one of `payload` and `payload_base64` is given.
// Unknown fields are refused: a misspelled `ttl_s` must not become a push that never expires.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "Push")]
#[schemars(
    extend(
        "anyOf" = [{ "required": ["device"] }, { "required": ["group"] }, { "required": ["topic"] }],
        "oneOf" = [{ "required": ["payload"] }, { "required": ["payload_base64"] }],
        "not" = { "required": ["device", "group"] },
    ),
    transform = without_defaults
)]
pub(crate) struct Body {
    /// Client id of the device that it is for.
    #[schemars(length(min = 1))]
    device: Option<String>,
    /// Topic whose subscribers it is for; with `device` or `group`, takes the place of `push.topic`.
    #[schemars(length(min = 1))]
    topic: Option<String>,
    /// Group of devices that it is for.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"))]
    group: Option<String>,
    /// A text is sent as its UTF-8 bytes, null as nothing, any other JSON as it is written.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "serde_json::Value")]
    payload: Option<Box<RawValue>>,
    /// Any bytes, in base64.
    payload_base64: Option<String>,
    /// 0, 1 or 2; 1 if not given. With 0 nothing is kept for a device that is away.
    #[serde(default, deserialize_with = "qos")]
    #[schemars(range(max = 2), with = "Option<u8>")]
    qos: Option<u8>,
    /// Seconds after which it is of no use; not given: never.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(range(min = 1), with = "Option<u32>")]
    ttl_s: Option<u32>,
    /// MQTT 5 content type.
    #[schemars(length(max = 65535))]
    content_type: Option<String>,
    /// To a topic: also kept as the topic's retained message.
    #[serde(default)]
    retain: bool,
    /// To a device or a group: takes the place of the push that waits for the device under the same key. 1 to 256 bytes.
    #[schemars(length(min = 1, max = 256))]
    collapse_key: Option<String>,
    /// What it is known by, 1 to 256 bytes: the same id is pushed once, however often it is asked for.
    #[schemars(length(min = 1, max = 256))]
    id: Option<String>,
    /// In a request of its own: how long to wait for the outcome, at most `push.wait_ms_max`.
    #[serde(default, deserialize_with = "milliseconds")]
    #[schemars(with = "Option<u64>")]
    wait_ms: Option<u64>,
}

/// `null` is a payload, and none is a mistake; and no other field has a default that it would be given as.
fn without_defaults(schema: &mut Schema) {
    for field in ["/properties/payload", "/properties/ttl_s", "/properties/qos", "/properties/wait_ms"] {
        if let Some(field) = schema.pointer_mut(field).and_then(Value::as_object_mut) {
            field.remove("default");
        }
    }
}

/// Tells `null` from a field that is not there.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    whole(from, "ttl_s", "a whole number of seconds, 1 to 4294967295")
}

fn qos<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    whole(from, "qos", "0, 1 or 2")
}

fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    whole(from, "wait_ms", "a whole number of milliseconds")
}

/// The error says what is allowed, which the library's own does not.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    from: D,
    field: &str,
    allowed: &str,
) -> Result<Option<T>, D::Error> {
    let given = Value::deserialize(from)?;
    if given.is_null() {
        return Ok(None);
    }
    let number = given.as_u64().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{field} = {given}: must be {allowed}")))
}

/// Understands a push; without `wait_ms` it waits for its outcome for `wait`. The error says what is wrong with it.
pub(crate) fn read(json: &[u8], wait: Duration) -> Result<PushRequest, PushError> {
    // A sequence would be taken for the fields in their order.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first != b'{') {
        return Err(PushError::Malformed("a push must be a JSON object".to_owned()));
    }
    let body: Body = reading::json(json)?;
    request(body, wait).map_err(PushError::Invalid)
}

impl From<Unreadable> for PushError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Malformed(why) => Self::Malformed(why),
            Unreadable::Invalid(why) => Self::Invalid(why),
        }
    }
}

fn request(body: Body, wait: Duration) -> Result<PushRequest, String> {
    let (target, topic) = match (body.device, body.group, body.topic) {
        (Some(_), Some(_), _) => return Err("name a device or a group, not both".to_owned()),
        (Some(device), None, topic) => (PushTarget::Device(device), topic),
        (None, Some(group), topic) => (PushTarget::Group(group), topic),
        (None, None, Some(topic)) => (PushTarget::Topic(topic), None),
        (None, None, None) => return Err("name a device or a topic or a group".to_owned()),
    };
    if body.retain && !matches!(target, PushTarget::Topic(_)) {
        return Err("retain: only a push to a topic can be retained".to_owned());
    }
    let payload = match (body.payload, body.payload_base64) {
        (Some(_), Some(_)) => return Err("give payload or payload_base64, not both".to_owned()),
        (Some(value), None) => bytes(&value)?,
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).map_err(|error| not_base64(&error))?,
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
        collapse_key: body.collapse_key,
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

fn not_base64(error: &DecodeError) -> String {
    let place = match error {
        DecodeError::InvalidByte(offset, _) | DecodeError::InvalidLastSymbol(offset, _) => {
            format!("not at byte {offset}")
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => "not at its end".to_owned(),
    };
    format!("payload_base64: must be base64 (A-Z a-z 0-9 + /, filled with = to a multiple of 4), {place}")
}

/// A JSON string is meant as its text, null as nothing; any other value as it is written.
fn bytes(value: &RawValue) -> Result<Vec<u8>, String> {
    match value.get() {
        "null" => Ok(Vec::new()),
        // Nothing else can be wrong with it by now.
        text if text.starts_with('"') => serde_json::from_str::<String>(text).map(String::into_bytes).map_err(|_| {
            "payload: an escape stands for no character (surrogates come in pairs); send other bytes as payload_base64"
                .to_owned()
        }),
        other => Ok(other.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<PushRequest, PushError> {
        super::read(json.as_bytes(), Duration::from_secs(1))
    }

    #[test]
    fn null_is_an_empty_payload_and_none_is_a_mistake() {
        assert_eq!(read(r#" {"device":"d","payload":null}"#).unwrap().payload, b"");
        assert_eq!(read(r#"{"device":"d","payload":"null"}"#).unwrap().payload, b"null");
        assert!(read(r#"{"device":"d"}"#).unwrap_err().to_string().starts_with("give a payload"));
    }

    #[test]
    fn a_time_to_live_that_cannot_be_is_named_with_what_is_allowed() {
        for ttl_s in ["-1", "1.5", "\"10\"", "4294967296"] {
            let error = read(&format!(r#"{{"device":"d","payload":null,"ttl_s":{ttl_s}}}"#)).unwrap_err();
            let allowed = format!("ttl_s = {ttl_s}: must be a whole number of seconds, 1 to 4294967295");
            assert!(error.to_string().starts_with(&allowed), "{error}");
        }
        assert_eq!(read(r#"{"device":"d","payload":null,"ttl_s":null}"#).unwrap().ttl_s, None);
        assert_eq!(read(r#"{"device":"d","payload":null,"ttl_s":7}"#).unwrap().ttl_s, Some(7));
    }

    #[test]
    fn what_is_no_object_is_told_so() {
        for json in ["[]", "7", "\"x\"", "  [1]"] {
            let error = PushError::Malformed("a push must be a JSON object".to_owned());
            assert_eq!(read(json).unwrap_err(), error, "{json}");
        }
    }
}
