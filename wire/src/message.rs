//! A publication on its way between processes or at rest in a store.
//!
//! What MQTT says only to the next hop (packet id, DUP, topic alias, subscription identifiers) is not here; what
//! belongs to the publication itself is. The same encoding serves link records, stored queues and retained messages.

use std::fmt;
use std::sync::Arc;

use crate::coding::{CodingError, Reader, Write};
use crate::mqtt::QoS;

/// A publication, borrowed from the bytes that carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Identity given by the bridge that accepted it, or by whoever publishes a will; 0 before that. Queues recognise a message that reaches a
    /// session by several streams by it, so no two messages may have the same, whichever bridges took them.
    pub id: u64,
    /// Topic name; valid, without wildcards.
    pub topic: &'a str,
    /// The publisher's QoS.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// Client id of the publisher; empty for a push through the API. Serves "no local".
    pub publisher: &'a str,
    /// When it was accepted, in milliseconds of Unix time.
    pub published_at_ms: u64,
    /// Message expiry: it is of no use to anyone from this moment on (Unix time in ms); 0 means never.
    pub expires_at_ms: u64,
    /// The MQTT 5 properties that a broker must forward unaltered (payload format, content type, response topic,
    /// correlation data, user properties in order), as `PublishProperties::encode_forwardable` writes them.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
}

const QOS_BITS: u8 = 0b011;
const RETAIN: u8 = 0b100;

impl<'a> Message<'a> {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        out.put_u8(u8::from(self.qos) | if self.retain { RETAIN } else { 0 });
        out.put_u64(self.id);
        out.put_u64(self.published_at_ms);
        out.put_u64(self.expires_at_ms);
        out.put_text(self.topic);
        out.put_text(self.publisher);
        out.put_bytes(self.properties);
        out.put_bytes(self.payload);
    }

    /// Length of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        1 + 3 * 8
            + 2
            + self.topic.len()
            + 2
            + self.publisher.len()
            + 4
            + self.properties.len()
            + 4
            + self.payload.len()
    }

    /// Reads an encoding that fills `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CodingError> {
        let mut reader = Reader::new(bytes);
        let message = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    /// Reads an encoding that other fields may follow.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let flags = reader.u8()?;
        let qos = QoS::try_from(flags & QOS_BITS)
            .map_err(|_| CodingError::UnknownValue { field: "QoS", value: u64::from(flags & QOS_BITS) })?;
        Ok(Self {
            retain: flags & RETAIN != 0,
            qos,
            id: reader.u64()?,
            published_at_ms: reader.u64()?,
            expires_at_ms: reader.u64()?,
            topic: reader.text()?,
            publisher: reader.text()?,
            properties: reader.bytes()?,
            payload: reader.bytes()?,
        })
    }

    /// Seconds left until expiry at `now_ms`, rounded up so that a living message never shows 0; `None` if it never
    /// expires, `Some(0)` if it has expired (MQTT-3.3.2-6: what is sent on is the time that is left).
    pub fn expiry_left_s(&self, now_ms: u64) -> Option<u32> {
        (self.expires_at_ms != 0).then(|| {
            self.expires_at_ms.saturating_sub(now_ms).div_ceil(1_000).min(u64::from(u32::MAX)) as u32
        })
    }

    /// Whether it is of no use to anyone any more.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms <= now_ms
    }
}

/// A publication that owns its encoding; cloning shares the bytes, so a fan-out to many queues holds it once.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedMessage(Arc<[u8]>);

impl SharedMessage {
    /// Encodes `message`.
    pub fn new(message: &Message<'_>) -> Self {
        let mut bytes = Vec::with_capacity(message.encoded_len());
        message.encode(&mut bytes);
        Self(Arc::from(bytes))
    }

    /// Takes bytes from a store or a link after checking that they are a message.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, CodingError> {
        let bytes = bytes.into();
        Message::decode(&bytes)?;
        Ok(Self(bytes))
    }

    /// The message within.
    pub fn view(&self) -> Message<'_> {
        Message::decode(&self.0).expect("the encoding was checked when it was taken in")
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Message<'static> = Message {
        id: 9,
        topic: "plant/7/temperature",
        qos: QoS::AtLeastOnce,
        retain: true,
        publisher: "sensor-7",
        published_at_ms: 1_732_150_000_123,
        expires_at_ms: 1_732_150_060_123,
        properties: &[1, 1],
        payload: b"21.5",
    };

    #[test]
    fn a_message_survives_its_encoding() {
        let shared = SharedMessage::new(&SAMPLE);
        assert_eq!(shared.as_bytes().len(), SAMPLE.encoded_len());
        assert_eq!(shared.view(), SAMPLE);
    }

    #[test]
    fn every_strict_prefix_is_refused() {
        let shared = SharedMessage::new(&SAMPLE);
        for length in 0..shared.as_bytes().len() {
            assert!(Message::decode(&shared.as_bytes()[..length]).is_err());
        }
    }

    #[test]
    fn a_living_message_never_shows_zero_seconds() {
        assert_eq!(SAMPLE.expiry_left_s(SAMPLE.expires_at_ms - 1), Some(1));
        assert_eq!(SAMPLE.expiry_left_s(SAMPLE.expires_at_ms), Some(0));
        assert!(SAMPLE.is_expired(SAMPLE.expires_at_ms));
        assert!(!SAMPLE.is_expired(SAMPLE.expires_at_ms - 1));
    }
}
