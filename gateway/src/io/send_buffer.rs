//! Bytes that a socket's kernel buffer did not take.

/// What a device has not read yet. Exists only while something waits: promise P9.
///
/// Bound: the one that each [`push`](SendBuffer::push) is given. Full: the push is refused and its connection closed as a slow
/// consumer, because a packet that was cut in the middle can never be mended.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

/// The bytes would exceed the bound; none was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl SendBuffer {
    /// Appends `bytes` behind what waits.
    pub(crate) fn push(&mut self, bytes: &[u8], bytes_max: usize) -> Result<(), Overflow> {
        if self.waiting().len() + bytes.len() > bytes_max {
            return Err(Overflow);
        }
        // Moving the rest down before growing keeps the allocation near what really waits.
        if self.sent > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// What waits, oldest first.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The kernel took `count` bytes off the front.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.bytes.len());
    }

    /// Whether nothing waits any more: time to free the buffer.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came_however_they_are_cut() {
        let mut buffer = SendBuffer::default();
        let mut out = Vec::new();
        for round in 0..100_u8 {
            buffer.push(&[round; 7], 1_000).unwrap();
            let take = usize::from(round % 9).min(buffer.waiting().len());
            out.extend_from_slice(&buffer.waiting()[..take]);
            buffer.advance(take);
        }
        out.extend_from_slice(buffer.waiting());
        buffer.advance(buffer.waiting().len());
        assert!(buffer.is_empty());
        let expected: Vec<u8> = (0..100_u8).flat_map(|round| [round; 7]).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut buffer = SendBuffer::default();
        buffer.push(b"12345678", 10).unwrap();
        assert_eq!(buffer.push(b"abc", 10), Err(Overflow));
        assert_eq!(buffer.waiting(), b"12345678");
        buffer.advance(4);
        assert_eq!(buffer.push(b"abc", 10), Ok(()));
        assert_eq!(buffer.waiting(), b"5678abc");
    }
}
