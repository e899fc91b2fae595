//! A frame as a Kafka record: its headers and its timestamp. The layout is described in docs/records.md, with what a reader does with it.

use std::fmt::Write;

use holdfast_wire::ids::NodeId;
use holdfast_wire::mqtt::{PacketId, PublishProperties};
use rdkafka::message::{
    BorrowedHeaders, BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders, ToBytes,
};

use crate::log::LogRecord;

/// A timestamp that is further ahead of the bridge's clock than this is a mistake: brokers refuse a whole batch for a record that is an hour
/// ahead.
const AHEAD_MS_MAX: u64 = 10 * 60 * 1000;
/// A timestamp is younger by this than the topic asks for, or by half of what it takes: it ages until the broker judges it.
const MARGIN_MS: u64 = 60_000;
/// Header of the event time where the timestamp is another one.
const EVENT_TIME: &str = "event-time";
/// What a record and each of its headers take at most beside their bytes, for the comparison with what a topic takes.
const RECORD_BYTES: usize = 128;
const HEADER_BYTES: usize = 10;

/// Writes the headers of one lane's records, with the buffers that takes.
#[derive(Default)]
pub(super) struct RecordWriter {
    node: Option<(NodeId, String)>,
    name: String,
}

/// What a record has beside its key and its value.
pub(super) struct Envelope {
    pub(super) headers: OwnedHeaders,
    /// ms of Unix time.
    pub(super) timestamp: i64,
    /// The whole record, at most.
    pub(super) bytes: usize,
}

impl RecordWriter {
    /// For a frame that is sent at `now_ms` of Unix time; `before_ms_max` is how old a timestamp its topic takes.
    pub(super) fn envelope(&mut self, frame: &LogRecord<'_>, before_ms_max: u64, now_ms: u64) -> Envelope {
        let message = &frame.message;
        let mut headers = Headers::new(message.publisher.len() + message.payload.len());
        headers.add("topic", message.topic);
        headers.add("client-id", message.publisher);
        headers.add("qos", ["0", "1", "2"][usize::from(u8::from(message.qos))]);
        headers.add("id", Hex::new(message.id).text());
        if let Some(packet_id) = frame.packet_id {
            headers.add("packet-id", Decimal::new(u64::from(PacketId::get(packet_id))).text());
        }
        headers.add("session", Decimal::new(frame.epoch.0).text());
        headers.add("node", self.node(frame.node));
        headers.add("received-at", Decimal::new(message.published_at_ms).text());
        if frame.dup {
            headers.add("dup", "1");
        }
        if frame.resent {
            headers.add("resent", "1");
        }
        if message.retain {
            headers.add("retain", "1");
        }
        let timestamp = match event_time(frame, before_ms_max, now_ms) {
            Some(event_time) => {
                // Sent later, its event time may be too old.
                headers.leave_room(EVENT_TIME, Decimal::new(event_time).text());
                event_time
            }
            None => {
                if frame.event_time_ms != 0 {
                    headers.add(EVENT_TIME, Decimal::new(frame.event_time_ms).text());
                }
                fitting(message.published_at_ms, before_ms_max, now_ms)
            }
        };
        if !message.properties.is_empty() {
            self.properties(&mut headers, message.properties);
        }
        Envelope { headers: headers.written, timestamp: timestamp.cast_signed(), bytes: headers.bytes }
    }

    fn properties(&mut self, headers: &mut Headers, block: &[u8]) {
        // The gateway has decoded it before.
        let Ok(properties) = PublishProperties::decode_block(block) else { return };
        if let Some(content_type) = properties.content_type {
            headers.add("content-type", content_type);
        }
        if let Some(response_topic) = properties.response_topic {
            headers.add("response-topic", response_topic);
        }
        if let Some(correlation_data) = properties.correlation_data {
            headers.add("correlation-data", correlation_data);
        }
        for (name, value) in &properties.user_properties {
            self.name.clear();
            self.name.push_str("u-");
            self.name.push_str(name);
            headers.add(&self.name, value);
        }
    }

    /// A lane's frames come from one node.
    fn node(&mut self, node: NodeId) -> &str {
        if self.node.as_ref().is_none_or(|(known, _)| *known != node) {
            let mut text = String::new();
            let _ = write!(text, "{node}");
            self.node = Some((node, text));
        }
        self.node.as_ref().map_or("", |(_, text)| text)
    }
}

/// The event time, if the device gave one that can be.
fn event_time(frame: &LogRecord<'_>, before_ms_max: u64, now_ms: u64) -> Option<u64> {
    let (event, received) = (frame.event_time_ms, frame.message.published_at_ms);
    let can_be = event != 0 && event <= received.saturating_add(AHEAD_MS_MAX);
    (can_be && fitting(event, before_ms_max, now_ms) == event).then_some(event)
}

/// The timestamp, if a topic takes it that takes those of the last `before_ms_max`; else now. A frame may have been in the spool for hours, and a
/// gateway's clock may be wrong.
pub(super) fn fitting(timestamp_ms: u64, before_ms_max: u64, now_ms: u64) -> u64 {
    let earliest = now_ms.saturating_sub(before_ms_max - MARGIN_MS.min(before_ms_max / 2));
    let fits = (earliest..=now_ms.saturating_add(AHEAD_MS_MAX)).contains(&timestamp_ms);
    if fits { timestamp_ms } else { now_ms }
}

struct Headers {
    written: OwnedHeaders,
    bytes: usize,
}

impl Headers {
    fn new(bytes: usize) -> Self {
        Self { written: OwnedHeaders::new_with_capacity(12), bytes: bytes + RECORD_BYTES }
    }

    /// Counts a header that a later record of the frame may have.
    fn leave_room(&mut self, key: &str, value: &[u8]) {
        self.bytes += header_bytes(key, value);
    }

    fn add<V: ToBytes + ?Sized>(&mut self, key: &str, value: &V) {
        self.bytes += header_bytes(key, value.to_bytes());
        let written = std::mem::take(&mut self.written);
        self.written = written.insert(Header { key, value: Some(value) });
    }
}

/// Bytes of a record's key, value and headers: the record takes more.
pub(super) fn bare_bytes(message: &BorrowedMessage<'_>) -> usize {
    let headers = message.headers().into_iter().flat_map(BorrowedHeaders::iter);
    let headers = headers.map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len));
    message.key_len() + message.payload_len() + headers.sum::<usize>()
}

/// What a header takes, at most.
pub(super) fn header_bytes(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + HEADER_BYTES
}

/// A number in decimal, without an allocation.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn new(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// A number as 16 hexadecimal digits.
struct Hex([u8; 16]);

impl Hex {
    fn new(number: u64) -> Self {
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
        }
        Self(digits)
    }

    fn text(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::Epoch;
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::{QoS, UserProperties};

    use super::*;

    const NOW: u64 = 1_732_150_000_123;

    fn frame<'a>(properties: &'a [u8], payload: &'a [u8]) -> LogRecord<'a> {
        LogRecord {
            offset: 0,
            node: NodeId(0xabc),
            epoch: Epoch(7),
            packet_id: PacketId::new(9),
            dup: false,
            resent: false,
            event_time_ms: 0,
            message: Message {
                id: 0x77,
                topic: "plant/7",
                qos: QoS::AtLeastOnce,
                retain: false,
                publisher: "sensor-7",
                published_at_ms: NOW,
                expires_at_ms: 0,
                properties,
                payload,
            },
        }
    }

    fn headers(frame: &LogRecord<'_>) -> Vec<(String, String)> {
        let headers = RecordWriter::default().envelope(frame, u64::MAX, NOW).headers;
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    const BARE: [(&str, &str); 8] = [
        ("topic", "plant/7"),
        ("client-id", "sensor-7"),
        ("qos", "1"),
        ("id", "0000000000000077"),
        ("packet-id", "9"),
        ("session", "7"),
        ("node", "0000000000000abc"),
        ("received-at", "1732150000123"),
    ];

    #[test]
    fn a_frame_without_properties_has_the_headers_that_the_documentation_names() {
        assert_eq!(headers(&frame(&[], b"x")), pairs(&BARE));
    }

    #[test]
    fn marks_and_properties_of_the_device_follow() {
        let mut block = Vec::new();
        let properties = PublishProperties {
            content_type: Some("text/plain"),
            response_topic: Some("answers"),
            correlation_data: Some(b"c1"),
            user_properties: UserProperties::from(&[("site", "north"), ("site", "again")][..]),
            ..PublishProperties::default()
        };
        properties.encode_forwardable(&mut block);
        let mut expected = pairs(&BARE);
        expected.extend(pairs(&[
            ("dup", "1"),
            ("resent", "1"),
            ("content-type", "text/plain"),
            ("response-topic", "answers"),
            ("correlation-data", "c1"),
            ("u-site", "north"),
            ("u-site", "again"),
        ]));
        assert_eq!(headers(&LogRecord { dup: true, resent: true, ..frame(&block, b"x") }), expected);
    }

    #[test]
    fn an_event_time_that_cannot_be_becomes_a_header_and_the_time_of_arrival_the_timestamp() {
        let day = 86_400_000;
        for (event_time_ms, before_ms_max, timestamp) in [
            (0, u64::MAX, NOW),
            (NOW - 5, u64::MAX, NOW - 5),
            (5, u64::MAX, 5),
            (NOW + AHEAD_MS_MAX, u64::MAX, NOW + AHEAD_MS_MAX),
            (NOW + AHEAD_MS_MAX + 1, u64::MAX, NOW),
            (u64::MAX, u64::MAX, NOW),
            (NOW - 2 * day, day, NOW),
        ] {
            let frame = LogRecord { event_time_ms, ..frame(&[], b"x") };
            let envelope = RecordWriter::default().envelope(&frame, before_ms_max, NOW);
            assert_eq!(envelope.timestamp, timestamp.cast_signed(), "{event_time_ms}");
            let told = headers(&frame).contains(&("event-time".to_owned(), event_time_ms.to_string()));
            let believed = event_time_ms == 0 || before_ms_max == day || timestamp == event_time_ms;
            assert!(told != believed || before_ms_max == day, "{event_time_ms}");
        }
    }

    #[test]
    fn a_time_of_arrival_that_the_topic_would_not_take_becomes_the_time_of_sending() {
        let hour = 3_600_000;
        for (received, before_ms_max, timestamp) in [
            (NOW - hour / 2, hour, NOW - hour / 2),
            // It waited in the spool for longer than the topic takes, or would be too old on its way.
            (NOW - 2 * hour, hour, NOW),
            (NOW - hour + 1_000, hour, NOW),
            (NOW - 2 * hour, u64::MAX, NOW - 2 * hour),
            (NOW - 1, 0, NOW),
            // The gateway's clock is ahead.
            (NOW + AHEAD_MS_MAX, hour, NOW + AHEAD_MS_MAX),
            (NOW + 2 * hour, u64::MAX, NOW),
        ] {
            // An event time is judged by the same clock.
            for event_time_ms in [0, received] {
                let mut frame = LogRecord { event_time_ms, ..frame(&[], b"x") };
                frame.message.published_at_ms = received;
                let envelope = RecordWriter::default().envelope(&frame, before_ms_max, NOW);
                assert_eq!(envelope.timestamp, timestamp.cast_signed(), "{received} {before_ms_max}");
            }
        }
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for number in [0, 9, 10, NOW, u64::MAX] {
            assert_eq!(Decimal::new(number).text(), number.to_string().as_bytes());
            assert_eq!(Hex::new(number).text(), format!("{number:016x}").as_bytes());
        }
    }
}
