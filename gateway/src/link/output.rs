//! Bytes to a bridge.

use std::io::{self, ErrorKind, Write};

/// A batch of records on its way into the kernel, while the engine fills the next one.
///
/// Bound: one batch and what the engine says meanwhile. Of both, uplinks are bounded by the link's window; full, devices are not read. The rest of what is said
/// meanwhile is bounded by [`Engine::link_overflows`](holdfast_engine::Engine::link_overflows); full, the link is closed and dialled again. So a batch
/// holds no more of it either, but for the first one: all that is said as the link comes up, which is as much as there are filters and takeovers.
#[derive(Debug, Default)]
pub(super) struct Output {
    batch: Vec<u8>,
    sent: usize,
}

/// An emptied batch that is larger is given back to the allocator.
const KEPT_BYTES_MAX: usize = 1 << 20;

impl Output {
    /// Puts `bytes` first where nothing waits.
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty());
        self.batch.extend_from_slice(bytes);
    }

    /// Sends the batch, then what the engine wrote meanwhile; true if the kernel took it all.
    pub(super) fn send(&mut self, stream: &mut impl Write, next: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if self.is_empty() {
                self.recycle();
                if next.is_empty() {
                    return Ok(true);
                }
                std::mem::swap(&mut self.batch, next);
            }
            match stream.write(&self.batch[self.sent..]) {
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.batch.len()
    }

    /// Forgets what waits: the link is gone, and what matters is said again on the next one.
    pub(super) fn clear(&mut self) {
        self.sent = self.batch.len();
        self.recycle();
    }

    fn recycle(&mut self) {
        self.sent = 0;
        self.batch.clear();
        self.batch.shrink_to(KEPT_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then blocks.
    #[derive(Default)]
    struct Kernel {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Kernel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.room.min(bytes.len());
            if length == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= length;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn batches_leave_in_order_however_little_the_kernel_takes() {
        let mut kernel = Kernel::default();
        let mut output = Output::default();
        let mut next = Vec::new();
        let mut expected = Vec::new();
        for round in 0..200_u8 {
            next.extend_from_slice(&[round; 5]);
            expected.extend_from_slice(&[round; 5]);
            kernel.room = usize::from(round % 11);
            output.send(&mut kernel, &mut next).unwrap();
        }
        kernel.room = usize::MAX;
        assert!(output.send(&mut kernel, &mut next).unwrap());
        assert_eq!(kernel.taken, expected);
        assert!(output.is_empty() && next.is_empty());
    }
}
