//! Bytes from a bridge, until they make up records.

use std::io::{self, ErrorKind, Read};

use holdfast_wire::link::{LinkError, RawRecord, next_record};

/// What has been read from a link and not been understood yet.
///
/// Bound: [`CHUNK_BYTES`], and for a record longer than that its announced length (at most
/// [`RECORD_BYTES_MAX`](holdfast_wire::link::RECORD_BYTES_MAX)), approached by doubling as its bytes really arrive and given
/// back afterwards.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// Nothing is there.
    Empty,
    /// All that was there.
    Some,
    /// There may be more.
    Full,
    /// The bridge closed its side.
    Closed,
}

/// What a read asks for, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// Length of a record's length field.
const LENGTH_BYTES: usize = 4;

impl Input {
    /// One read into the free space.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<Filled> {
        self.make_room();
        loop {
            return match stream.read(&mut self.bytes[self.end..]) {
                Ok(0) => Ok(Filled::Closed),
                Ok(length) => {
                    self.end += length;
                    Ok(if self.end == self.bytes.len() { Filled::Full } else { Filled::Some })
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Empty),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// The next whole record.
    pub(super) fn next_record(&mut self) -> Result<Option<RawRecord<'_>>, LinkError> {
        let mut rest = &self.bytes[self.start..self.end];
        let record = next_record(&mut rest)?;
        self.start = self.end - rest.len();
        Ok(record)
    }

    /// Forgets everything: the link is gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sees to it that a read has space, and that no more space is held than is needed.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = match self.bytes[..self.end].first_chunk::<LENGTH_BYTES>() {
            Some(length) => LENGTH_BYTES + u32::from_le_bytes(*length) as usize,
            None => 0,
        };
        if self.bytes.len() > CHUNK_BYTES && self.end < CHUNK_BYTES && wanted <= CHUNK_BYTES {
            self.bytes.truncate(CHUNK_BYTES);
            self.bytes.shrink_to_fit();
        } else if self.end == self.bytes.len() {
            // Full without a whole record, or never used.
            self.bytes.resize(wanted.min(2 * self.end).max(CHUNK_BYTES), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::link::ToGateway;

    use super::*;

    /// Gives at most `step` bytes a read and `WouldBlock` at the end.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let length = self.step.min(into.len()).min(self.bytes.len());
            let (now, later) = self.bytes.split_at(length);
            into[..length].copy_from_slice(now);
            self.bytes = later;
            Ok(length)
        }
    }

    fn tokens_read(bytes: &[u8], step: usize) -> Vec<u64> {
        let mut stream = Trickle { bytes, step };
        let mut input = Input::default();
        let mut tokens = Vec::new();
        while input.fill(&mut stream).unwrap() != Filled::Empty {
            while let Some(raw) = input.next_record().unwrap() {
                if let ToGateway::InterestKnown(token) = ToGateway::decode(raw).unwrap() {
                    tokens.push(token);
                }
            }
        }
        tokens
    }

    #[test]
    fn records_arrive_whole_however_the_stream_is_cut() {
        let mut bytes = Vec::new();
        (0..500).for_each(|token| ToGateway::InterestKnown(token).encode(&mut bytes));
        for step in [1, 3, 13, 4_096, usize::MAX] {
            assert!(tokens_read(&bytes, step).into_iter().eq(0..500), "in steps of {step}");
        }
    }

    #[test]
    fn a_long_record_grows_the_buffer_only_while_it_lasts() {
        let long = "x".repeat(60_000);
        let mut bytes = Vec::new();
        let message = holdfast_wire::message::Message {
            id: 1,
            topic: &long,
            qos: holdfast_wire::mqtt::QoS::AtMostOnce,
            retain: false,
            publisher: "",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: &vec![7; 3_000_000],
        };
        ToGateway::RetainedMessage { token: 1, message }.encode(&mut bytes);
        let record_bytes = bytes.len();
        ToGateway::InterestKnown(2).encode(&mut bytes);
        let mut stream = Trickle { bytes: &bytes, step: 100_000 };
        let mut input = Input::default();
        let mut records = 0;
        while input.fill(&mut stream).unwrap() != Filled::Empty {
            assert!(input.bytes.len() <= record_bytes.max(CHUNK_BYTES));
            while input.next_record().unwrap().is_some() {
                records += 1;
            }
        }
        assert_eq!(records, 2);
        assert!(input.bytes.capacity() <= 2 * CHUNK_BYTES, "{} bytes are held", input.bytes.capacity());
    }

    #[test]
    fn an_announced_length_alone_reserves_nothing() {
        let mut announced = 200_000_000_u32.to_le_bytes().to_vec();
        announced.extend_from_slice(&[0; 100]);
        let mut stream = Trickle { bytes: &announced, step: 10 };
        let mut input = Input::default();
        while input.fill(&mut stream).unwrap() != Filled::Empty {
            assert!(input.next_record().unwrap().is_none());
        }
        assert_eq!(input.bytes.len(), CHUNK_BYTES);
    }
}
