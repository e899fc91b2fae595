//! Topic filters, plain and shared.

use super::{TopicError, validate_shape};

const SHARE_PREFIX: &str = "$share/";

/// Whether this can be subscribed to, as a plain filter or as `$share/<name>/<filter>` `[MQTT-4.8.2-1]`,
/// `[MQTT-4.8.2-2]`. The same rules hold for MQTT 3.1.1, which knows no shared subscriptions but whose servers
/// commonly offer them.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_shape(filter)?;
    let Some(shared) = filter.strip_prefix(SHARE_PREFIX) else { return validate_wildcards(filter) };
    let (group, filter) = shared.split_once('/').unwrap_or((shared, ""));
    if group.is_empty() || group.contains(['+', '#']) {
        return Err(TopicError::InvalidShareName);
    }
    if filter.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    validate_wildcards(filter)
}

/// Whether a message with this topic name matches this filter (section 4.7). Both are taken to be valid, and the
/// filter to be plain: of a shared one, pass [`SharedFilter::filter`].
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]: a wildcard does not reach into the names that begin with '$'.
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter_levels = filter.split('/');
    let mut name_levels = name.split('/');
    loop {
        match (filter_levels.next(), name_levels.next()) {
            // "sport/#" matches "sport" too: what is before '#' includes its parent.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter_level), Some(name_level)) if filter_level == name_level => {}
            _ => return false,
        }
    }
}

/// The two parts of `$share/<group>/<filter>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// The share name. Subscriptions with equal group and filter share their messages.
    pub group: &'a str,
    /// The plain filter.
    pub filter: &'a str,
}

/// Takes a shared filter apart; `None` if it is a plain one, or not valid as a shared one.
pub fn parse_shared(filter: &str) -> Option<SharedFilter<'_>> {
    let (group, filter) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
    let valid = !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty();
    valid.then_some(SharedFilter { group, filter })
}

fn validate_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        let valid = match level {
            "+" => true,
            "#" => is_last,
            level => !level.bytes().any(|byte| matches!(byte, b'+' | b'#')),
        };
        if !valid {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_section_4_7_match_as_written_there() {
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis/x", true),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
            ("a/b/+", "a/b", false),
            ("+/b", "a/b", true),
            ("a/+/c", "a//c", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} against {name}");
        }
    }

    #[test]
    fn a_wildcard_stands_alone_in_its_level_and_a_hash_is_last() {
        for filter in ["#", "+", "+/+", "/+", "a/#", "+/tennis/#", "sport/+/player1", "$share", "$shared/x"] {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["sport/tennis#", "sport/tennis/#/ranking", "sport+", "++", "#/", "a/+b"] {
            assert_eq!(validate_filter(filter), Err(TopicError::MisplacedWildcard), "{filter}");
        }
        assert_eq!(validate_filter(""), Err(TopicError::Empty));
    }

    #[test]
    fn a_shared_filter_has_a_share_name_and_a_filter() {
        assert_eq!(validate_filter("$share/g/a/+"), Ok(()));
        assert_eq!(validate_filter("$share/g//"), Ok(()));
        assert_eq!(parse_shared("$share/g/a/+"), Some(SharedFilter { group: "g", filter: "a/+" }));
        assert_eq!(parse_shared("a/b"), None);
        assert_eq!(parse_shared("$share//a"), None);
        assert_eq!(validate_filter("$share//a"), Err(TopicError::InvalidShareName));
        assert_eq!(validate_filter("$share/"), Err(TopicError::InvalidShareName));
        assert_eq!(validate_filter("$share/+/a"), Err(TopicError::InvalidShareName));
        assert_eq!(validate_filter("$share/g"), Err(TopicError::ShareWithoutFilter));
        assert_eq!(validate_filter("$share/g/"), Err(TopicError::ShareWithoutFilter));
        assert_eq!(validate_filter("$share/g/a#"), Err(TopicError::MisplacedWildcard));
    }
}
