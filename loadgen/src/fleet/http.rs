//! As much of an HTTP/1.1 client as `POST /v1/push` needs: one request after the other on a kept connection.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Head and body of an answer together; more is an error.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A connection that is opened when it is needed and again after each error.
pub(super) struct HttpClient {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl HttpClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Posts JSON. After an error the request may have been carried out or not.
    pub(super) async fn post(&mut self, path: &str, json: &[u8]) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            json.len()
        )
        .into_bytes();
        request.extend_from_slice(json);
        stream.write_all(&request).await?;
        let mut bytes = Vec::new();
        loop {
            if let Some((response, keep)) = read_response(&bytes)? {
                self.stream = keep.then_some(stream);
                return Ok(response);
            }
            if bytes.len() >= RESPONSE_BYTES_MAX {
                return Err(invalid("response is too large"));
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// `None`: more bytes are needed. The flag says whether the connection may be used again.
fn read_response(bytes: &[u8]) -> io::Result<Option<(Response, bool)>> {
    let Some(head_length) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_length]).map_err(|_| invalid("head is not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| invalid("no status line"))?;
    let (mut length, mut keep) = (None, true);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err(invalid("header without a colon")) };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length.ok_or_else(|| invalid("no content-length"))?;
    let body = &bytes[head_length + 4..];
    Ok(body.get(..length).map(|body| (Response { status, body: body.to_vec() }, keep)))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";

    #[test]
    fn a_response_is_read_once_it_is_whole() {
        for cut in 0..RESPONSE.len() {
            assert!(read_response(&RESPONSE[..cut]).unwrap().is_none(), "{cut}");
        }
        let (response, keep) = read_response(RESPONSE).unwrap().unwrap();
        assert_eq!(response, Response { status: 202, body: b"body".to_vec() });
        assert!(!keep);
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for bytes in
            [&b"MQTT\r\n\r\n"[..], b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xFF\r\n\r\n"]
        {
            assert!(read_response(bytes).is_err());
        }
    }
}
