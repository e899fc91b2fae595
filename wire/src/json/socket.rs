//! Where a device connects: `/v1/devices/{client_id}/socket`, and what it may ask for in the query.

use std::borrow::Cow;

/// Bytes of a client id in a path, percent-decoding done. What an engine allows may be less.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// The client id in the path of a device's socket, percent-decoded; `None` if it is another path, or if the id is
/// empty, too long, not UTF-8, or contains a control character.
pub fn socket_path(path: &str) -> Option<Cow<'_, str>> {
    let segment = path.strip_prefix("/v1/devices/")?.strip_suffix("/socket")?;
    if segment.contains('/') {
        return None;
    }
    let client_id = percent_decode(segment, false)?;
    let is_sound = !client_id.is_empty()
        && client_id.len() <= CLIENT_ID_BYTES_MAX
        && !client_id.chars().any(char::is_control);
    is_sound.then_some(client_id)
}

/// What the query of a device's socket asks for. What is absent is the server's to choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions<'a> {
    /// `access_token=`: for clients that cannot set `Authorization`, such as browsers.
    pub access_token: Option<Cow<'a, str>>,
    /// `receipt=offset`: acks say where in Kafka the frame lies.
    pub receipt: bool,
    /// `clean_start=true`: an earlier session of this client id is forgotten ([MQTT-3.1.2-4]).
    pub clean_start: bool,
    /// `session_expiry_s=`: how long the session outlives this connection, in seconds.
    pub session_expiry_s: Option<u32>,
    /// `keep_alive_s=`: the device promises a message or a WebSocket ping at least this often, in seconds.
    pub keep_alive_s: Option<u16>,
    /// `receive_maximum=`: pushes with an id that may be unanswered at a time, 1-65535.
    pub receive_maximum: Option<u16>,
}

/// A key of the query whose value is not allowed, or which stands there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query's {0} is not valid")]
pub struct QueryError(pub &'static str);

impl<'a> SocketOptions<'a> {
    /// Reads a query as it was sent, without `?`. Keys that mean nothing here are left alone, as proxies and
    /// trackers add some.
    pub fn decode(query: &'a str) -> Result<Self, QueryError> {
        let mut options = Self::default();
        let mut seen = [false; KEYS.len()];
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(index) = KEYS.iter().position(|key| *key == name) else { continue };
            let key = KEYS[index];
            let value = percent_decode(value, true).ok_or(QueryError(key))?;
            if std::mem::replace(&mut seen[index], true) || options.set(key, value).is_none() {
                return Err(QueryError(key));
            }
        }
        Ok(options)
    }

    /// `None` if the value is not allowed.
    fn set(&mut self, key: &str, value: Cow<'a, str>) -> Option<()> {
        match key {
            "access_token" if !value.is_empty() => self.access_token = Some(value),
            "receipt" if value == "offset" => self.receipt = true,
            "clean_start" => self.clean_start = boolean(&value)?,
            "session_expiry_s" => self.session_expiry_s = Some(number(&value)?),
            "keep_alive_s" => self.keep_alive_s = Some(number(&value)?),
            "receive_maximum" => self.receive_maximum = Some(number(&value).filter(|maximum| *maximum > 0)?),
            _ => return None,
        }
        Some(())
    }
}

const KEYS: [&str; 6] =
    ["access_token", "receipt", "clean_start", "session_expiry_s", "keep_alive_s", "receive_maximum"];

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Decimal digits only: no sign, no space.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits { text.parse().ok() } else { None }
}

/// `None` if a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
fn percent_decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_stands_in_the_path() {
        assert_eq!(socket_path("/v1/devices/sensor-7/socket").as_deref(), Some("sensor-7"));
        assert_eq!(socket_path("/v1/devices/tenant%2Fsensor%207/socket").as_deref(), Some("tenant/sensor 7"));
        assert_eq!(socket_path("/v1/devices/a+b/socket").as_deref(), Some("a+b"));
        assert_eq!(socket_path("/v1/devices/caf%C3%A9/socket").as_deref(), Some("café"));
    }

    #[test]
    fn other_paths_and_unsound_ids_are_not_a_socket() {
        for path in [
            "/",
            "/v1/devices//socket",
            "/v1/devices/socket",
            "/v1/devices/a/b/socket",
            "/v1/devices/a/socket/",
            "/v1/devices/a/sockets",
            "/v2/devices/a/socket",
            "/v1/devices/%/socket",
            "/v1/devices/%4/socket",
            "/v1/devices/%zz/socket",
            "/v1/devices/%+1/socket",
            "/v1/devices/%FF/socket",
            "/v1/devices/%00/socket",
            "/v1/devices/a%0Ab/socket",
        ] {
            assert_eq!(socket_path(path), None, "{path}");
        }
        let path = |length| format!("/v1/devices/{}/socket", "x".repeat(length));
        assert!(socket_path(&path(CLIENT_ID_BYTES_MAX)).is_some());
        assert!(socket_path(&path(CLIENT_ID_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_query_asks_for_what_the_device_wants() {
        let options = SocketOptions::decode(
            "access_token=a%2Bb&receipt=offset&clean_start=true&session_expiry_s=3600&keep_alive_s=60\
             &receive_maximum=10&utm_source=x&flag",
        )
        .expect("all of it is valid");
        assert_eq!(options.access_token.as_deref(), Some("a+b"));
        assert!(options.receipt && options.clean_start);
        assert_eq!(options.session_expiry_s, Some(3600));
        assert_eq!(options.keep_alive_s, Some(60));
        assert_eq!(options.receive_maximum, Some(10));
    }

    #[test]
    fn an_empty_query_leaves_everything_to_the_server() {
        assert_eq!(SocketOptions::decode(""), Ok(SocketOptions::default()));
    }

    #[test]
    fn values_out_of_range_and_keys_given_twice_are_named() {
        for (query, key) in [
            ("keep_alive_s=65536", "keep_alive_s"),
            ("keep_alive_s=%2B1", "keep_alive_s"),
            ("keep_alive_s=", "keep_alive_s"),
            ("session_expiry_s=-1", "session_expiry_s"),
            ("receive_maximum=0", "receive_maximum"),
            ("receive_maximum=00", "receive_maximum"),
            ("clean_start=yes", "clean_start"),
            ("receipt=all", "receipt"),
            ("access_token=", "access_token"),
            ("access_token=%F", "access_token"),
            ("keep_alive_s=1&keep_alive_s=1", "keep_alive_s"),
        ] {
            assert_eq!(SocketOptions::decode(query), Err(QueryError(key)), "{query}");
        }
    }
}
