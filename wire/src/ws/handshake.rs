//! The opening handshake: one HTTP/1.1 request in, `101 Switching Protocols` or a [`Refusal`] out
//! (RFC 6455, section 4.2).
//!
//! The caller keeps the bytes until the head is complete; what is known to be wrong is refused before that.
//! Whether anything listens at the path, and who the device is, are the caller's to judge.

use tungstenite::handshake::derive_accept_key;

use super::Refusal;

/// Bytes of the request's head, its closing empty line included.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Headers in the request.
pub const HEADERS_MAX: usize = 64;

/// How far the request has come.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeStep<'a> {
    /// The head is not complete; nothing is wrong with it so far.
    NeedMore,
    /// A request for a WebSocket that can be answered with [`Upgrade::write_response`] or a [`Refusal`].
    Accepted(Upgrade<'a>),
    /// To be answered with [`Refusal::write_response`] and closed.
    Refused(Refusal),
}

/// A valid upgrade request, borrowed from the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// Bytes of the head; what lies behind it is the first frame already.
    pub consumed: usize,
    /// The path as sent, percent-encoded; begins with `/`.
    pub path: &'a str,
    /// What stands behind `?`, as sent.
    pub query: Option<&'a str>,
    /// The first of the client's subprotocols that is spoken here; `None` if it names none of them.
    pub subprotocol: Option<Subprotocol>,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `Host` header.
    pub host: &'a str,
    /// The `Origin` header, which browsers send.
    pub origin: Option<&'a str>,
    /// The value of `Sec-WebSocket-Accept` that proves the request was understood.
    pub accept_key: [u8; 28],
    /// The chosen subprotocol by the name the client used for it.
    subprotocol_name: &'static str,
}

/// What is spoken over the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// MQTT 3.1.1 or 5 in binary messages, by the name `mqtt` ([MQTT-6.0.0-3]) or, from older clients, `mqttv3.1`.
    Mqtt,
    /// The JSON device protocol in text messages, `holdfast.v1`.
    HoldfastV1,
}

/// Reads an upgrade request from the first bytes of a connection.
pub fn read_request(bytes: &[u8]) -> HandshakeStep<'_> {
    match read_head(bytes) {
        Ok(Some(upgrade)) => HandshakeStep::Accepted(upgrade),
        Ok(None) => HandshakeStep::NeedMore,
        Err(refusal) => HandshakeStep::Refused(refusal),
    }
}

impl Upgrade<'_> {
    /// Appends the response that turns the connection into a WebSocket.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept_key);
        if self.subprotocol.is_some() {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(self.subprotocol_name.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// The token of `Authorization: Bearer`.
    pub fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.authorization?.split_once(' ')?;
        let token = token.trim_matches(' ');
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }
}

fn read_head(bytes: &[u8]) -> Result<Option<Upgrade<'_>>, Refusal> {
    // A TLS hello or an MQTT CONNECT on the wrong port, or another method, is known by its first bytes.
    let start = bytes.len().min(METHOD.len());
    if bytes[..start] != METHOD[..start] {
        let is_method = bytes[..start].iter().all(u8::is_ascii_uppercase);
        return Err(if is_method {
            Refusal::MethodNotAllowed
        } else {
            Refusal::BadRequest("not an HTTP request")
        });
    }
    let bounded = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(head_len) = head_len(bounded) else {
        return if bytes.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(Refusal::HeadTooLarge) };
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&bytes[..head_len]) {
        // A head that ends before its last line has lines that were cut by something else than CR LF.
        Ok(httparse::Status::Complete(consumed)) if consumed == head_len => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Ok(_) | Err(_) => return Err(Refusal::BadRequest("not an HTTP/1.1 request")),
    }
    if request.method != Some("GET") {
        return Err(Refusal::MethodNotAllowed);
    }
    if request.version != Some(1) {
        return Err(Refusal::BadRequest("HTTP/1.1 is required"));
    }
    let (path, query) = split_target(request.path.unwrap_or_default())?;
    let fields = Fields::collect(request.headers)?;
    fields.upgrade(head_len, path, query).map(Some)
}

const METHOD: &[u8] = b"GET ";

/// Bytes up to and including the empty line.
fn head_len(bytes: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    // From the start each time: a head that drips in byte by byte costs 2 us a byte on average (measured), less than
    // the system call that brings it, and nothing has to be remembered.
    let at = bytes.windows(END.len()).position(|window| window == END)?;
    Some(at + END.len())
}

/// Path and query of a request target in origin form, or in absolute form, which servers must take as well
/// (RFC 9112, section 3.2.2).
fn split_target(target: &str) -> Result<(&str, Option<&str>), Refusal> {
    let is_absolute = ["http://", "https://", "ws://", "wss://"]
        .iter()
        .any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let local = if is_absolute {
        let authority = target.find("://").map_or(0, |at| at + 3);
        target[authority..].find('/').map_or("/", |at| &target[authority + at..])
    } else {
        target
    };
    if !local.starts_with('/') || local.contains('#') {
        return Err(Refusal::BadRequest("the request target is not a path"));
    }
    Ok(match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    })
}

/// The headers that an upgrade is judged by.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    authorization: Option<&'a str>,
    origin: Option<&'a str>,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    subprotocol: Option<(Subprotocol, &'static str)>,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                set_once(&mut fields.host, header)?;
            } else if is("sec-websocket-key") {
                set_once(&mut fields.key, header)?;
            } else if is("sec-websocket-version") {
                set_once(&mut fields.version, header)?;
            } else if is("authorization") {
                set_once(&mut fields.authorization, header)?;
            } else if is("origin") {
                set_once(&mut fields.origin, header)?;
            } else if is("upgrade") {
                fields.upgrade_websocket |=
                    tokens(text(header)?).any(|token| token.eq_ignore_ascii_case("websocket"));
            } else if is("connection") {
                fields.connection_upgrade |=
                    tokens(text(header)?).any(|token| token.eq_ignore_ascii_case("upgrade"));
            } else if is("sec-websocket-protocol") {
                // May be split over several headers (RFC 6455, section 11.3.4); the client's order counts.
                fields.subprotocol = fields.subprotocol.or_else(|| choose(header.value));
            } else if is("transfer-encoding") || (is("content-length") && header.value != b"0") {
                // A body in front of the frames would be read differently by whatever stands between.
                return Err(Refusal::BadRequest("an upgrade request has no body"));
            }
        }
        Ok(fields)
    }

    /// The checks of RFC 6455, section 4.2.1, in its order.
    fn upgrade(self, consumed: usize, path: &'a str, query: Option<&'a str>) -> Result<Upgrade<'a>, Refusal> {
        let host = self.host.ok_or(Refusal::BadRequest("Host is missing"))?;
        if !self.upgrade_websocket {
            return Err(Refusal::UpgradeRequired);
        }
        if !self.connection_upgrade {
            return Err(Refusal::BadRequest("Connection does not name upgrade"));
        }
        if self.version != Some("13") {
            return Err(Refusal::UpgradeRequired);
        }
        let key = self
            .key
            .filter(|key| is_nonce(key))
            .ok_or(Refusal::BadRequest("Sec-WebSocket-Key is not a nonce"))?;
        let accept_key = derive_accept_key(key.as_bytes())
            .into_bytes()
            .try_into()
            .expect("a SHA-1 is 28 characters long in base64");
        Ok(Upgrade {
            consumed,
            path,
            query,
            subprotocol: self.subprotocol.map(|(subprotocol, _)| subprotocol),
            authorization: self.authorization,
            host,
            origin: self.origin,
            accept_key,
            subprotocol_name: self.subprotocol.map_or("", |(_, name)| name),
        })
    }
}

/// Takes a header that may stand there only once: a second one could be what somebody in between acted upon.
fn set_once<'a>(field: &mut Option<&'a str>, header: &httparse::Header<'a>) -> Result<(), Refusal> {
    if field.is_some() {
        return Err(Refusal::BadRequest("a header is given twice"));
    }
    *field = Some(text(header)?);
    Ok(())
}

fn text<'a>(header: &httparse::Header<'a>) -> Result<&'a str, Refusal> {
    let text = std::str::from_utf8(header.value).map_err(|_| Refusal::BadRequest("a header is not text"))?;
    Ok(text.trim_matches([' ', '\t']))
}

fn tokens(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|token| token.trim_matches([' ', '\t']))
}

fn choose(offered: &[u8]) -> Option<(Subprotocol, &'static str)> {
    // Names of subprotocols are compared case-sensitively; one that is not text is not one of ours.
    tokens(std::str::from_utf8(offered).ok()?).find_map(|name| match name {
        "mqtt" => Some((Subprotocol::Mqtt, "mqtt")),
        "mqttv3.1" => Some((Subprotocol::Mqtt, "mqttv3.1")),
        "holdfast.v1" => Some((Subprotocol::HoldfastV1, "holdfast.v1")),
        _ => None,
    })
}

/// Sixteen bytes in base64: 22 characters and two of padding.
fn is_nonce(key: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key.as_bytes(), [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(is_base64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fuzzing::fuzz_handshake;
    use super::*;

    /// RFC 6455, section 1.2, with the subprotocols of a device.
    const REQUEST: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, holdfast.v1, mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn accepted(request: &str) -> Upgrade<'_> {
        match read_request(request.as_bytes()) {
            HandshakeStep::Accepted(upgrade) => upgrade,
            other => panic!("{request}: {other:?}"),
        }
    }

    fn refused(request: &str) -> Refusal {
        match read_request(request.as_bytes()) {
            HandshakeStep::Refused(refusal) => refusal,
            other => panic!("{request}: {other:?}"),
        }
    }

    /// The request with a header replaced, or without it.
    fn with(header: &str, line: &str) -> String {
        let start = REQUEST.find(&format!("\r\n{header}:")).expect("the request has this header") + 2;
        let end = start + REQUEST[start..].find("\r\n").expect("each header ends") + 2;
        let line = if line.is_empty() { String::new() } else { format!("{line}\r\n") };
        format!("{}{line}{}", &REQUEST[..start], &REQUEST[end..])
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_with_its_accept_key() {
        let upgrade = accepted(REQUEST);
        assert_eq!(&upgrade.accept_key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((upgrade.path, upgrade.query), ("/chat", Some("x=1")));
        assert_eq!((upgrade.host, upgrade.origin), ("server.example.com", Some("http://example.com")));
        assert_eq!(upgrade.consumed, REQUEST.len());
        let mut response = Vec::new();
        upgrade.write_response(&mut response);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: holdfast.v1\r\n\r\n";
        assert_eq!(String::from_utf8(response).as_deref(), Ok(expected));
    }

    #[test]
    fn every_strict_prefix_of_a_request_waits_for_the_rest() {
        for end in 0..REQUEST.len() {
            assert_eq!(read_request(&REQUEST.as_bytes()[..end]), HandshakeStep::NeedMore, "{end} bytes");
        }
    }

    #[test]
    fn what_lies_behind_the_head_is_left_to_the_stream() {
        let mut bytes = REQUEST.as_bytes().to_vec();
        bytes.extend_from_slice(&[0x81, 0x85, b'\r', b'\n', b'\r', b'\n']);
        let HandshakeStep::Accepted(upgrade) = read_request(&bytes) else { panic!("the request is valid") };
        assert_eq!(upgrade.consumed, REQUEST.len());
    }

    #[test]
    fn the_first_subprotocol_in_the_clients_order_that_is_spoken_here_is_chosen() {
        for (line, subprotocol, answer) in [
            ("Sec-WebSocket-Protocol: mqtt", Some(Subprotocol::Mqtt), "Protocol: mqtt\r\n"),
            ("Sec-WebSocket-Protocol: mqttv3.1,mqtt", Some(Subprotocol::Mqtt), "Protocol: mqttv3.1\r\n"),
            (
                "sec-websocket-protocol: x\r\nSec-WebSocket-Protocol: holdfast.v1",
                Some(Subprotocol::HoldfastV1),
                "Protocol: holdfast.v1\r\n",
            ),
            ("Sec-WebSocket-Protocol: MQTT, chat", None, "\r\n\r\n"),
            ("", None, "\r\n\r\n"),
        ] {
            let request = with("Sec-WebSocket-Protocol", line);
            let upgrade = accepted(&request);
            assert_eq!(upgrade.subprotocol, subprotocol, "{line}");
            let mut response = Vec::new();
            upgrade.write_response(&mut response);
            let response = String::from_utf8(response).expect("a response is text");
            assert!(response.contains(answer), "{line}: {response}");
            assert_eq!(response.contains("Sec-WebSocket-Protocol"), subprotocol.is_some(), "{line}");
        }
    }

    #[test]
    fn a_bearer_token_is_found_in_the_authorization() {
        let request = with("Origin", "Authorization: bearer  abc.def ");
        assert_eq!(accepted(&request).bearer_token(), Some("abc.def"));
        let request = with("Origin", "Authorization: Basic abc");
        assert_eq!(accepted(&request).bearer_token(), None);
        assert_eq!(accepted(REQUEST).bearer_token(), None);
    }

    #[test]
    fn a_target_in_absolute_form_is_its_path() {
        for (target, path, query) in [
            ("http://example.com/mqtt?a=b", "/mqtt", Some("a=b")),
            ("WS://example.com", "/", None),
            ("/mqtt?", "/mqtt", Some("")),
            ("/a://b", "/a://b", None),
        ] {
            let request = REQUEST.replace("/chat?x=1", target);
            let upgrade = accepted(&request);
            assert_eq!((upgrade.path, upgrade.query), (path, query), "{target}");
        }
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_told_what_would_be() {
        assert_eq!(refused(&with("Upgrade", "")), Refusal::UpgradeRequired);
        assert_eq!(refused(&with("Upgrade", "Upgrade: h2c")), Refusal::UpgradeRequired);
        assert_eq!(refused(&with("Sec-WebSocket-Version", "")), Refusal::UpgradeRequired);
        assert_eq!(
            refused(&with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8")),
            Refusal::UpgradeRequired
        );
    }

    #[test]
    fn another_method_is_refused_by_its_first_bytes() {
        for start in ["P", "POST /", "HEAD ", "GETX"] {
            assert_eq!(refused(start), Refusal::MethodNotAllowed, "{start}");
        }
    }

    #[test]
    fn another_protocol_is_refused_by_its_first_bytes() {
        for start in [&b"\x10\x0C\x00\x04MQTT"[..], b"\x16\x03\x01", b"get /", b"\r\n", b"\0"] {
            let step = read_request(start);
            assert!(matches!(step, HandshakeStep::Refused(Refusal::BadRequest(_))), "{start:?}: {step:?}");
        }
    }

    #[test]
    fn headers_that_are_missing_wrong_or_doubled_are_refused() {
        for request in [
            with("Host", ""),
            with("Host", "Host: a\r\nHost: b"),
            with("Connection", ""),
            with("Connection", "Connection: close"),
            with("Sec-WebSocket-Key", ""),
            with("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
            with("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===="),
            with("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="),
            with("Origin", "Content-Length: 5"),
            with("Origin", "Transfer-Encoding: chunked"),
            with("Origin", "Origin : a"),
            with("Origin", "Origin: \u{1}"),
            REQUEST.replace("HTTP/1.1", "HTTP/1.0"),
            REQUEST.replace("HTTP/1.1", "HTTP/2"),
            REQUEST.replace("/chat", "chat"),
            REQUEST.replace("/chat", "/chat#top"),
            REQUEST.replace("/chat?x=1", "*"),
            with("Origin", "Origin: a\n\nGET / HTTP/1.1"),
        ] {
            assert!(matches!(refused(&request), Refusal::BadRequest(_)), "{request}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_bound() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * HEAD_BYTES_MAX));
        assert_eq!(read_request(&endless.as_bytes()[..HEAD_BYTES_MAX - 1]), HandshakeStep::NeedMore);
        assert_eq!(refused(&endless[..HEAD_BYTES_MAX]), Refusal::HeadTooLarge);
        assert_eq!(refused(&(endless + "\r\n\r\n")), Refusal::HeadTooLarge);
    }

    #[test]
    fn more_headers_than_allowed_are_refused() {
        let filled = |count: usize| with("Origin", &vec!["X: y"; count].join("\r\n"));
        let others = 6;
        assert_eq!(accepted(&filled(HEADERS_MAX - others)).path, "/chat");
        assert_eq!(refused(&filled(HEADERS_MAX - others + 1)), Refusal::HeadTooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_handshake(&bytes);
            fuzz_handshake(&[b"GET ", &bytes[..]].concat());
        }

        #[test]
        fn no_change_to_a_request_panics(at in 0..REQUEST.len(), byte in any::<u8>(), cut in 0..REQUEST.len()) {
            let mut bytes = REQUEST.as_bytes().to_vec();
            bytes[at] = byte;
            fuzz_handshake(&bytes);
            bytes.remove(cut);
            fuzz_handshake(&bytes);
        }
    }
}
