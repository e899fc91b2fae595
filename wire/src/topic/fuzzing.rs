//! Body of the fuzz target: a plain function, which tests run on seeds and on arbitrary bytes too.

use std::collections::BTreeSet;

use super::{FilterTree, TopicTree, matches, parse_shared, validate_filter, validate_name};

/// Reads each line of a text as a topic name and as a filter, and asks the trees what `matches` says one by one. A
/// line that follows an equal one takes it out again.
pub fn fuzz_topics(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut names = TopicTree::new();
    let mut filters = FilterTree::new();
    let mut expected_names = BTreeSet::new();
    let mut expected_filters = BTreeSet::new();
    for line in text.lines() {
        if validate_name(line).is_ok() {
            let was_there = names.remove(line).is_some();
            assert_eq!(was_there, expected_names.remove(line));
            if !was_there {
                names.insert(line, line);
                expected_names.insert(line);
            }
        }
        if validate_filter(line).is_ok() {
            let plain = parse_shared(line).map_or(line, |shared| shared.filter);
            assert!(validate_filter(plain).is_ok() || plain.starts_with("$share/"));
            let was_there = filters.remove(plain).is_some();
            assert_eq!(was_there, expected_filters.remove(plain));
            if !was_there {
                *filters.insert(plain) = plain;
                expected_filters.insert(plain);
            }
        }
    }
    assert_eq!((names.len(), filters.len()), (expected_names.len(), expected_filters.len()));
    for name in &expected_names {
        let mut found = BTreeSet::new();
        filters.for_each_match(name, |filter| assert!(found.insert(*filter), "{filter} was visited twice"));
        assert_eq!(found, matching(&expected_filters, |filter| matches(filter, name)), "{name}");
    }
    for filter in &expected_filters {
        let mut found = BTreeSet::new();
        names.for_each_match(filter, |path, name| assert!(path == *name && found.insert(*name)));
        assert_eq!(found, matching(&expected_names, |name| matches(filter, name)), "{filter}");
    }
}

fn matching<'t>(all: &BTreeSet<&'t str>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'t str> {
    all.iter().copied().filter(|one| wanted(one)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_lines_are_topics_or_not(
            lines in proptest::collection::vec("[ab$]{0,2}(/[ab+#$]{0,2}){0,3}|\\$share/[ab]/[ab+]/#", 0..20),
        ) {
            fuzz_topics(lines.join("\n").as_bytes());
        }
    }
}
