//! One client socket: non-blocking reads and writes, and how far its closing has come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use holdfast_engine::SocketEnd;
use mio::net::TcpStream;
use socket2::SockRef;

use super::send_buffer::{Overflow, SendBuffer};

/// A connection's end of the network. As small as it can be, since there is one for each connection; the peer's address is
/// asked of the kernel when someone wants to know it.
///
/// ```text
/// Open ──close──> Flushing ──all sent──> Lingering ──FIN, reset or 1 s──> (closed)
///                     └──────────── reset or 1 s ──────────────────────────^
/// ```
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    unsent: Option<Box<SendBuffer>>,
    pub(super) generation: u32,
    stage: Stage,
    flags: u8,
}

/// How far the closing of a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In use.
    Open,
    /// The engine closed it; what it said last is still on its way into the kernel.
    Flushing,
    /// Our side is finished; bytes of the peer are thrown away until it finishes too. Closing with unread bytes would
    /// send a reset, which can destroy our last words before the peer reads them.
    Lingering,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Bytes; `more` says that the kernel may hold further ones and that no event will tell.
    Bytes {
        /// How many.
        length: usize,
        /// Read again.
        more: bool,
    },
    /// Nothing is there.
    Empty,
    /// The connection is over.
    End(SocketEnd),
}

/// What a write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// Everything is in the kernel.
    Sent,
    /// The rest waits, where nothing waited before.
    Blocked,
    /// The rest waits behind others.
    StillBlocked,
    /// The send buffer's bound is reached: the device does not read.
    Overflow,
    /// The connection is over.
    End(SocketEnd),
}

const QUEUED: u8 = 0b01;
const PEER_FINISHED: u8 = 0b10;

impl Socket {
    pub(super) fn new(stream: TcpStream, generation: u32) -> Self {
        Self { stream, unsent: None, generation, stage: Stage::Open, flags: 0 }
    }

    /// One read into `scratch`. A read that does not fill it has emptied the kernel's buffer, so there is no second
    /// one just to see `EAGAIN`; only after the peer's FIN, which an edge reports once, the end itself must be read.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> ReadOutcome {
        match uninterrupted(|| self.stream.read(scratch)) {
            Ok(0) => ReadOutcome::End(SocketEnd::Fin),
            Ok(length) => {
                ReadOutcome::Bytes { length, more: length == scratch.len() || self.has(PEER_FINISHED) }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => ReadOutcome::Empty,
            Err(error) => ReadOutcome::End(end_of(&error)),
        }
    }

    /// Sends `bytes`, or as much as the kernel takes; the rest waits in a send buffer of at most `unsent_bytes_max`.
    pub(crate) fn write(&mut self, bytes: &[u8], unsent_bytes_max: usize) -> WriteOutcome {
        if let Some(unsent) = &mut self.unsent {
            return match unsent.push(bytes, unsent_bytes_max) {
                Ok(()) => WriteOutcome::StillBlocked,
                Err(Overflow) => WriteOutcome::Overflow,
            };
        }
        let taken = match uninterrupted(|| self.stream.write(bytes)) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return WriteOutcome::End(end_of(&error)),
        };
        if taken == bytes.len() {
            return WriteOutcome::Sent;
        }
        let mut unsent = Box::<SendBuffer>::default();
        match unsent.push(&bytes[taken..], unsent_bytes_max) {
            Ok(()) => {
                self.unsent = Some(unsent);
                WriteOutcome::Blocked
            }
            Err(Overflow) => WriteOutcome::Overflow,
        }
    }

    /// The kernel has room again: sends on. `Sent` if the send buffer is empty now, and freed.
    pub(crate) fn write_on(&mut self) -> WriteOutcome {
        let Some(unsent) = &mut self.unsent else { return WriteOutcome::Sent };
        while !unsent.is_empty() {
            match uninterrupted(|| self.stream.write(unsent.waiting())) {
                Ok(taken) => unsent.advance(taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return WriteOutcome::StillBlocked,
                Err(error) => return WriteOutcome::End(end_of(&error)),
            }
        }
        self.unsent = None;
        WriteOutcome::Sent
    }

    /// Whether bytes wait in the send buffer.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// Bytes in the send buffer.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.as_ref().map_or(0, |unsent| unsent.waiting().len())
    }

    /// How far its closing has come.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// The engine has said its last word.
    pub(crate) fn start_flushing(&mut self) {
        self.stage = Stage::Flushing;
    }

    /// Sends FIN and waits for the peer's.
    pub(crate) fn start_lingering(&mut self) -> io::Result<()> {
        self.stage = Stage::Lingering;
        self.stream.shutdown(Shutdown::Write)
    }

    /// The error that the poll reported, as the way in which the connection ended.
    pub(crate) fn take_end(&self) -> SocketEnd {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => end_of(&error),
            Ok(None) => SocketEnd::Reset,
        }
    }

    /// Where the other end is, as far as the kernel still knows.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Makes the close that follows a reset: nothing that waits in the kernel is worth its memory any more.
    pub(crate) fn reset_on_close(&self) {
        // It fails only on a socket that is gone already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The peer's FIN was reported.
    pub(crate) fn note_peer_finished(&mut self) {
        self.flags |= PEER_FINISHED;
    }

    /// Whether the peer has finished, and everything that it sent was read.
    pub(crate) fn is_over(&self) -> bool {
        self.has(PEER_FINISHED) && matches!(self.stream.peek(&mut [0]), Ok(0))
    }

    /// Marks the socket as a member of the shard's ready list; false if it was one.
    pub(crate) fn enqueue(&mut self) -> bool {
        let newly = !self.has(QUEUED);
        self.flags |= QUEUED;
        newly
    }

    /// The socket left the shard's ready list.
    pub(crate) fn dequeue(&mut self) {
        self.flags &= !QUEUED;
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// How an error ends a connection.
fn end_of(error: &io::Error) -> SocketEnd {
    match error.kind() {
        ErrorKind::TimedOut => SocketEnd::TimedOut,
        _ => SocketEnd::Reset,
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
