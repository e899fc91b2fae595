//! Many filters, asked which of them match a name.

use std::ops::ControlFlow;

use super::LEVELS_MAX;
use super::trie::{NodeId, ROOT, Trie, first_level};

/// Topic filters with a value each.
///
/// Filters are taken as they are: of a shared subscription, insert the plain filter. They should have passed
/// [`validate_filter`](super::validate_filter). Beyond [`LEVELS_MAX`] levels a filter may go unmatched.
///
/// A match looks at each branch that the name can take, at most three for a level, and never at one twice. An
/// entry costs about 32 bytes, its value, and the levels that it shares with no other.
#[derive(Debug, Clone)]
pub struct FilterTree<V> {
    trie: Trie<V>,
}

impl<V> Default for FilterTree<V> {
    fn default() -> Self {
        Self { trie: Trie::default() }
    }
}

impl<V> FilterTree<V> {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Filters in the tree.
    pub const fn len(&self) -> usize {
        self.trie.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of this filter, which is entered with a default value if it is not there.
    pub fn insert(&mut self, filter: &str) -> &mut V
    where
        V: Default,
    {
        self.trie.get_or_insert_with(filter, V::default)
    }

    /// The value of exactly this filter.
    pub fn get(&self, filter: &str) -> Option<&V> {
        self.trie.get(filter)
    }

    /// The value of exactly this filter.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        self.trie.get_mut(filter)
    }

    /// Takes a filter out, with all that only it needed.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        self.trie.remove(filter)
    }

    /// Calls `visit` once for each filter that matches this name, in no stated order.
    pub fn for_each_match<'t>(&'t self, name: &str, mut visit: impl FnMut(&'t V)) {
        let mut matcher = Matcher { trie: &self.trie, visit: &mut visit };
        matcher.descend(ROOT, Some(name), 0);
    }

    /// Calls `visit` for each filter, in no stated order, but in the same one each time.
    pub fn for_each<'t>(&'t self, mut visit: impl FnMut(&str, &'t V)) {
        self.trie.for_each_below(ROOT, &mut String::new(), &mut visit);
    }

    /// Bytes on the heap, without what the values own there and without the allocator's own overhead.
    pub fn heap_bytes(&self) -> usize {
        self.trie.heap_bytes()
    }
}

struct Matcher<'t, 'v, V, F> {
    trie: &'t Trie<V>,
    visit: &'v mut F,
}

impl<'t, V, F: FnMut(&'t V)> Matcher<'t, '_, V, F> {
    /// `node` has matched; `rest` is what is left of the name, `None` at its end. Recursion follows `+` only and
    /// consumes a level each time.
    fn descend(&mut self, mut node: NodeId, mut rest: Option<&str>, depth: usize) {
        // [MQTT-4.7.2-1]: a wildcard does not reach into the names that begin with '$'.
        let mut wildcards = !(node == ROOT && rest.is_some_and(|name| name.starts_with('$')));
        while self.trie.has_children(node) {
            if wildcards && let Some(all) = self.trie.child(node, "#") {
                self.visit(all);
            }
            let Some(levels) = rest else { return };
            if wildcards
                && depth < LEVELS_MAX
                && let Some(any) = self.trie.child(node, "+")
                && let ControlFlow::Continue(below) = self.enter(any, levels)
            {
                self.descend(any, below, depth + 1);
            }
            let Some(literal) = self.trie.child(node, first_level(levels)) else { return };
            let ControlFlow::Continue(below) = self.enter(literal, levels) else { return };
            node = literal;
            rest = below;
            wildcards = true;
        }
    }

    /// Compares a node's levels with the name's and goes on with what is left of the name. It breaks if they differ,
    /// or if the node ends in `#`, below which there is nothing.
    fn enter<'n>(&mut self, node: NodeId, levels: &'n str) -> ControlFlow<(), Option<&'n str>> {
        let mut rest = Some(levels);
        for wanted in self.trie.label(node).split('/') {
            if wanted == "#" {
                self.visit(node);
                return ControlFlow::Break(());
            }
            let Some(levels) = rest else { return ControlFlow::Break(()) };
            let level = first_level(levels);
            if wanted != "+" && wanted != level {
                return ControlFlow::Break(());
            }
            rest = levels.get(level.len() + 1..);
        }
        if rest.is_none() {
            self.visit(node);
        }
        ControlFlow::Continue(rest)
    }

    fn visit(&mut self, node: NodeId) {
        if let Some(value) = self.trie.value(node) {
            (self.visit)(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::{matches, validate_filter};
    use super::*;

    fn tree_of(filters: &[&str]) -> FilterTree<String> {
        let mut tree = FilterTree::new();
        for filter in filters {
            (*filter).clone_into(tree.insert(filter));
        }
        tree
    }

    fn matching(tree: &FilterTree<String>, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.for_each_match(name, |filter| found.push(filter.clone()));
        found.sort();
        found
    }

    #[test]
    fn a_name_finds_the_filters_that_match_it() {
        let tree = tree_of(&["#", "+/+", "a/b", "a/#", "a/+/c", "a/b/c/#", "b/b", "+/b/#"]);
        assert_eq!(matching(&tree, "a/b"), ["#", "+/+", "+/b/#", "a/#", "a/b"]);
        assert_eq!(matching(&tree, "a/b/c"), ["#", "+/b/#", "a/#", "a/+/c", "a/b/c/#"]);
        assert_eq!(matching(&tree, "a"), ["#", "a/#"]);
    }

    #[test]
    fn wildcards_do_not_reach_into_dollar_names() {
        let tree = tree_of(&["#", "+/x", "$SYS/#", "$SYS/+", "a/+"]);
        assert_eq!(matching(&tree, "$SYS/x"), ["$SYS/#", "$SYS/+"]);
        assert_eq!(matching(&tree, "a/$x"), ["#", "a/+"]);
    }

    #[test]
    fn a_removed_filter_matches_no_more_and_leaves_nothing_behind() {
        let mut tree = tree_of(&["a/b/c", "a/b/d", "a/b"]);
        assert_eq!(tree.remove("a/b"), Some("a/b".to_owned()));
        assert_eq!(tree.remove("a/b"), None);
        assert_eq!(matching(&tree, "a/b/c"), ["a/b/c"]);
        tree.remove("a/b/c");
        tree.remove("a/b/d");
        assert!(tree.is_empty());
        assert_eq!(matching(&tree, "a/b/d"), [""; 0]);
    }

    #[test]
    fn a_hundred_thousand_device_filters_cost_less_than_200_bytes_each() {
        let mut tree: FilterTree<u64> = FilterTree::new();
        for number in 0..100_000_u64 {
            *tree.insert(&format!("devices/device-{number:08}/commands")) = number;
        }
        let mut found = Vec::new();
        tree.for_each_match("devices/device-00031415/commands", |number| found.push(*number));
        assert_eq!(found, [31_415]);
        // The count leaves out the allocator's header and rounding, at most 24 bytes for each label.
        let each = tree.heap_bytes() / tree.len() + 24;
        assert!(each < 200, "{each} bytes for each filter");
    }

    #[test]
    fn the_deepest_filters_and_names_are_matched() {
        let plus = vec!["+"; LEVELS_MAX].join("/");
        let name = vec!["a"; LEVELS_MAX].join("/");
        let mut tree = tree_of(&[&plus, &name]);
        for depth in 1..LEVELS_MAX {
            tree.insert(&vec!["+"; depth].join("/"));
        }
        assert_eq!(matching(&tree, &name), [plus, name.clone()]);
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            filters in proptest::collection::btree_set("[ab$]?(/([ab]?|\\+)){0,4}(/#)?|#|\\+(/[ab+]){0,3}", 0..30),
            name in "[ab$]?(/[ab]?){0,5}",
        ) {
            let mut tree = FilterTree::new();
            let filters: BTreeSet<String> =
                filters.into_iter().filter(|filter| validate_filter(filter).is_ok()).collect();
            for filter in &filters {
                filter.clone_into(tree.insert(filter));
            }
            let expected: Vec<String> =
                filters.iter().filter(|filter| matches(filter, &name)).cloned().collect();
            prop_assert_eq!(matching(&tree, &name), expected);
        }
    }
}
