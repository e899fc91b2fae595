//! What a device says.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{Text, present, write_number, write_string};
use super::topics::Topics;
use super::{Data, Error, ErrorCode, Id};

/// Filters in one `subscribe` or `unsubscribe`.
pub const TOPICS_MAX: usize = 64;

/// A message from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink<'a> {
    /// A sensor reading on its way up.
    Frame(Frame<'a>),
    /// Asks for everything that is published to these topics; answered by `subscribed` with the same id.
    Subscribe {
        /// Comes back in the answer.
        id: Id,
        /// One to [`TOPICS_MAX`].
        topics: Vec<Subscription<'a>>,
    },
    /// The opposite; answered by `unsubscribed`.
    Unsubscribe {
        /// Comes back in the answer.
        id: Id,
        /// One to [`TOPICS_MAX`] filters, as they were subscribed.
        topics: Vec<Cow<'a, str>>,
    },
    /// The device has the push of this id.
    Ack {
        /// The push's.
        id: Id,
    },
    /// Answered by `pong`.
    Ping,
}

/// A frame. With an id it is acknowledged once it is stored (the promises of QoS 1); without, it is QoS 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Comes back in `ack` or `error`.
    pub id: Option<Id>,
    /// It may have been sent before, on a connection that was lost; only with an id ([MQTT-3.3.1-2]).
    pub dup: bool,
    /// Not yet judged: the topic may be empty or contain wildcards.
    pub topic: Cow<'a, str>,
    /// When it was measured, in milliseconds since 1970: `ts`.
    pub event_time_ms: Option<u64>,
    /// It replaces what the topic keeps for later subscribers ([MQTT-3.3.1-5]).
    pub retain: bool,
    /// Its content type; what comes as `data` is `application/json` unless this says otherwise.
    pub content_type: Option<Cow<'a, str>>,
    /// What it carries.
    pub data: Data<'a>,
}

/// One topic of a `subscribe`: `{"filter":…,"qos":…}` or just the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Not yet judged.
    pub filter: Cow<'a, str>,
    /// At most this much; 1 unless the device says 0.
    pub qos: Qos,
}

/// Whether pushes of a subscription are acknowledged. The JSON protocol has no QoS 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// 0: pushes come without an id.
    AtMostOnce,
    /// 1: pushes come with an id and wait for `ack`.
    AtLeastOnce,
}

impl<'a> Uplink<'a> {
    /// What `type` says, for each kind of message.
    pub const TYPES: [&'static str; 5] = ["frame", "subscribe", "unsubscribe", "ack", "ping"];

    /// Reads one message.
    pub fn decode(text: &'a str) -> Result<Self, Error> {
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
        let id = fields.id;
        fields.into_uplink().map_err(|(code, message)| Error::new(code, id, message))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Frame(frame) => frame.encode(out),
            Self::Subscribe { id, topics } => {
                write_list(out, b"{\"type\":\"subscribe\",\"id\":", *id, topics, |out, topic| {
                    out.extend_from_slice(b"{\"filter\":");
                    write_string(out, &topic.filter);
                    out.extend_from_slice(match topic.qos {
                        Qos::AtMostOnce => b",\"qos\":0}",
                        Qos::AtLeastOnce => b",\"qos\":1}",
                    });
                });
            }
            Self::Unsubscribe { id, topics } => {
                write_list(out, b"{\"type\":\"unsubscribe\",\"id\":", *id, topics, |out, topic| {
                    write_string(out, topic);
                });
            }
            Self::Ack { id } => {
                out.extend_from_slice(b"{\"type\":\"ack\",\"id\":");
                write_number(out, id.get());
                out.push(b'}');
            }
            Self::Ping => out.extend_from_slice(b"{\"type\":\"ping\"}"),
        }
    }
}

impl Frame<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"frame\",");
        if let Some(id) = self.id {
            out.extend_from_slice(b"\"id\":");
            write_number(out, id.get());
            out.push(b',');
        }
        if self.dup {
            out.extend_from_slice(b"\"dup\":true,");
        }
        out.extend_from_slice(b"\"topic\":");
        write_string(out, &self.topic);
        if let Some(event_time_ms) = self.event_time_ms {
            out.extend_from_slice(b",\"ts\":");
            write_number(out, event_time_ms);
        }
        if self.retain {
            out.extend_from_slice(b",\"retain\":true");
        }
        if let Some(content_type) = &self.content_type {
            out.extend_from_slice(b",\"content_type\":");
            write_string(out, content_type);
        }
        out.push(b',');
        self.data.encode(out);
        out.push(b'}');
    }
}

fn write_list<T>(out: &mut Vec<u8>, head: &[u8], id: Id, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.extend_from_slice(head);
    write_number(out, id.get());
    out.extend_from_slice(b",\"topics\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.extend_from_slice(b"]}");
}

/// The fields of all messages: `data` must borrow from the text, which rules out a tagged enum, as that would read
/// the whole message into a tree before it knows its type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    dup: Option<bool>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present", rename = "ts")]
    event_time_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    retain: Option<bool>,
    #[serde(borrow, default, deserialize_with = "present")]
    content_type: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data_base64: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    topics: Option<Topics<'a>>,
}

/// A code and one line; the id is added by the caller.
type Refused = (ErrorCode, Cow<'static, str>);

impl<'a> Fields<'a> {
    fn into_uplink(self) -> Result<Uplink<'a>, Refused> {
        match &*self.kind.0 {
            "frame" => {
                self.allow(&["id", "dup", "topic", "ts", "retain", "content_type", "data", "data_base64"])?;
                self.into_frame().map(Uplink::Frame)
            }
            "subscribe" => {
                self.allow(&["id", "topics"])?;
                Ok(Uplink::Subscribe { id: self.id()?, topics: self.topics()? })
            }
            "unsubscribe" => {
                self.allow(&["id", "topics"])?;
                let id = self.id()?;
                let topics = self.topics()?;
                Ok(Uplink::Unsubscribe { id, topics: topics.into_iter().map(|topic| topic.filter).collect() })
            }
            "ack" => {
                self.allow(&["id"])?;
                Ok(Uplink::Ack { id: self.id()? })
            }
            "ping" => {
                self.allow(&[])?;
                Ok(Uplink::Ping)
            }
            _ => Err((
                ErrorCode::UnknownType,
                "type is none of frame, subscribe, unsubscribe, ack, ping".into(),
            )),
        }
    }

    fn into_frame(self) -> Result<Frame<'a>, Refused> {
        let dup = self.dup.unwrap_or_default();
        if dup && self.id.is_none() {
            return Err(invalid("dup needs an id"));
        }
        Ok(Frame {
            id: self.id,
            dup,
            topic: self.topic.ok_or_else(|| invalid("topic is missing"))?.0,
            event_time_ms: self.event_time_ms,
            retain: self.retain.unwrap_or_default(),
            content_type: self.content_type.map(|text| text.0),
            data: Data::from_fields(self.data, self.data_base64.as_ref().map(|text| &*text.0))
                .map_err(invalid)?,
        })
    }

    fn id(&self) -> Result<Id, Refused> {
        self.id.ok_or_else(|| invalid("id is missing"))
    }

    fn topics(self) -> Result<Vec<Subscription<'a>>, Refused> {
        match self.topics {
            Some(Topics(topics)) if topics.is_empty() => Err(invalid("topics is empty")),
            Some(Topics(topics)) => Ok(topics),
            None => Err(invalid("topics is missing")),
        }
    }

    /// Refuses fields that exist but not in this type of message.
    fn allow(&self, allowed: &[&str]) -> Result<(), Refused> {
        let given = [
            ("id", self.id.is_some()),
            ("dup", self.dup.is_some()),
            ("topic", self.topic.is_some()),
            ("ts", self.event_time_ms.is_some()),
            ("retain", self.retain.is_some()),
            ("content_type", self.content_type.is_some()),
            ("data", self.data.is_some()),
            ("data_base64", self.data_base64.is_some()),
            ("topics", self.topics.is_some()),
        ];
        match given.iter().find(|(name, is_given)| *is_given && !allowed.contains(name)) {
            Some((name, _)) => Err((
                ErrorCode::InvalidMessage,
                format!("{name} does not belong in a message of type {}", self.kind.0).into(),
            )),
            None => Ok(()),
        }
    }
}

fn invalid(message: &'static str) -> Refused {
    (ErrorCode::InvalidMessage, Cow::Borrowed(message))
}

/// The error for a text that [`Fields`] could not read. A second, lenient reading finds the id, so that the device
/// knows which of its messages is meant.
fn unreadable(text: &str, error: &serde_json::Error) -> Error {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<Id>,
    }
    let is_object = text.trim_start().starts_with('{');
    let code =
        if error.is_data() && is_object { ErrorCode::InvalidMessage } else { ErrorCode::MalformedJson };
    // An array would be read as a struct too.
    let id =
        is_object.then(|| serde_json::from_str::<OnlyId>(text).ok()).flatten().and_then(|message| message.id);
    Error::new(code, id, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> Id {
        Id::new(id).expect("tests use ids above zero")
    }

    fn refusal(text: &str) -> (ErrorCode, Option<u16>, String) {
        let error = Uplink::decode(text).expect_err(text);
        (error.code, error.id.map(Id::get), error.message.into_owned())
    }

    #[test]
    fn a_frame_keeps_its_data_as_it_was_written() {
        let text =
            r#"{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{"z": 1.50,  "x":[1,2]}}"#;
        let Ok(Uplink::Frame(frame)) = Uplink::decode(text) else { panic!("it is a frame") };
        assert_eq!(frame.id, Some(id(7)));
        assert_eq!(frame.topic, "accel");
        assert_eq!(frame.event_time_ms, Some(1_732_150_000_123));
        assert_eq!(frame.data, Data::Json(r#"{"z": 1.50,  "x":[1,2]}"#));
        assert!(!frame.dup && !frame.retain);
    }

    #[test]
    fn reading_a_frame_without_escapes_copies_nothing() {
        let text = r#"{"data":1,"topic":"a/b","content_type":"text/plain","type":"frame"}"#;
        let Ok(Uplink::Frame(frame)) = Uplink::decode(text) else { panic!("it is a frame") };
        assert!(matches!(frame.topic, Cow::Borrowed("a/b")));
        assert!(matches!(frame.content_type, Some(Cow::Borrowed("text/plain"))));
    }

    #[test]
    fn null_is_data_like_any_other() {
        let Ok(Uplink::Frame(frame)) = Uplink::decode(r#"{"type":"frame","topic":"t","data":null}"#) else {
            panic!("it is a frame")
        };
        assert_eq!(frame.data, Data::Json("null"));
    }

    #[test]
    fn a_topic_may_be_escaped_and_data_may_be_bytes() {
        let text = r#"{"type":"frame","topic":"caf\u00e9","data_base64":"AP8="}"#;
        let Ok(Uplink::Frame(frame)) = Uplink::decode(text) else { panic!("it is a frame") };
        assert_eq!(frame.topic, "café");
        assert_eq!(frame.data.as_bytes(), [0, 255]);
    }

    #[test]
    fn topics_are_filters_or_objects() {
        let text = r#"{"type":"subscribe","id":2,"topics":["a/#",{"filter":"b","qos":0},{"filter":"c"}]}"#;
        let Ok(Uplink::Subscribe { topics, .. }) = Uplink::decode(text) else { panic!("it is a subscribe") };
        let topics: Vec<_> = topics.iter().map(|topic| (&*topic.filter, topic.qos)).collect();
        assert_eq!(topics, [("a/#", Qos::AtLeastOnce), ("b", Qos::AtMostOnce), ("c", Qos::AtLeastOnce)]);
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        for text in ["", "{", "[]", "7", "\"frame\"", "{\"type\":\"ping\"}x", "{'type':'ping'}", "null"] {
            assert_eq!(refusal(text).0, ErrorCode::MalformedJson, "{text}");
        }
    }

    #[test]
    fn a_field_that_is_missing_foreign_unknown_double_or_null_is_refused_with_its_name() {
        for (text, id, says) in [
            (r#"{"type":"frame","id":9,"data":1}"#, Some(9), "topic is missing"),
            (r#"{"type":"frame","id":9,"topic":"t"}"#, Some(9), "data is missing"),
            (r#"{"type":"ack"}"#, None, "id is missing"),
            (r#"{"id":3}"#, Some(3), "missing field `type`"),
            (r#"{"type":"ping","id":3}"#, Some(3), "id does not belong in a message of type ping"),
            (r#"{"type":"ack","id":3,"data":1}"#, Some(3), "data does not belong"),
            (r#"{"type":"frame","id":4,"tpoic":"t","data":1}"#, Some(4), "unknown field `tpoic`"),
            (r#"{"type":"frame","topic":"t","topic":"t","data":1}"#, None, "duplicate field `topic`"),
            (r#"{"type":"frame","id":null,"topic":"t","data":1}"#, None, "null"),
            (r#"{"type":"frame","id":5,"topic":null,"data":1}"#, Some(5), "null"),
            (r#"{"type":"frame","topic":"t","dup":true,"data":1}"#, None, "dup needs an id"),
            (r#"{"type":"frame","topic":"t","data":1,"data_base64":""}"#, None, "exclude each other"),
            (r#"{"type":"frame","topic":"t","data_base64":"AP8"}"#, None, "not base64"),
            (r#"{"type":"frame","topic":"t","ts":-1,"data":1}"#, None, "-1"),
            (r#"{"type":"subscribe","id":1,"topics":[]}"#, Some(1), "topics is empty"),
            (r#"{"type":"subscribe","id":1,"topics":[{"filter":"a","qos":2}]}"#, Some(1), "qos"),
            (r#"{"type":"unsubscribe","id":1}"#, Some(1), "topics is missing"),
        ] {
            let (code, id_found, message) = refusal(text);
            assert_eq!((code, id_found), (ErrorCode::InvalidMessage, id), "{text}");
            assert!(message.contains(says), "{text} says {message}");
        }
    }

    #[test]
    fn ids_are_packet_identifiers() {
        for bad in ["0", "65536", "-1", "1.5", "\"7\"", "1e2"] {
            let text = format!("{{\"type\":\"ack\",\"id\":{bad}}}");
            assert_eq!(refusal(&text).0, ErrorCode::InvalidMessage, "{bad}");
        }
        assert_eq!(Uplink::decode(r#"{"type":"ack","id":65535}"#), Ok(Uplink::Ack { id: id(65535) }));
    }

    #[test]
    fn an_unknown_type_is_told_the_known_ones() {
        let (code, id, message) = refusal(r#"{"type":"publish","id":8}"#);
        assert_eq!((code, id), (ErrorCode::UnknownType, Some(8)));
        assert!(message.contains("frame, subscribe"));
    }

    #[test]
    fn one_topic_more_than_allowed_is_refused() {
        let list = |count| {
            let topics = vec!["\"t\""; count].join(",");
            format!("{{\"type\":\"subscribe\",\"id\":1,\"topics\":[{topics}]}}")
        };
        assert!(Uplink::decode(&list(TOPICS_MAX)).is_ok());
        assert!(refusal(&list(TOPICS_MAX + 1)).2.contains("64"));
    }

    #[test]
    fn nesting_deeper_than_any_stack_is_read_without_one() {
        let deep = "[".repeat(200_000);
        let text = format!("{{\"type\":\"frame\",\"topic\":\"t\",\"data\":{deep}");
        assert_eq!(refusal(&text).0, ErrorCode::MalformedJson);
        let text = format!("{{\"type\":{deep}");
        assert!(Uplink::decode(&text).is_err());
        let text = format!("{{\"type\":\"subscribe\",\"id\":1,\"topics\":[{deep}");
        assert!(Uplink::decode(&text).is_err());
    }
}
