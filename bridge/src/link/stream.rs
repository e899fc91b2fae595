//! Any connected byte stream as a link's two halves.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a link reads from.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// What a link writes to.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A connected stream, not yet a link.
#[derive(Debug)]
pub enum LinkStream {
    /// One end of a pair within the process, as in `dev`.
    Unix(std::os::unix::net::UnixStream),
    /// A gateway elsewhere.
    Tcp(std::net::TcpStream),
}

impl From<std::os::unix::net::UnixStream> for LinkStream {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl From<std::net::TcpStream> for LinkStream {
    fn from(stream: std::net::TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl LinkStream {
    /// Must be called within the runtime that is to poll it.
    pub(super) fn into_halves(self) -> io::Result<(ReadHalf, WriteHalf)> {
        match self {
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                let (read, write) = tokio::net::UnixStream::from_std(stream)?.into_split();
                Ok((Box::new(read), Box::new(write)))
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                // Records are written in batches already; waiting for more would only delay acknowledgements.
                stream.set_nodelay(true)?;
                let (read, write) = tokio::net::TcpStream::from_std(stream)?.into_split();
                Ok((Box::new(read), Box::new(write)))
            }
        }
    }
}
