//! What is wrong with a configuration, in one line that an operator can act on.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// A value that is not allowed. Displays as `key = value: what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct ConfigError {
    /// The key as it stands in the file, with its tables: `limits.connections_max`.
    pub key: Cow<'static, str>,
    /// The value that was given.
    pub value: String,
    /// What would be accepted.
    pub allowed: String,
}

impl ConfigError {
    /// Refuses `value`; `allowed` completes the line.
    pub(crate) fn new(key: &'static str, value: impl Display, allowed: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// Passes `value` on if it lies within `range`.
pub(crate) fn within<T: PartialOrd + Display + Copy>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::new(key, value, format!("must be between {} and {}", range.start(), range.end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_is_named_with_its_key_and_the_range() {
        let error = within("shards", 9_000_u16, 0..=1_024).unwrap_err();
        assert_eq!(error.to_string(), "shards = 9000: must be between 0 and 1024");
        assert_eq!(within("shards", 1_024_u16, 0..=1_024), Ok(1_024));
    }
}
