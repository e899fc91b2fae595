//! What a frame or a push carries, so that whoever finds it later can say whose it is and whether it is whole.
//!
//! Two forms hold the same [`Stamp`]: bytes for MQTT devices and an object for JSON devices, whose `data` passes
//! through Holdfast byte for byte. Both are a pure function of stamp and size: a frame that is sent again is built
//! again and equals the first one, so that the unacknowledged window holds stamps instead of payloads.

use std::io::Write as _;

use serde::Deserialize;

/// Least size of a binary payload: the stamp without padding, in bytes.
pub const BINARY_BYTES_MIN: usize = MAGIC.len() + 8 + 4 + 8 + 8 + 8 + 4;

const MAGIC: [u8; 3] = *b"HF\x01";
const CHECKSUM_AT: usize = BINARY_BYTES_MIN - 4;
const JSON_CHECKSUM: &str = ",\"crc\":\"";

/// Which way a payload travels; a push that comes up or a frame that comes down is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A frame, from the device.
    Up,
    /// A push, to the device.
    Down,
}

/// The identity of one frame or push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Frame or push.
    pub direction: Direction,
    /// The run that sent it. A log may hold the frames of earlier runs.
    pub run: u64,
    /// Index of the device in its fleet: sender of a frame, addressee of a push.
    pub device: u32,
    /// Place in the device's frames, or in the pushes to it; from 0 without gaps.
    pub sequence: u64,
    /// When the schedule wanted it sent, ns since the Unix epoch.
    pub intended_ns: u64,
    /// When it was first sent, ns since the Unix epoch.
    pub sent_ns: u64,
}

/// The form of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Fixed fields and padding.
    Binary,
    /// One JSON object.
    Json,
}

/// Why bytes are not a payload of any load tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Nothing at its start says that a load tool wrote it.
    #[error("not a payload of a load tool")]
    Foreign,
    /// A load tool wrote it and something changed it since.
    #[error("checksum does not fit the payload")]
    Corrupted,
}

impl Stamp {
    /// Appends the payload. It is `size` bytes long, or as long as the stamp needs if that is more.
    pub fn encode(&self, form: Form, size: usize, out: &mut Vec<u8>) {
        match form {
            Form::Binary => self.encode_binary(size, out),
            Form::Json => self.encode_json(size, out),
        }
    }

    /// Reads either form back.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        if payload.starts_with(&MAGIC) {
            Self::decode_binary(payload)
        } else if payload.starts_with(b"{\"hf\":") {
            Self::decode_json(payload)
        } else {
            Err(PayloadError::Foreign)
        }
    }

    fn encode_binary(&self, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        // Direction shares the top byte of the run, which `plan` keeps to 56 bits.
        out.extend_from_slice(&(self.run << 8 | u64::from(self.direction as u8)).to_be_bytes());
        out.extend_from_slice(&self.device.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.intended_ns.to_be_bytes());
        out.extend_from_slice(&self.sent_ns.to_be_bytes());
        let checksum_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let padding = size.saturating_sub(BINARY_BYTES_MIN);
        // Not zeros: a buffer that was never filled must not pass as padding.
        out.extend((0..padding).map(|index| (index as u8) ^ (self.sequence as u8)));
        let checksum =
            crc32c::crc32c_append(crc32c::crc32c(&out[start..checksum_at]), &out[checksum_at + 4..]);
        out[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_be_bytes());
    }

    fn decode_binary(payload: &[u8]) -> Result<Self, PayloadError> {
        let Some((head, padding)) = payload.split_at_checked(BINARY_BYTES_MIN) else {
            return Err(PayloadError::Corrupted);
        };
        let (fields, checksum) = head.split_at(CHECKSUM_AT);
        if crc32c::crc32c_append(crc32c::crc32c(fields), padding).to_be_bytes() != checksum {
            return Err(PayloadError::Corrupted);
        }
        let mut rest = &fields[MAGIC.len()..];
        let mut field = |length: usize| {
            let (value, after) = rest.split_at(length);
            rest = after;
            value.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let run = field(8);
        Ok(Self {
            direction: if run as u8 == 0 { Direction::Up } else { Direction::Down },
            run: run >> 8,
            device: field(4) as u32,
            sequence: field(8),
            intended_ns: field(8),
            sent_ns: field(8),
        })
    }

    fn encode_json(&self, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        // Writing into a `Vec` does not fail.
        let _ = write!(
            out,
            "{{\"hf\":\"{direction}\",\"run\":{},\"device\":{},\"seq\":{},\"intended\":{},\"sent\":{},\"pad\":\"",
            self.run, self.device, self.sequence, self.intended_ns, self.sent_ns
        );
        let rest = 1 + JSON_CHECKSUM.len() + 8 + 2;
        let padding = size.saturating_sub(out.len() - start + rest);
        out.extend((0..padding).map(|index| b'a' + ((index as u64 + self.sequence) % 26) as u8));
        out.push(b'"');
        let checksum = crc32c::crc32c(&out[start..]);
        let _ = write!(out, "{JSON_CHECKSUM}{checksum:08x}\"}}");
    }

    fn decode_json(payload: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            hf: &'a str,
            run: u64,
            device: u32,
            seq: u64,
            intended: u64,
            sent: u64,
            crc: &'a str,
        }
        let tail = JSON_CHECKSUM.len() + 8 + 2;
        let Some(covered) = payload.len().checked_sub(tail).map(|end| &payload[..end]) else {
            return Err(PayloadError::Corrupted);
        };
        let fields: Fields = serde_json::from_slice(payload).map_err(|_| PayloadError::Corrupted)?;
        let direction = match fields.hf {
            "up" => Direction::Up,
            "down" => Direction::Down,
            _ => return Err(PayloadError::Corrupted),
        };
        if fields.crc != format!("{:08x}", crc32c::crc32c(covered)) {
            return Err(PayloadError::Corrupted);
        }
        Ok(Self {
            direction,
            run: fields.run,
            device: fields.device,
            sequence: fields.seq,
            intended_ns: fields.intended,
            sent_ns: fields.sent,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            direction: Direction::Up,
            run: 0x00AB_CDEF_0123,
            device: 70_000,
            sequence: 9,
            intended_ns: 1_732_150_000_000_000_001,
            sent_ns: 1_732_150_000_000_200_000,
        }
    }

    #[test]
    fn a_payload_has_the_size_that_was_asked() {
        for form in [Form::Binary, Form::Json] {
            let mut bytes = Vec::new();
            stamp().encode(form, 300, &mut bytes);
            assert_eq!(bytes.len(), 300, "{form:?}");
        }
    }

    #[test]
    fn a_json_payload_is_json() {
        let mut bytes = Vec::new();
        stamp().encode(Form::Json, 200, &mut bytes);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["seq"], 9);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for form in [Form::Binary, Form::Json] {
            let mut bytes = Vec::new();
            stamp().encode(form, 256, &mut bytes);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Stamp::decode(&bytes).is_err(), "{form:?} bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(Stamp::decode(&bytes), Ok(stamp()));
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        for form in [Form::Binary, Form::Json] {
            let mut bytes = Vec::new();
            stamp().encode(form, 200, &mut bytes);
            for length in 0..bytes.len() {
                assert!(Stamp::decode(&bytes[..length]).is_err(), "{form:?} length {length}");
            }
        }
    }

    #[test]
    fn what_no_load_tool_wrote_is_foreign_and_not_corrupted() {
        assert_eq!(Stamp::decode(b"21.5"), Err(PayloadError::Foreign));
        assert_eq!(Stamp::decode(b""), Err(PayloadError::Foreign));
        assert_eq!(Stamp::decode(b"{\"temperature\":21.5}"), Err(PayloadError::Foreign));
    }

    proptest! {
        #[test]
        fn both_forms_read_back_what_was_written(
            down: bool, run in 0..1_u64 << 56, device: u32, sequence: u64, intended_ns: u64, sent_ns: u64, size in 0..400_usize,
        ) {
            let direction = if down { Direction::Down } else { Direction::Up };
            let stamp = Stamp { direction, run, device, sequence, intended_ns, sent_ns };
            for form in [Form::Binary, Form::Json] {
                let mut bytes = Vec::new();
                stamp.encode(form, size, &mut bytes);
                prop_assert_eq!(Stamp::decode(&bytes), Ok(stamp));
            }
        }

        #[test]
        fn reading_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            let _ = Stamp::decode(&bytes);
            let _ = Stamp::decode(&[&MAGIC[..], &bytes].concat());
            let _ = Stamp::decode(&[&b"{\"hf\":"[..], &bytes].concat());
        }
    }
}
