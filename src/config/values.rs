//! Refusing values, in the gateway's form: key, value, what is allowed.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

use holdfast_bridge::TopicTemplate;
use holdfast_gateway::config::ConfigError;

/// Refuses `value`; `allowed` completes the line.
pub(super) fn refuse(
    key: impl Into<Cow<'static, str>>,
    value: impl Display,
    allowed: impl Into<String>,
) -> ConfigError {
    ConfigError { key: key.into(), value: value.to_string(), allowed: allowed.into() }
}

/// Passes over an empty `name`, which stands for no topic.
pub(super) fn check_topic_name(key: &'static str, name: &str) -> Result<(), ConfigError> {
    let is_name = |name: &str| name.parse::<TopicTemplate>().is_ok_and(|topic| topic.fixed() == Some(name));
    if name.is_empty() || is_name(name) { Ok(()) } else { Err(refuse(key, name, TOPIC_NAME)) }
}

/// What the name of a Kafka topic must be.
pub(super) const TOPIC_NAME: &str =
    "must be the name of a Kafka topic: 1 to 249 letters, digits, '.', '_' and '-'";

/// Passes `value` on if it lies within `range`.
pub(super) fn within<T: PartialOrd + Display + Copy>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(refuse(key, value, format!("must be between {} and {}", range.start(), range.end())))
    }
}

/// A URL as it may be shown: `redis://user:(hidden)@host`.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // Parameters may hold one as well.
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?(hidden)"));
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:(hidden)@{host}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

/// `HOST:PORT`; a host name stands for its first address.
pub(super) fn address(key: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    match value.to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(refuse(key, value, "the host has no address")),
        Err(error) => Err(refuse(key, value, format!("must be HOST:PORT ({error})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_password("redis://user:p@ss@host:1/0"), "redis://user:(hidden)@host:1/0");
        assert_eq!(without_password("redis://:pass@host"), "redis://:(hidden)@host");
        assert_eq!(without_password("redis://host"), "redis://host");
        assert_eq!(without_password("redis+unix:///socket?pass=x"), "redis+unix:///socket?(hidden)");
        assert_eq!(without_password("memory:"), "memory:");
    }
}
