//! The ways an upgrade request can be turned down, each with the HTTP answer its sender hears.

use std::io::Write;

/// Why a connection does not become a WebSocket. The connection is closed behind the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not an HTTP/1.1 request, or a header that the upgrade needs is missing or wrong; says which.
    #[error("{0}")]
    BadRequest(&'static str),
    /// No valid token, or none at all.
    #[error("a valid token is required")]
    Unauthorized,
    /// Known, and not allowed here: an origin or a client id that this device may not use.
    #[error("not allowed")]
    Forbidden,
    /// Nothing listens at this path.
    #[error("nothing listens at this path")]
    NotFound,
    /// A WebSocket begins with GET.
    #[error("a WebSocket begins with GET")]
    MethodNotAllowed,
    /// The request does not ask for version 13 of the WebSocket protocol.
    #[error("only a WebSocket of version 13 is spoken here")]
    UpgradeRequired,
    /// The head is larger than [`HEAD_BYTES_MAX`](super::handshake::HEAD_BYTES_MAX), or has more headers than
    /// [`HEADERS_MAX`](super::handshake::HEADERS_MAX).
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// The node sheds load, drains, or cannot reach what it needs to admit this device.
    #[error("the server is busy, come back later")]
    Busy {
        /// When to try again, for `Retry-After`.
        retry_after_s: u32,
    },
}

impl Refusal {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge => 431,
            Self::Busy { .. } => 503,
        }
    }

    /// Appends the whole HTTP response: one line of text that repeats this error's message.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let (reason, header) = match self {
            Self::BadRequest(_) => ("Bad Request", ""),
            Self::Unauthorized => ("Unauthorized", "WWW-Authenticate: Bearer\r\n"),
            Self::Forbidden => ("Forbidden", ""),
            Self::NotFound => ("Not Found", ""),
            Self::MethodNotAllowed => ("Method Not Allowed", "Allow: GET\r\n"),
            // RFC 9110, section 15.5.22, and RFC 6455, section 4.4: the answer names what would be taken.
            Self::UpgradeRequired => {
                ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
            }
            Self::HeadTooLarge => ("Request Header Fields Too Large", ""),
            Self::Busy { .. } => ("Service Unavailable", ""),
        };
        let connection = if matches!(self, Self::UpgradeRequired) { "Upgrade, close" } else { "close" };
        let body = format!("{self}\n");
        write!(out, "HTTP/1.1 {} {reason}\r\n{header}Connection: {connection}\r\n", self.status())
            .and_then(|()| match self {
                Self::Busy { retry_after_s } => write!(out, "Retry-After: {retry_after_s}\r\n"),
                _ => Ok(()),
            })
            .and_then(|()| {
                write!(out, "Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            })
            .expect("writing to a Vec does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(refusal: Refusal) -> String {
        let mut out = Vec::new();
        refusal.write_response(&mut out);
        String::from_utf8(out).expect("the answer is text")
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        assert_eq!(
            response(Refusal::Busy { retry_after_s: 7 }),
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 7\r\nContent-Type: text/plain\r\n\
             Content-Length: 36\r\n\r\nthe server is busy, come back later\n"
        );
    }

    #[test]
    fn the_wrong_version_is_told_the_right_one() {
        let response = response(Refusal::UpgradeRequired);
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
        assert!(response.contains("\r\nConnection: Upgrade, close\r\n"), "{response}");
    }

    #[test]
    fn every_refusal_is_a_whole_http_response() {
        for refusal in [
            Refusal::BadRequest("no"),
            Refusal::Unauthorized,
            Refusal::Forbidden,
            Refusal::NotFound,
            Refusal::MethodNotAllowed,
            Refusal::UpgradeRequired,
            Refusal::HeadTooLarge,
            Refusal::Busy { retry_after_s: 1 },
        ] {
            let response = response(refusal);
            let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{response}");
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status())), "{response}");
        }
    }
}
