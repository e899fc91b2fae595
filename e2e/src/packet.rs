//! MQTT packets as bytes, written out from the specifications, for clients that may also write them wrongly.
//!
//! Deliberately not the codec of `holdfast-wire`: what that reads and writes is what is judged.

/// The protocol level of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// Packet types by their number (table 2-1).
pub mod kind {
    #![expect(missing_docs, reason = "named as the specification names them")]
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBACK: u8 = 9;
    pub const UNSUBACK: u8 = 11;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

/// PINGREQ.
pub const PINGREQ: &[u8] = &[0xC0, 0];
/// DISCONNECT with nothing to say: normal disconnection.
pub const DISCONNECT: &[u8] = &[0xE0, 0];

/// A packet that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Type and flags.
    pub first: u8,
    /// What the remaining length counts.
    pub body: Vec<u8>,
}

/// A PUBLISH that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Kept by the server, or passed on as published.
    pub retain: bool,
    /// May be empty where an alias stands for it.
    pub topic: String,
    /// 0 with QoS 0.
    pub id: u16,
    /// MQTT 5: the block without its length.
    pub properties: Vec<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Packet {
    /// One of [`kind`].
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet identifier that acknowledgements begin with.
    ///
    /// # Panics
    /// When the body is shorter.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// MQTT 5: the reason code of a DISCONNECT or of PUBACK, PUBREC, PUBREL, PUBCOMP; a short form means 0.
    pub fn reason(&self) -> u8 {
        let place = if self.kind() == kind::DISCONNECT { 0 } else { 2 };
        self.body.get(place).copied().unwrap_or_default()
    }

    /// CONNACK: the code, of either version.
    ///
    /// # Panics
    /// When it is no CONNACK.
    pub fn connect_code(&self) -> u8 {
        assert_eq!(self.kind(), kind::CONNACK, "{self:?}");
        self.body[1]
    }

    /// CONNACK: the server had the session.
    ///
    /// # Panics
    /// When it is no CONNACK.
    pub fn session_present(&self) -> bool {
        assert_eq!(self.kind(), kind::CONNACK, "{self:?}");
        self.body[0] & 1 == 1
    }

    /// CONNACK of MQTT 5: its properties.
    ///
    /// # Panics
    /// When it is no CONNACK, or its properties cannot be read.
    pub fn connack_properties(&self) -> Vec<(u8, Vec<u8>)> {
        assert_eq!(self.kind(), kind::CONNACK, "{self:?}");
        let (length, bytes) = read_length(&self.body[2..]).expect("a property length");
        properties(&self.body[2 + bytes..][..length])
    }

    /// Reads it as a PUBLISH.
    ///
    /// # Panics
    /// When it is none.
    pub fn publish(&self, version: Version) -> Publish {
        assert_eq!(self.kind(), kind::PUBLISH, "{self:?}");
        let qos = self.first >> 1 & 3;
        let (topic_length, rest) = self.body.split_at(2);
        let (topic, rest) =
            rest.split_at(usize::from(u16::from_be_bytes([topic_length[0], topic_length[1]])));
        let (id, rest) =
            if qos == 0 { (0, rest) } else { (u16::from_be_bytes([rest[0], rest[1]]), &rest[2..]) };
        let (properties, payload) = match version {
            Version::V311 => (&[][..], rest),
            Version::V5 => {
                let (length, bytes) = read_length(rest).expect("a property length");
                rest[bytes..].split_at(length)
            }
        };
        Publish {
            dup: self.first & 8 != 0,
            qos,
            retain: self.first & 1 != 0,
            topic: String::from_utf8(topic.to_vec()).expect("a topic is UTF-8"),
            id,
            properties: properties.to_vec(),
            payload: payload.to_vec(),
        }
    }
}

/// A CONNECT to be.
#[derive(Debug, Clone)]
pub struct Connect {
    version: Version,
    client_id: String,
    flags: u8,
    keep_alive_s: u16,
    properties: Vec<u8>,
    will: Vec<u8>,
}

impl Connect {
    /// Clean start, keep alive off.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            flags: 0b10,
            keep_alive_s: 0,
            properties: Vec::new(),
            will: Vec::new(),
        }
    }

    /// A session that outlives its connection, by an hour in MQTT 5, and is taken up if it is there.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.flags &= !0b10;
        if self.version == Version::V5 {
            self.properties.extend_from_slice(&session_expiry_s(3600));
        }
        self
    }

    /// Seconds; 0 is off.
    #[must_use]
    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    /// MQTT 5: adds an encoded property.
    #[must_use]
    pub fn property(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    /// A will with QoS 1.
    #[must_use]
    pub fn will(mut self, topic: &str, payload: &[u8], properties: &[u8]) -> Self {
        self.flags |= 0b100 | 0b1000;
        if self.version == Version::V5 {
            self.will.extend_from_slice(&length(properties.len()));
            self.will.extend_from_slice(properties);
        }
        self.will.extend_from_slice(&string(topic));
        self.will.extend_from_slice(&binary(payload));
        self
    }

    /// The will that was given is retained.
    #[must_use]
    pub fn retained_will(mut self) -> Self {
        self.flags |= 0b10_0000;
        self
    }

    /// The version that follows.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = string("MQTT");
        body.extend_from_slice(&[self.version as u8, self.flags]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.extend_from_slice(&length(self.properties.len()));
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&string(&self.client_id));
        body.extend_from_slice(&self.will);
        packet(0x10, &body)
    }
}

/// A packet with its true length.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &length(body.len()), body].concat()
}

/// A PUBLISH; `id` is left out with QoS 0.
pub fn publish(version: Version, qos: u8, topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(version, qos << 1, topic, id, &[], payload)
}

/// A PUBLISH with all its flags and, in MQTT 5, properties.
pub fn publish_with(
    version: Version,
    flags: u8,
    topic: &str,
    id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    if flags & 0b110 != 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if version == Version::V5 {
        body.extend_from_slice(&length(properties.len()));
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

/// A SUBSCRIBE to one filter; `options` is the QoS and MQTT 5's bits.
pub fn subscribe(version: Version, id: u16, filter: &str, options: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(&string(filter));
    body.push(options);
    packet(0x82, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its [`kind`], without a reason.
pub fn acknowledge(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == kind::PUBREL { 2 } else { 0 };
    packet(kind << 4 | flags, &id.to_be_bytes())
}

/// Session expiry interval, a property of CONNECT and DISCONNECT.
pub fn session_expiry_s(seconds: u32) -> Vec<u8> {
    [&[0x11][..], &seconds.to_be_bytes()].concat()
}

/// Receive maximum, a property of CONNECT.
pub fn receive_maximum(publications: u16) -> Vec<u8> {
    [&[0x21][..], &publications.to_be_bytes()].concat()
}

/// Message expiry interval, a property of PUBLISH.
pub fn message_expiry_s(seconds: u32) -> Vec<u8> {
    [&[0x02][..], &seconds.to_be_bytes()].concat()
}

/// Topic alias, a property of PUBLISH.
pub fn topic_alias(alias: u16) -> Vec<u8> {
    [&[0x23][..], &alias.to_be_bytes()].concat()
}

/// User property, allowed almost everywhere.
pub fn user_property(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], string(name), string(value)].concat()
}

/// A UTF-8 encoded string.
pub fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

/// Binary data; also a string that is not UTF-8.
///
/// # Panics
/// When it is longer than its length can say.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A variable byte integer.
pub fn length(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Reads a variable byte integer: its value and how many bytes it took. `None`: more bytes are needed.
///
/// # Panics
/// When it is longer than four bytes.
pub fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        assert!(index < 4, "the server wrote a length of five bytes");
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Takes a block of properties apart: identifiers and encoded values, in their order (table 2-4).
///
/// # Panics
/// When an identifier does not exist or a value ends early.
pub fn properties(mut block: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [identifier, rest @ ..] = block {
        let string = |rest: &[u8]| 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let length = match identifier {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 | 0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x0B => read_length(rest).expect("a subscription identifier").1,
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => string(rest),
            0x26 => string(rest) + string(&rest[string(rest)..]),
            _ => panic!("no property {identifier:#04x} exists"),
        };
        let (value, after) = rest.split_at(length);
        found.push((*identifier, value.to_vec()));
        block = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_table_1_1_has_them() {
        for (value, bytes) in
            [(0, &[0][..]), (127, &[0x7F]), (128, &[0x80, 1]), (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F])]
        {
            assert_eq!(length(value), bytes);
            assert_eq!(read_length(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn properties_come_apart_in_their_order() {
        let block = [topic_alias(7), user_property("a", "bc"), vec![0x0B, 0x80, 1], vec![1, 1]].concat();
        let value = |index: usize| properties(&block)[index].clone();
        assert_eq!(value(0), (0x23, vec![0, 7]));
        assert_eq!(value(1), (0x26, [string("a"), string("bc")].concat()));
        assert_eq!(value(2), (0x0B, vec![0x80, 1]));
        assert_eq!(value(3), (1, vec![1]));
    }

    #[test]
    fn a_publish_is_read_as_it_was_written() {
        let bytes = publish_with(Version::V5, 0b1011, "a/b", 7, &topic_alias(3), b"payload");
        let read = Packet { first: bytes[0], body: bytes[2..].to_vec() }.publish(Version::V5);
        assert_eq!((read.dup, read.qos, read.retain, read.id), (true, 1, true, 7));
        assert_eq!((read.topic.as_str(), read.payload.as_slice()), ("a/b", b"payload".as_slice()));
        assert_eq!(read.properties, topic_alias(3));
    }
}
