//! Many names, asked which of them match a filter.

use super::LEVELS_MAX;
use super::trie::{NodeId, ROOT, Trie, first_level};

/// Topic names with a value each, such as retained messages.
///
/// Names and filters are taken as they are and should have been validated; of a shared filter, pass the plain
/// part. Beyond [`LEVELS_MAX`] levels a name may go unmatched.
#[derive(Debug, Clone)]
pub struct TopicTree<V> {
    trie: Trie<V>,
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        Self { trie: Trie::default() }
    }
}

impl<V> TopicTree<V> {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names in the tree.
    pub const fn len(&self) -> usize {
        self.trie.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of a name and gives back the former one.
    pub fn insert(&mut self, name: &str, value: V) -> Option<V> {
        self.trie.replace(name, value)
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.trie.get(name)
    }

    /// The value of this name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.trie.get_mut(name)
    }

    /// Takes a name out, with all that only it needed.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.trie.remove(name)
    }

    /// Calls `visit` once for each name that this filter matches, in no stated order, but in the same one each
    /// time. A filter with wildcards looks at every name that they can stand for.
    pub fn for_each_match<'t>(&'t self, filter: &str, mut visit: impl FnMut(&str, &'t V)) {
        let mut matcher = Matcher { trie: &self.trie, path: String::new(), visit: &mut visit };
        matcher.descend(ROOT, filter, 0);
    }

    /// Calls `visit` for each name, in no stated order, but in the same one each time.
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
    /// The name of the node that is looked at.
    path: String,
    visit: &'v mut F,
}

impl<'t, V, F: FnMut(&str, &'t V)> Matcher<'t, '_, V, F> {
    /// `node` has matched; `filter` is what is left of the filter. Each recursion consumes a level.
    fn descend(&mut self, node: NodeId, filter: &str, depth: usize) {
        if depth == LEVELS_MAX {
            return;
        }
        match first_level(filter) {
            // At the root the children are asked one by one, for those that begin with '$' stay out.
            "#" if node != ROOT => self.trie.for_each_below(node, &mut self.path, self.visit),
            "#" | "+" => {
                for child in self.trie.children(node) {
                    // [MQTT-4.7.2-1]
                    if node != ROOT || !self.trie.label(child).starts_with('$') {
                        self.enter(child, filter, depth);
                    }
                }
            }
            level => {
                if let Some(child) = self.trie.child(node, level) {
                    self.enter(child, filter, depth);
                }
            }
        }
    }

    fn enter(&mut self, node: NodeId, filter: &str, depth: usize) {
        let Some(rest) = after_label(self.trie.label(node), filter) else { return };
        self.trie.push_label(&mut self.path, node);
        match rest {
            Rest::Nothing => {
                if let Some(value) = self.trie.value(node) {
                    (self.visit)(&self.path, value);
                }
            }
            Rest::All => self.trie.for_each_below(node, &mut self.path, self.visit),
            Rest::Filter(filter) => self.descend(node, filter, depth + 1),
        }
        self.trie.pop_label(&mut self.path, node);
    }
}

/// What a filter still asks for below a node.
enum Rest<'f> {
    /// Nothing: the node itself.
    Nothing,
    /// `#`: the node and everything below.
    All,
    Filter(&'f str),
}

/// Takes a node's levels off the filter; `None` if they differ.
fn after_label<'f>(label: &str, filter: &'f str) -> Option<Rest<'f>> {
    let mut rest = Some(filter);
    for level in label.split('/') {
        let filter = rest?;
        let wanted = first_level(filter);
        match wanted {
            "#" => return Some(Rest::All),
            "+" => {}
            wanted if wanted == level => {}
            _ => return None,
        }
        rest = filter.get(wanted.len() + 1..);
    }
    Some(match rest {
        None => Rest::Nothing,
        Some("#") => Rest::All,
        Some(filter) => Rest::Filter(filter),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::{matches, validate_filter};
    use super::*;

    fn tree_of<'a>(names: impl IntoIterator<Item = &'a str>) -> TopicTree<String> {
        let mut tree = TopicTree::new();
        for name in names {
            tree.insert(name, name.to_owned());
        }
        tree
    }

    fn matching(tree: &TopicTree<String>, filter: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.for_each_match(filter, |name, value| {
            assert_eq!(name, value, "the name is that under which the value was put");
            found.push(name.to_owned());
        });
        found.sort();
        found
    }

    #[test]
    fn a_filter_finds_the_names_that_it_matches() {
        let tree = tree_of(["a", "a/b", "a/b/c", "a/c/c", "/a", "b/b/c"]);
        assert_eq!(matching(&tree, "a/#"), ["a", "a/b", "a/b/c", "a/c/c"]);
        assert_eq!(matching(&tree, "+/b/c"), ["a/b/c", "b/b/c"]);
        assert_eq!(matching(&tree, "a/+/c"), ["a/b/c", "a/c/c"]);
        assert_eq!(matching(&tree, "+"), ["a"]);
        assert_eq!(matching(&tree, "/+"), ["/a"]);
        assert_eq!(matching(&tree, "a/b"), ["a/b"]);
        assert_eq!(matching(&tree, "a/b/c/d"), [""; 0]);
    }

    #[test]
    fn wildcards_do_not_reach_into_dollar_names() {
        let tree = tree_of(["$SYS/a", "$SYS/b", "$SYS", "a"]);
        assert_eq!(matching(&tree, "#"), ["a"]);
        assert_eq!(matching(&tree, "+/a"), [""; 0]);
        assert_eq!(matching(&tree, "$SYS/#"), ["$SYS", "$SYS/a", "$SYS/b"]);
    }

    #[test]
    fn a_value_can_be_replaced_and_removed() {
        let mut tree = tree_of(["a/b", "a/c"]);
        assert_eq!(tree.insert("a/b", "new".to_owned()), Some("a/b".to_owned()));
        assert_eq!(tree.remove("a/b"), Some("new".to_owned()));
        assert_eq!(tree.remove("a"), None);
        assert_eq!(matching(&tree, "#"), ["a/c"]);
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            names in proptest::collection::btree_set("[ab$]?(/[ab]?){0,5}", 0..30),
            filter in "[ab$]?(/([ab]?|\\+)){0,4}(/#)?|#|\\+(/[ab+]){0,3}",
        ) {
            let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
            prop_assume!(validate_filter(&filter).is_ok());
            let tree = tree_of(names.iter().map(String::as_str));
            let expected: Vec<String> =
                names.iter().filter(|name| matches(&filter, name)).cloned().collect();
            prop_assert_eq!(matching(&tree, &filter), expected);
        }
    }
}
