//! Topic names.

use super::{TopicError, validate_shape};

/// Whether a message can be published under this name: not empty, at most [`BYTES_MAX`](super::BYTES_MAX) and
/// [`LEVELS_MAX`](super::LEVELS_MAX), without wildcards and U+0000. Names that begin with `$` are valid here.
pub fn validate_name(name: &str) -> Result<(), TopicError> {
    validate_shape(name)?;
    if name.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(TopicError::WildcardInName);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{BYTES_MAX, LEVELS_MAX};
    use super::*;

    #[test]
    fn names_may_have_spaces_empty_levels_and_dollars() {
        for name in ["/", "a", "a//b", " ", "$SYS/x", "Accounts payable", "é/日本"] {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_without_characters_or_with_wildcards_is_refused() {
        assert_eq!(validate_name(""), Err(TopicError::Empty));
        assert_eq!(validate_name("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(validate_name("a#"), Err(TopicError::WildcardInName));
        assert_eq!(validate_name("a\0"), Err(TopicError::ContainsNul));
    }

    #[test]
    fn a_name_is_bounded_in_bytes_and_levels() {
        assert_eq!(validate_name(&"a".repeat(BYTES_MAX)), Ok(()));
        assert_eq!(validate_name(&"a".repeat(BYTES_MAX + 1)), Err(TopicError::TooLong));
        assert_eq!(validate_name(&"/".repeat(LEVELS_MAX - 1)), Ok(()));
        assert_eq!(validate_name(&"/".repeat(LEVELS_MAX)), Err(TopicError::TooDeep));
    }
}
