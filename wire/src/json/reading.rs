//! The device's side: reading what the server writes, for the load tool and for tests. A message must have every
//! field of its type and none that is not known, so that one written wrongly is noticed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{Text, present};
use super::{Data, Downlink, Error, ErrorCode, GoodbyeReason, Id, Push, PushBody, Receipt, Welcome};

impl<'a> Downlink<'a> {
    /// Reads one message.
    pub fn decode(text: &'a str) -> Result<Self, Error> {
        serde_json::from_str::<Fields<'a>>(text)
            .map_err(|error| Error::new(ErrorCode::MalformedJson, None, error.to_string()))?
            .into_downlink()
            .map_err(|message| Error::new(ErrorCode::InvalidMessage, None, message))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Id>,
    #[serde(borrow, default, deserialize_with = "present")]
    client_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    session_present: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    session_expiry_s: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    keep_alive_s: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    receive_maximum: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    message_bytes_max: Option<u32>,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow, default, deserialize_with = "present")]
    receipt: Option<ReceiptFields<'a>>,
    #[serde(default, deserialize_with = "present")]
    code: Option<ErrorCode>,
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<Text<'a>>,
    #[serde(default)]
    dup: bool,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present", rename = "ts")]
    event_time_ms: Option<u64>,
    #[serde(default)]
    retained: bool,
    #[serde(borrow, default, deserialize_with = "present")]
    content_type: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data_base64: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    codes: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "present")]
    reason: Option<GoodbyeReason>,
    #[serde(default, deserialize_with = "present")]
    retry_after_ms: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptFields<'a> {
    #[serde(borrow)]
    topic: Text<'a>,
    partition: u32,
    offset: u64,
}

impl<'a> Fields<'a> {
    fn into_downlink(self) -> Result<Downlink<'a>, &'static str> {
        let id = || self.id.ok_or("id is missing");
        Ok(match &*self.kind.0 {
            "welcome" => Downlink::Welcome(Welcome {
                client_id: self.client_id.ok_or("client_id is missing")?.0,
                session_present: self.session_present.ok_or("session_present is missing")?,
                session_expiry_s: self.session_expiry_s.ok_or("session_expiry_s is missing")?,
                keep_alive_s: self.keep_alive_s.ok_or("keep_alive_s is missing")?,
                receive_maximum: self.receive_maximum.ok_or("receive_maximum is missing")?,
                message_bytes_max: self.message_bytes_max.ok_or("message_bytes_max is missing")?,
            }),
            "ack" => Downlink::Ack {
                id: id()?,
                duplicate: self.duplicate,
                receipt: self.receipt.map(|receipt| Receipt {
                    topic: receipt.topic.0,
                    partition: receipt.partition,
                    offset: receipt.offset,
                }),
            },
            "error" => Downlink::Error {
                id: self.id,
                code: self.code.ok_or("code is missing")?,
                message: self.message.ok_or("message is missing")?.0,
            },
            "push" => Downlink::Push(Push {
                id: self.id,
                dup: self.dup,
                body: PushBody {
                    topic: self.topic.ok_or("topic is missing")?.0,
                    event_time_ms: self.event_time_ms,
                    retained: self.retained,
                    content_type: self.content_type.map(|text| text.0),
                    data: Data::from_fields(self.data, self.data_base64.as_ref().map(|text| &*text.0))?,
                },
            }),
            "subscribed" => {
                Downlink::Subscribed { id: id()?, codes: Cow::Owned(self.codes.ok_or("codes is missing")?) }
            }
            "unsubscribed" => Downlink::Unsubscribed { id: id()? },
            "pong" => Downlink::Pong,
            "goodbye" => Downlink::Goodbye {
                reason: self.reason.ok_or("reason is missing")?,
                retry_after_ms: self.retry_after_ms,
            },
            _ => return Err("no such message comes from a server"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> Id {
        Id::new(id).expect("tests use ids above zero")
    }

    #[test]
    fn each_message_is_written_as_documented_and_read_back() {
        let body = PushBody {
            topic: "sites/7/\"alarm\"".into(),
            event_time_ms: Some(1_732_150_000_123),
            retained: true,
            content_type: Some("application/json".into()),
            data: Data::Json("{\"level\": 3}"),
        };
        let plain = PushBody {
            topic: "t".into(),
            event_time_ms: None,
            retained: false,
            content_type: None,
            data: Data::from_payload(b"hi"),
        };
        let receipt = Receipt { topic: "holdfast.frames".into(), partition: 3, offset: 1 << 40 };
        for (downlink, text) in [
            (
                Downlink::Welcome(Welcome {
                    client_id: "sensor-7".into(),
                    session_present: false,
                    session_expiry_s: 3600,
                    keep_alive_s: 60,
                    receive_maximum: 32,
                    message_bytes_max: 1_048_576,
                }),
                r#"{"type":"welcome","client_id":"sensor-7","session_present":false,"session_expiry_s":3600,"keep_alive_s":60,"receive_maximum":32,"message_bytes_max":1048576}"#,
            ),
            (Downlink::Ack { id: id(7), duplicate: false, receipt: None }, r#"{"type":"ack","id":7}"#),
            (
                Downlink::Ack { id: id(7), duplicate: true, receipt: Some(receipt) },
                r#"{"type":"ack","id":7,"duplicate":true,"receipt":{"topic":"holdfast.frames","partition":3,"offset":1099511627776}}"#,
            ),
            (
                Downlink::Error {
                    id: Some(id(9)),
                    code: ErrorCode::Refused,
                    message: "no\nsuch topic".into(),
                },
                r#"{"type":"error","id":9,"code":"refused","message":"no\nsuch topic"}"#,
            ),
            (
                Downlink::Error { id: None, code: ErrorCode::MalformedJson, message: "EOF".into() },
                r#"{"type":"error","code":"malformed_json","message":"EOF"}"#,
            ),
            (
                Downlink::Push(Push { id: Some(id(3)), dup: true, body }),
                r#"{"type":"push","id":3,"dup":true,"topic":"sites/7/\"alarm\"","ts":1732150000123,"retained":true,"content_type":"application/json","data":{"level": 3}}"#,
            ),
            (
                Downlink::Push(Push { id: None, dup: false, body: plain }),
                r#"{"type":"push","topic":"t","data_base64":"aGk="}"#,
            ),
            (
                Downlink::Subscribed { id: id(2), codes: Cow::Borrowed(&[0, 1, 135]) },
                r#"{"type":"subscribed","id":2,"codes":[0,1,135]}"#,
            ),
            (Downlink::Unsubscribed { id: id(65535) }, r#"{"type":"unsubscribed","id":65535}"#),
            (Downlink::Pong, r#"{"type":"pong"}"#),
            (
                Downlink::Goodbye { reason: GoodbyeReason::Drain, retry_after_ms: Some(1500) },
                r#"{"type":"goodbye","reason":"drain","retry_after_ms":1500}"#,
            ),
            (
                Downlink::Goodbye { reason: GoodbyeReason::Takeover, retry_after_ms: None },
                r#"{"type":"goodbye","reason":"takeover"}"#,
            ),
        ] {
            let mut out = Vec::new();
            downlink.encode(&mut out);
            assert_eq!(std::str::from_utf8(&out), Ok(text));
            assert_eq!(Downlink::decode(text), Ok(downlink));
        }
    }

    #[test]
    fn every_code_and_reason_is_read_back() {
        for code in ErrorCode::ALL {
            let downlink = Downlink::Error { id: None, code, message: "".into() };
            let mut out = Vec::new();
            downlink.encode(&mut out);
            assert_eq!(Downlink::decode(std::str::from_utf8(&out).expect("JSON is text")), Ok(downlink));
        }
        for reason in GoodbyeReason::ALL {
            let downlink = Downlink::Goodbye { reason, retry_after_ms: None };
            let mut out = Vec::new();
            downlink.encode(&mut out);
            assert_eq!(Downlink::decode(std::str::from_utf8(&out).expect("JSON is text")), Ok(downlink));
        }
    }

    #[test]
    fn a_message_with_a_field_too_few_or_unknown_is_not_understood() {
        for text in [
            r#"{"type":"ack"}"#,
            r#"{"type":"frame","id":1}"#,
            r#"{"type":"pong","why":1}"#,
            r#"{"type":"push","topic":"t"}"#,
            r#"{"type":"goodbye","reason":"boredom"}"#,
        ] {
            assert!(Downlink::decode(text).is_err(), "{text}");
        }
    }
}
