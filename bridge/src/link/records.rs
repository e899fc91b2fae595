//! Reads a byte stream in large chunks and cuts it into records.

use std::io;

use super::stream::ReadHalf;
use holdfast_wire::link::{LinkError, ToBridge, next_record};

/// Read at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Read at once from someone who has not said who it is: a Hello and more.
const STRANGER_CHUNK_BYTES: usize = 4 << 10;

/// The reading end of a link. Holds at most one incomplete record and a chunk; grows with what has arrived, not with
/// what was announced.
pub(super) struct Records {
    read: ReadHalf,
    /// What was read and not let go of is in front, up to `filled`; behind it is space.
    buffer: Vec<u8>,
    filled: usize,
    chunk_bytes: usize,
}

impl Records {
    pub(super) fn new(read: ReadHalf) -> Self {
        Self { read, buffer: Vec::new(), filled: 0, chunk_bytes: STRANGER_CHUNK_BYTES }
    }

    /// The other end has shown that it is a shard: from now on there are large chunks.
    pub(super) fn trust(&mut self) {
        self.chunk_bytes = CHUNK_BYTES;
    }

    /// Reads what there is; 0 at the end of the stream. Dropping the future loses nothing.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.len() - self.filled < self.chunk_bytes / 2 {
            self.buffer.resize(self.filled + self.chunk_bytes, 0);
        }
        let read = self.read.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        Ok(read)
    }

    /// What was read and not let go of: complete records, and the beginning of one. It stays until [`Records::drop_front`] is told of it.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Lets go of bytes at the front.
    pub(super) fn drop_front(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        if self.filled == 0 && self.buffer.len() > 4 * CHUNK_BYTES {
            self.buffer = Vec::new();
        }
    }
}

/// Cuts the first complete record off `bytes`, with its length in the stream.
pub(super) fn cut<'a>(bytes: &mut &'a [u8]) -> Result<Option<(ToBridge<'a>, usize)>, LinkError> {
    let before = bytes.len();
    let Some(raw) = next_record(bytes)? else { return Ok(None) };
    Ok(Some((ToBridge::decode(raw)?, before - bytes.len())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::link::LinkStream;

    #[tokio::test]
    async fn a_stranger_costs_little_memory() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (read, _write) = LinkStream::from(near).into_halves().unwrap();
        let mut records = Records::new(read);
        far.write_all(&[1]).unwrap();
        records.fill().await.unwrap();
        assert_eq!(records.buffer.capacity(), STRANGER_CHUNK_BYTES);
        records.trust();
        far.write_all(&[1]).unwrap();
        records.fill().await.unwrap();
        assert!(records.buffer.len() > CHUNK_BYTES);
        assert_eq!(records.unread().len(), 2);
    }
}
