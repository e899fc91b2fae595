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
    // The client waits for the answer, so the end of the head is nearly always the end of the bytes.
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
