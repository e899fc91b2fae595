//! Reading what a function of ours answered: an array that begins with a word.

use holdfast_wire::coding::{CodingError, Reader, Write};
use holdfast_wire::ids::{NodeId, Owner, ShardId};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::SubscriptionRecord;
use redis::Value;

use crate::contract::{StoreError, WillRecord};

/// The fields that are left of an answer, or of a list within it.
pub(super) struct Answer(std::vec::IntoIter<Value>);

/// Anything that a function of ours does not answer: the server holds what another hand wrote.
fn unreadable(what: &str) -> StoreError {
    StoreError::Unreadable(format!("the Redis server answered without {what}"))
}

fn damaged(why: CodingError) -> StoreError {
    StoreError::Unreadable(format!("the Redis server holds a field that {why}"))
}

impl Answer {
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(fields) => Ok(Self(fields.into_iter())),
            _ => Err(unreadable("a list")),
        }
    }

    /// Whether there is no further field.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// The word an answer begins with. `fenced`, `gone` and `lapsed` are errors.
    pub(super) fn word(&mut self) -> Result<Word, StoreError> {
        match &*self.bytes()? {
            b"ok" => Ok(Word::Ok),
            b"none" => Ok(Word::None),
            b"join" => Ok(Word::Join),
            b"full" => Ok(Word::Full),
            b"kept" => Ok(Word::Kept),
            b"fenced" => Err(StoreError::Fenced),
            b"gone" => Err(StoreError::Gone),
            b"lapsed" => Err(StoreError::Unavailable("the request took too long".to_owned())),
            _ => Err(unreadable("a word that is known")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(unreadable("a text")),
        }
    }

    /// A field that may be missing.
    pub(super) fn bytes_or_nil(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) => Ok(None),
            _ => Err(unreadable("a text or nothing")),
        }
    }

    pub(super) fn text(&mut self) -> Result<Box<str>, StoreError> {
        String::from_utf8(self.bytes()?)
            .map(String::into_boxed_str)
            .map_err(|_| damaged(CodingError::NotUtf8))
    }

    /// A number; less than nothing reads as 0.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        Ok(self.signed()?.unwrap_or(0))
    }

    /// A number, or none if it is less than 0.
    pub(super) fn signed(&mut self) -> Result<Option<u64>, StoreError> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(u64::try_from(number).ok()),
            _ => Err(unreadable("a number")),
        }
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        Self::new(self.0.next().unwrap_or_default())
    }

    /// A message, or how many places of a stream have none.
    pub(super) fn message_or_gap(&mut self) -> Result<Result<SharedMessage, u64>, StoreError> {
        if let Some(Value::Int(_)) = self.0.as_slice().first() {
            return Ok(Err(self.number()?));
        }
        Ok(Ok(SharedMessage::from_bytes(self.bytes()?).map_err(damaged)?))
    }

    /// An owner, or none if nobody is.
    pub(super) fn owner(&mut self) -> Result<Option<Owner>, StoreError> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let (node, shard) = bytes.split_first_chunk().ok_or(damaged(CodingError::Truncated))?;
        let shard = shard.try_into().map_err(|_| damaged(CodingError::Truncated))?;
        Ok(Some(Owner { node: NodeId(u64::from_be_bytes(*node)), shard: ShardId(u16::from_be_bytes(shard)) }))
    }

    /// A session's will, as [`write_will`] wrote it.
    pub(super) fn will(&mut self) -> Result<WillRecord, StoreError> {
        let bytes = self.bytes()?;
        let mut reader = Reader::new(&bytes);
        let (delay_s, expiry_s) = (reader.u32().map_err(damaged)?, reader.u32().map_err(damaged)?);
        let message = SharedMessage::from_bytes(&bytes[2 * size_of::<u32>()..]).map_err(damaged)?;
        Ok(WillRecord { message, delay_s, expiry_s })
    }

    /// A subscription's options, as [`write_options`] wrote them.
    pub(super) fn subscription(&mut self, filter: Box<str>) -> Result<SubscriptionRecord, StoreError> {
        let bytes = self.bytes()?;
        let mut reader = Reader::new(&bytes);
        let flags = reader.u8().map_err(damaged)?;
        Ok(SubscriptionRecord {
            filter,
            qos: QoS::try_from(flags & QOS)
                .map_err(|_| damaged(CodingError::UnknownValue { field: "QoS", value: u64::from(flags) }))?,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
            identifier: reader.u32().map_err(damaged)?,
        })
    }
}

/// What an answer begins with, if it is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Done, or found.
    Ok,
    /// There is no such thing.
    None,
    /// Streams have to be joined first.
    Join,
    /// A bound does not let it in.
    Full,
    /// It is full, and keeps what it has.
    Kept,
}

const QOS: u8 = 0b0011;
const NO_LOCAL: u8 = 0b0100;
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

/// A subscription's options as the functions keep them: they look at the first byte's lowest two bits, the QoS.
pub(super) fn write_options(subscription: &SubscriptionRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5);
    let mut flags = u8::from(subscription.qos);
    flags |= if subscription.no_local { NO_LOCAL } else { 0 };
    flags |= if subscription.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
    bytes.put_u8(flags);
    bytes.put_u32(subscription.identifier);
    bytes
}

/// A will as the functions keep it: they look at the first four bytes, its delay. Nothing for none.
pub(super) fn write_will(will: Option<&WillRecord>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(will) = will {
        bytes.put_u32(will.delay_s);
        bytes.put_u32(will.expiry_s);
        bytes.extend_from_slice(will.message.as_bytes());
    }
    bytes
}

/// An owner in ten bytes; the first eight are its node.
pub(super) fn write_owner(owner: Owner) -> Vec<u8> {
    [&owner.node.0.to_be_bytes()[..], &owner.shard.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    #[test]
    fn owners_and_options_survive_their_fields() {
        let owner = Owner { node: NodeId(u64::MAX - 5), shard: ShardId(300) };
        let subscription = SubscriptionRecord {
            filter: "a/+".into(),
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            identifier: 268_435_455,
        };
        let fields = vec![bulk(&write_owner(owner)), bulk(b""), bulk(&write_options(&subscription))];
        let mut answer = Answer::new(Value::Array(fields)).unwrap();
        assert_eq!(answer.owner(), Ok(Some(owner)));
        assert_eq!(answer.owner(), Ok(None));
        assert_eq!(answer.subscription("a/+".into()), Ok(subscription));
        assert!(answer.is_empty());
    }

    #[test]
    fn what_no_function_of_ours_answers_is_unreadable() {
        let unreadable = |value: Value| {
            let answer = Answer::new(value).and_then(|mut answer| answer.word());
            matches!(answer, Err(StoreError::Unreadable(_)))
        };
        assert!(unreadable(Value::Nil));
        assert!(unreadable(Value::Array(vec![])));
        assert!(unreadable(Value::Array(vec![Value::Int(3)])));
        assert!(unreadable(Value::Array(vec![bulk(b"what")])));
    }
}
