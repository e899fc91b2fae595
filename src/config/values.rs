//! Refusing values, in the gateway's form: key, value, what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use holdfast_gateway::config::ConfigError;

/// Refuses `value`; `allowed` completes the line.
pub(super) fn refuse(key: &'static str, value: impl Display, allowed: impl Into<String>) -> ConfigError {
    ConfigError { key, value: value.to_string(), allowed: allowed.into() }
}

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
