//! Topic names and topic filters (section 4.7): what is valid, what matches what, and two trees that answer it for
//! many at once.
//!
//! [`FilterTree`] holds filters and is asked with a name (who wants this message?); [`TopicTree`] holds names and
//! is asked with a filter (which retained messages does this subscription get?). Neither knows what its values
//! mean. Start with [`validate_filter`] and [`matches()`]; `trie` is the storage that both trees share.

mod filter;
mod filter_tree;
#[doc(hidden)]
pub mod fuzzing;
mod name;
mod personal;
mod topic_tree;
mod trie;

pub use filter::{SharedFilter, matches, parse_shared, validate_filter};
pub use filter_tree::FilterTree;
pub use name::validate_name;
pub use personal::{personal_level, personal_shape};
pub use topic_tree::TopicTree;

/// The most levels that a topic name or filter may have. The specification sets no limit; this one bounds the
/// depth of the trees, and with it the work that one name can cause.
pub const LEVELS_MAX: usize = 128;

/// The most bytes that a topic name or filter may have `[MQTT-4.7.3-3]`.
pub const BYTES_MAX: usize = 65_535;

/// Why a string is no topic name or no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// `[MQTT-4.7.3-1]`
    #[error("it is empty")]
    Empty,
    /// `[MQTT-4.7.3-3]`
    #[error("it is longer than 65535 bytes")]
    TooLong,
    /// See [`LEVELS_MAX`].
    #[error("it has more than 128 levels")]
    TooDeep,
    /// `[MQTT-4.7.3-2]`
    #[error("it contains U+0000")]
    ContainsNul,
    /// A topic name has no wildcards `[MQTT-4.7.0-1]`.
    #[error("a name contains a wildcard")]
    WildcardInName,
    /// `#` alone and last, `+` alone in its level `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`.
    #[error("a wildcard does not stand alone in its level, or '#' is not last")]
    MisplacedWildcard,
    /// The share name is empty or has a wildcard `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`.
    #[error("the share name is empty or contains a wildcard")]
    InvalidShareName,
    /// Nothing follows the share name `[MQTT-4.8.2-2]`.
    #[error("no filter follows the share name")]
    ShareWithoutFilter,
}

/// What names and filters have in common.
fn validate_shape(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    let mut levels = 1;
    for byte in topic.bytes() {
        match byte {
            0 => return Err(TopicError::ContainsNul),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > LEVELS_MAX { Err(TopicError::TooDeep) } else { Ok(()) }
}
