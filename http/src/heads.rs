//! Heads of requests that the HTTP library refuses by itself, before any route is asked: it answers with a status and no body. Here such an
//! answer becomes a problem like every other, on its way out.
//!
//! Whatever our routes answer has a body where its status is one of these, so an answer without one is the library's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::{Kind, Problem};

/// Longest head of a request, in bytes, from its first line to the empty one behind its headers. Twice what the longest address needs; a connection keeps
/// as much of one that is still coming.
pub(crate) const HEAD_BYTES_MAX: usize = 131_072;

/// A connection that says what is wrong with a head.
pub(crate) struct Outspoken<Io> {
    io: Io,
    /// What is still to be written of a problem; a few hundred bytes at most, as nothing else is taken before it is out.
    rest: Vec<u8>,
    written: usize,
}

impl<Io: AsyncWrite + Unpin> Outspoken<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, rest: Vec::new(), written: 0 }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.rest.len() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.rest[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.rest = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// What to write in place of an answer without a body, if this is one.
fn outspoken(answer: &[u8]) -> Option<Vec<u8>> {
    let status = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    let (kind, detail) = match status {
        b"400" => (Kind::Malformed, "the head of the request is not as HTTP/1.1 has it".to_owned()),
        b"414" => (Kind::AddressTooLong, "an address has at most 65534 bytes, escapes included".to_owned()),
        b"431" => (
            Kind::HeadTooLarge,
            format!("at most 100 headers, and {HEAD_BYTES_MAX} bytes with the first line"),
        ),
        _ => return None,
    };
    let is_bare = answer.windows(EMPTY.len()).any(|bytes| bytes == EMPTY);
    is_bare.then(|| Problem::new(kind, detail).last_answer())
}

const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

impl<Io: AsyncWrite + Unpin> AsyncWrite for Outspoken<Io> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        let Some(answer) = slices.first().and_then(|first| outspoken(first)) else {
            return Pin::new(&mut self.io).poll_write_vectored(context, slices);
        };
        self.rest = answer;
        // What of it does not leave now leaves with the flush, or before whatever comes next.
        match self.poll_rest(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Outspoken<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_answers_without_a_body_is_told_in_words() {
        let bare =
            |status: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        for (status, kind) in [
            ("400 Bad Request", "malformed"),
            ("414 URI Too Long", "address-too-long"),
            ("431 Request Header Fields Too Large", "head-too-large"),
        ] {
            let told = String::from_utf8(outspoken(bare(status).as_bytes()).unwrap()).unwrap();
            assert!(told.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{told}");
            assert!(told.contains(&format!("\"type\":\"/v1/problems/{kind}\"")), "{told}");
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{told}");
        }
        let told = "HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n";
        for other in [&*bare("202 Accepted"), told, "HTTP/1.1 4", "", "data: HTTP/1.1 414 "] {
            assert_eq!(outspoken(other.as_bytes()), None, "{other}");
        }
    }
}
