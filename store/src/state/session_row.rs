//! A persistent session as bytes: what surrounds its record, then the record.

use holdfast_wire::coding::{CodingError, Reader, Write};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::WillRecord;

use super::sessions::Details;

const FORMAT: u8 = 2;
const RESTS: u8 = 0b01;
const HAS_WILL: u8 = 0b10;

/// Writes a session; [`decode`] reads it.
pub(crate) fn encode(epoch: u64, since_s: u32, details: &Details) -> Vec<u8> {
    let mut row = Vec::with_capacity(128);
    row.put_u8(FORMAT);
    let rests = if details.rests_until_ms.is_some() { RESTS } else { 0 };
    row.put_u8(rests | if details.will.is_some() { HAS_WILL } else { 0 });
    row.put_u64(epoch);
    row.put_u32(since_s);
    row.put_u32(details.expiry_s);
    if let Some(until) = details.rests_until_ms {
        row.put_u64(until);
    }
    if let Some(will) = &details.will {
        row.put_u32(will.delay_s);
        row.put_u32(will.expiry_s);
        row.put_bytes(will.message.as_bytes());
    }
    details.record.encode(&mut row);
    row
}

/// Reads the epoch, since when it is connected or rests, and the rest of a session.
pub(crate) fn decode(row: &[u8]) -> Result<(u64, u32, Details), CodingError> {
    let mut reader = Reader::new(row);
    let format = reader.u8()?;
    if format != FORMAT {
        return Err(CodingError::UnknownValue { field: "session row format", value: u64::from(format) });
    }
    let flags = reader.u8()?;
    let epoch = reader.u64()?;
    let since_s = reader.u32()?;
    let expiry_s = reader.u32()?;
    let rests_until_ms = if flags & RESTS == 0 { None } else { Some(reader.u64()?) };
    let will = if flags & HAS_WILL == 0 {
        None
    } else {
        let (delay_s, expiry_s) = (reader.u32()?, reader.u32()?);
        Some(WillRecord { delay_s, expiry_s, message: SharedMessage::from_bytes(reader.bytes()?)? })
    };
    let mut record = SessionRecord::decode(reader.rest())?;
    // Bisection relies on the order, so a row written by another hand must not break it.
    record.subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
    record.cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
    Ok((epoch, since_s, Details { expiry_s, rests_until_ms, will, record }))
}

#[cfg(test)]
mod tests {
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;
    use holdfast_wire::session_record::{Cursor, StreamKey};

    use super::*;

    fn sample() -> Details {
        let message = SharedMessage::new(&Message {
            id: 1,
            topic: "gone",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "d",
            published_at_ms: 1,
            expires_at_ms: 0,
            properties: &[],
            payload: b"!",
        });
        let cursors = vec![Cursor { stream: StreamKey::Device("d".into()), acked: 4 }];
        Details {
            expiry_s: 60,
            rests_until_ms: Some(9),
            will: Some(WillRecord { message, delay_s: 5, expiry_s: 60 }),
            record: SessionRecord { cursors, ..SessionRecord::default() },
        }
    }

    #[test]
    fn a_session_survives_its_row() {
        for rests_until_ms in [None, Some(9), Some(u64::MAX)] {
            for will in [None, sample().will] {
                let details = Details { rests_until_ms, will, ..sample() };
                assert_eq!(decode(&encode(7, 3, &details)), Ok((7, 3, details)));
            }
        }
    }

    #[test]
    fn every_strict_prefix_is_refused() {
        let row = encode(7, 3, &sample());
        for length in 0..row.len() {
            assert!(decode(&row[..length]).is_err(), "a prefix of {length} bytes was taken");
        }
    }
}
