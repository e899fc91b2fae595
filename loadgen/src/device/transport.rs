//! The bytes of one connection: TCP or WebSocket, reading and writing at once from one task, so that a device whose
//! writes are held back still hears its acknowledgements.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

/// Bytes waiting to be written beyond which a device takes no more frames from its schedule.
const BUSY_BYTES: usize = 64 << 10;

const READ_BYTES: usize = 8 << 10;

/// Devices that share a source address on the loopback interface.
const PER_SOURCE: u32 = 500;

/// Where the connections of a device come from.
///
/// On the loopback interface an address of its own for every few devices. If all came from one, the kernel would search ever longer for a free
/// port: with 15,000 devices that took more than four fifths of the load tool's CPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source(Ipv4Addr);

impl Source {
    pub(super) fn of(device: u32) -> Self {
        // All of 127.0.0.0/8 leads here. A million devices need 2,000 addresses.
        let [.., high, low] = (device / PER_SOURCE).to_be_bytes();
        Self(Ipv4Addr::new(127, 1, high, low))
    }

    async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.0, 0).into())?;
            socket.connect(address).await?
        } else {
            TcpStream::connect(address).await?
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What a turn brought.
#[derive(Debug)]
pub(super) enum Turn {
    /// Bytes were appended to the inbound buffer.
    Bytes,
    /// A text message.
    Text(Utf8Bytes),
    /// Everything queued is written.
    Written,
}

/// One connection.
pub(super) enum Transport {
    /// Packets one after the other.
    Tcp {
        stream: TcpStream,
        /// Bounded by the caller, who asks [`Transport::is_busy`] before each frame.
        outbound: Vec<u8>,
    },
    /// One message for each packet or JSON message.
    WebSocket {
        stream: Box<WebSocketStream<TcpStream>>,
        text: bool,
        /// Bounded as above.
        outbound: VecDeque<Message>,
        outbound_bytes: usize,
        unflushed: bool,
    },
}

impl Transport {
    /// Plain TCP.
    pub(super) async fn tcp(address: SocketAddr, source: Source) -> io::Result<Self> {
        let stream = source.connect(address).await?;
        Ok(Self::Tcp { stream, outbound: Vec::new() })
    }

    /// A WebSocket at `path` with the subprotocol; `text` says what kind of messages it sends.
    pub(super) async fn web_socket(
        address: SocketAddr,
        source: Source,
        path: &str,
        subprotocol: &'static str,
        text: bool,
    ) -> io::Result<Self> {
        let stream = source.connect(address).await?;
        let mut request = format!("ws://{address}{path}").into_client_request().map_err(io_error)?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
        // The library's default is a read buffer of 128 KiB for each connection: 20,000 devices would need 2.5 GiB.
        let config = WebSocketConfig::default().read_buffer_size(2 << 10).write_buffer_size(0);
        let (stream, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .map_err(io_error)?;
        let stream = Box::new(stream);
        Ok(Self::WebSocket { stream, text, outbound: VecDeque::new(), outbound_bytes: 0, unflushed: false })
    }

    /// Takes bytes to write: one packet or message, or nothing.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Tcp { outbound, .. } => outbound.extend_from_slice(bytes),
            Self::WebSocket { text, outbound, outbound_bytes, .. } => {
                let message = match std::str::from_utf8(bytes) {
                    Ok(string) if *text => Message::text(string),
                    _ => Message::binary(bytes.to_vec()),
                };
                *outbound_bytes += bytes.len();
                outbound.push_back(message);
            }
        }
    }

    /// Whether more than enough waits to be written.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Tcp { outbound, .. } => outbound.len() > BUSY_BYTES,
            Self::WebSocket { outbound_bytes, .. } => *outbound_bytes > BUSY_BYTES,
        }
    }

    /// Reads and writes until something is worth telling. May be dropped at any point without losing a byte.
    pub(super) async fn turn(&mut self, inbound: &mut Vec<u8>) -> io::Result<Turn> {
        std::future::poll_fn(|context| self.poll_turn(context, inbound)).await
    }

    fn poll_turn(&mut self, context: &mut Context<'_>, inbound: &mut Vec<u8>) -> Poll<io::Result<Turn>> {
        if let Poll::Ready(true) = self.poll_write(context)? {
            return Poll::Ready(Ok(Turn::Written));
        }
        match self {
            Self::Tcp { stream, .. } => {
                let mut bytes = [0; READ_BYTES];
                let mut buffer = ReadBuf::new(&mut bytes);
                ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                inbound.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(Turn::Bytes))
            }
            Self::WebSocket { stream, unflushed, .. } => loop {
                match ready!(Pin::new(&mut *stream).poll_next(context)) {
                    Some(Ok(Message::Binary(bytes))) => {
                        inbound.extend_from_slice(&bytes);
                        return Poll::Ready(Ok(Turn::Bytes));
                    }
                    Some(Ok(Message::Text(text))) => return Poll::Ready(Ok(Turn::Text(text))),
                    // The library has queued the pong; the next write flushes it.
                    Some(Ok(Message::Ping(_))) => *unflushed = true,
                    Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) | None => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                }
            },
        }
    }

    /// Ready(true): something was written and nothing waits any more. Ready(false): nothing waited.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self {
            Self::Tcp { stream, outbound } => {
                let mut written = false;
                while !outbound.is_empty() {
                    let count = ready!(Pin::new(&mut *stream).poll_write(context, outbound))?;
                    outbound.drain(..count);
                    written = true;
                }
                if outbound.capacity() > BUSY_BYTES {
                    *outbound = Vec::new();
                }
                Poll::Ready(Ok(written))
            }
            Self::WebSocket { stream, outbound, outbound_bytes, unflushed, .. } => {
                let mut stream = Pin::new(&mut **stream);
                while !outbound.is_empty() {
                    ready!(stream.as_mut().poll_ready(context)).map_err(io_error)?;
                    let Some(message) = outbound.pop_front() else { break };
                    *outbound_bytes -= message.len();
                    stream.as_mut().start_send(message).map_err(io_error)?;
                    *unflushed = true;
                }
                if !*unflushed {
                    return Poll::Ready(Ok(false));
                }
                ready!(stream.poll_flush(context)).map_err(io_error)?;
                *unflushed = false;
                Poll::Ready(Ok(true))
            }
        }
    }
}

fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn devices_on_the_loopback_interface_come_from_several_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (device, source) in [(0, [127, 1, 0, 0]), (499, [127, 1, 0, 0]), (500, [127, 1, 0, 1])] {
            let (stream, accepted) = tokio::join!(Source::of(device).connect(address), listener.accept());
            assert!(stream.unwrap().nodelay().unwrap());
            assert_eq!(accepted.unwrap().1.ip(), IpAddr::from(source));
        }
    }
}
