//! Any connected byte stream as a link's two halves.
//!
//! Each half waits only for what it waits for. A socket pair reports room each time its other end reads anything: a stream that always listened
//! for both would be woken twice for each batch.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected stream, not yet a link.
#[derive(Debug)]
pub enum LinkStream {
    /// One end of a pair within the process, as in `dev`.
    Unix(UnixStream),
    /// A gateway elsewhere.
    Tcp(TcpStream),
}

impl From<UnixStream> for LinkStream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl From<TcpStream> for LinkStream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl LinkStream {
    /// Must be called within the runtime that is to poll it.
    pub(super) fn into_halves(self) -> io::Result<(ReadHalf, WriteHalf)> {
        let for_writing = match &self {
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(stream.try_clone()?)
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                // Records are written in batches already; waiting for more would only delay acknowledgements.
                stream.set_nodelay(true)?;
                Self::Tcp(stream.try_clone()?)
            }
        };
        Ok((ReadHalf(listen_for(self, Interest::READABLE)?), WriteHalf(Arc::new(for_writing))))
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).read(into),
            Self::Tcp(stream) => (&mut &*stream).read(into),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).write(bytes),
            Self::Tcp(stream) => (&mut &*stream).write(bytes),
        }
    }
}

impl AsRawFd for LinkStream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

#[expect(
    deprecated,
    reason = "what took its place is unsafe for descriptors that could be closed while they are polled; a stream owns its own until the end"
)]
fn listen_for<T: AsRawFd>(stream: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(stream, interest)
}

/// What a link reads from.
pub(super) struct ReadHalf(AsyncFd<LinkStream>);

impl ReadHalf {
    /// Waits for bytes and reads what there is; 0 at the end of the stream. Dropping the future loses nothing.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|stream| stream.get_ref().read(into)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(read) => {
                    // Less than there was space for: the kernel has no more, and tells when it has.
                    if read.as_ref().is_ok_and(|read| (1..into.len()).contains(read)) {
                        ready.clear_ready();
                    }
                    return read;
                }
                // Nothing there after all; it waits again.
                Err(_) => {}
            }
        }
    }
}

/// What a link writes to: the same socket under a descriptor of its own, as it is polled on its own.
pub(super) struct WriteHalf(Arc<LinkStream>);

impl WriteHalf {
    /// Writes as much as the kernel takes, waiting until it takes some.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let room = listen_for(Arc::clone(&self.0), Interest::WRITABLE)?;
                    room.writable().await?.retain_ready();
                }
                written => return written,
            }
        }
    }
}

/// The shard hears at once that nothing more will come, though the other half may be read from for longer.
impl Drop for WriteHalf {
    fn drop(&mut self) {
        // It fails if the other end is gone, which then needs no word of it.
        let _ = match &*self.0 {
            LinkStream::Unix(stream) => stream.shutdown(Shutdown::Write),
            LinkStream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}
