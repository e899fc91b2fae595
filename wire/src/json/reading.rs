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
