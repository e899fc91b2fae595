//! The byte stream under a link: a socket pair within one process, TCP between two.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

/// A non-blocking stream to a bridge.
#[derive(Debug)]
pub(super) enum LinkStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A bridge whose host vanished is noticed within this time while nothing is on its way to it, and otherwise by its silence. No user timeout of TCP: a bridge that lives
/// and reads nothing, because its sink takes nothing, would run into it.
const SILENCE_MAX: Duration = Duration::from_secs(10);

impl LinkStream {
    /// Takes one end of a socket pair.
    pub(super) fn from_pair(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(UnixStream::from_std(stream)))
    }

    /// Begins to connect; writable once it is.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        let socket = SockRef::from(&stream);
        // A batch is written once a turn and is to leave at once.
        socket.set_tcp_nodelay(true)?;
        let probe = TcpKeepalive::new()
            .with_time(SILENCE_MAX / 2)
            .with_interval(Duration::from_secs(1))
            .with_retries(SILENCE_MAX.as_secs() as u32 / 2);
        socket.set_tcp_keepalive(&probe)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether a connection attempt has come to its end, and to which.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let Self::Tcp(stream) = self else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the poll report this stream.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self.source(), token, interest)
    }

    /// Changes what the poll reports.
    pub(super) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self.source(), token, interest)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }
}

impl Read for LinkStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for LinkStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
