//! The list of topics in `subscribe` and `unsubscribe`.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

use super::fields::{Text, present};
use super::uplink::{Qos, Subscription, TOPICS_MAX};

/// At most [`TOPICS_MAX`]; one more ends the reading, so that a long list costs no memory.
pub(super) struct Topics<'a>(pub(super) Vec<Subscription<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Topics<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = Topics<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {TOPICS_MAX} topics")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Topics<'de>, A::Error> {
                let mut topics = Vec::new();
                while let Some(Topic(topic)) = list.next_element()? {
                    if topics.len() == TOPICS_MAX {
                        return Err(A::Error::invalid_length(TOPICS_MAX + 1, &self));
                    }
                    topics.push(topic);
                }
                Ok(Topics(topics))
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

/// `"filter"` or `{"filter":…,"qos":…}`.
struct Topic<'a>(Subscription<'a>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicFields<'a> {
    #[serde(borrow)]
    filter: Text<'a>,
    #[serde(default, deserialize_with = "present")]
    qos: Option<Qos>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Topic<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopicVisitor;
        impl<'de> Visitor<'de> for TopicVisitor {
            type Value = Topic<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a filter, or an object with filter and qos")
            }

            fn visit_borrowed_str<E: Error>(self, filter: &'de str) -> Result<Topic<'de>, E> {
                Ok(Topic(Subscription { filter: filter.into(), qos: Qos::AtLeastOnce }))
            }

            fn visit_str<E: Error>(self, filter: &str) -> Result<Topic<'de>, E> {
                Ok(Topic(Subscription { filter: filter.to_owned().into(), qos: Qos::AtLeastOnce }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Topic<'de>, A::Error> {
                let fields = TopicFields::deserialize(MapAccessDeserializer::new(map))?;
                let qos = fields.qos.unwrap_or(Qos::AtLeastOnce);
                Ok(Topic(Subscription { filter: fields.filter.0, qos }))
            }
        }
        deserializer.deserialize_any(TopicVisitor)
    }
}

impl<'de> Deserialize<'de> for Qos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            other => Err(D::Error::invalid_value(Unexpected::Unsigned(other), &"a qos of 0 or 1")),
        }
    }
}
