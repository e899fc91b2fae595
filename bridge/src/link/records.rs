//! Reads a byte stream in large chunks and cuts it into records.

use std::io;

use holdfast_wire::link::{LinkError, ToBridge, next_record};
use tokio::io::AsyncReadExt;

use super::stream::ReadHalf;

/// Read at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// The reading end of a link. Holds at most one incomplete record and a chunk; grows with what has arrived, not with
/// what was announced.
pub(super) struct Records {
    read: ReadHalf,
    buffer: Vec<u8>,
}

impl Records {
    pub(super) fn new(read: ReadHalf) -> Self {
        Self { read, buffer: Vec::new() }
    }

    /// Reads what there is; 0 at the end of the stream. Dropping the future loses nothing.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(CHUNK_BYTES);
        self.read.read_buf(&mut self.buffer).await
    }

    /// Bytes that were read and not let go of.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The first complete record, with its length in the stream. It stays until [`Records::drop_front`] is told that length.
    pub(super) fn peek(&self, passed: usize) -> Result<Option<(ToBridge<'_>, usize)>, LinkError> {
        let mut rest = &self.buffer[passed..];
        let before = rest.len();
        let Some(raw) = next_record(&mut rest)? else { return Ok(None) };
        Ok(Some((ToBridge::decode(raw)?, before - rest.len())))
    }

    /// Lets go of bytes at the front.
    pub(super) fn drop_front(&mut self, bytes: usize) {
        if bytes == self.buffer.len() {
            self.buffer.clear();
            if self.buffer.capacity() > 4 * CHUNK_BYTES {
                self.buffer = Vec::new();
            }
        } else {
            self.buffer.drain(..bytes);
        }
    }
}
