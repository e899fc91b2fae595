//! The storage of both trees: a trie of topic levels in which a run of levels without a branch is one node.
//!
//! Nodes lie in one vector and name each other by index. All parents share one hash table from (parent, first level
//! of the child) to the child, so a node with a hundred thousand children costs no more for each of them than one
//! with a single child. The hash is keyed at random, as the levels come from outside; nothing depends on its order:
//! walks follow the sibling lists and are the same in each run.
//!
//! Memory for each entry: one node ([`Node`]: 32 bytes and the value), its label, 5 to 10 bytes in the hash table, and
//! rarely a second node where paths part. Freed nodes are used again; the vector does not shrink.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;

/// Index of a node.
pub(super) type NodeId = u32;

/// The node of no level at all, above all others. It is never freed and holds no value.
pub(super) const ROOT: NodeId = 0;

/// No node.
pub(super) const NONE: NodeId = NodeId::MAX;

#[derive(Debug, Clone)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    children: HashTable<NodeId>,
    hash_key: RandomState,
    /// Head of the list of freed nodes, linked by `next_sibling`.
    free: NodeId,
    /// Entries that hold a value.
    len: usize,
    /// Bytes of all labels.
    label_bytes: usize,
}

/// One or more levels, below the levels of its parent.
#[derive(Debug, Clone)]
struct Node<V> {
    /// The levels with the slashes between them.
    label: Box<str>,
    parent: NodeId,
    first_child: NodeId,
    previous_sibling: NodeId,
    next_sibling: NodeId,
    value: Option<V>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::new(Box::default(), NONE)],
            children: HashTable::new(),
            hash_key: RandomState::new(),
            free: NONE,
            len: 0,
            label_bytes: 0,
        }
    }
}

impl<V> Node<V> {
    const fn new(label: Box<str>, parent: NodeId) -> Self {
        Self { label, parent, first_child: NONE, previous_sibling: NONE, next_sibling: NONE, value: None }
    }
}

impl<V> Trie<V> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap, without what the values own there and without the allocator's own overhead.
    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<V>>() + self.children.allocation_size() + self.label_bytes
    }

    pub(super) fn value(&self, node: NodeId) -> Option<&V> {
        self.nodes[node as usize].value.as_ref()
    }

    pub(super) fn label(&self, node: NodeId) -> &str {
        &self.nodes[node as usize].label
    }

    pub(super) fn has_children(&self, node: NodeId) -> bool {
        self.nodes[node as usize].first_child != NONE
    }

    /// The child whose label begins with this level.
    pub(super) fn child(&self, parent: NodeId, level: &str) -> Option<NodeId> {
        self.children.find(self.hash(parent, level), |child| self.is_child(*child, parent, level)).copied()
    }

    pub(super) fn children(&self, parent: NodeId) -> impl Iterator<Item = NodeId> {
        let or_end = |node| (node != NONE).then_some(node);
        let first = or_end(self.nodes[parent as usize].first_child);
        std::iter::successors(first, move |node| or_end(self.nodes[*node as usize].next_sibling))
    }

    pub(super) fn get(&self, path: &str) -> Option<&V> {
        self.value(self.find(path)?)
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut V> {
        let node = self.find(path)?;
        self.nodes[node as usize].value.as_mut()
    }

    /// The value at this path, made by `default` if there is none.
    pub(super) fn get_or_insert_with(&mut self, path: &str, default: impl FnOnce() -> V) -> &mut V {
        let node = self.find_or_create(path);
        let value = &mut self.nodes[node as usize].value;
        self.len += usize::from(value.is_none());
        value.get_or_insert_with(default)
    }

    /// Puts a value at this path and gives back the one that was there.
    pub(super) fn replace(&mut self, path: &str, value: V) -> Option<V> {
        let node = self.find_or_create(path);
        let former = self.nodes[node as usize].value.replace(value);
        self.len += usize::from(former.is_none());
        former
    }

    /// Takes the value at this path away, with the nodes that nothing needs any more.
    pub(super) fn remove(&mut self, path: &str) -> Option<V> {
        let node = self.find(path)?;
        let value = self.nodes[node as usize].value.take()?;
        self.len -= 1;
        self.prune(node);
        Some(value)
    }

    /// Calls `visit` for `top` and all below it that hold a value. `path` is the path of `top`, and is so again
    /// at the end.
    pub(super) fn for_each_below<'t>(
        &'t self,
        top: NodeId,
        path: &mut String,
        visit: &mut impl FnMut(&str, &'t V),
    ) {
        let mut node = top;
        loop {
            if let Some(value) = self.value(node) {
                visit(path, value);
            }
            let mut next = self.nodes[node as usize].first_child;
            while next == NONE {
                if node == top {
                    return;
                }
                self.pop_label(path, node);
                next = self.nodes[node as usize].next_sibling;
                node = self.nodes[node as usize].parent;
            }
            node = next;
            self.push_label(path, node);
        }
    }

    /// Makes a node's path of its parent's.
    pub(super) fn push_label(&self, path: &mut String, node: NodeId) {
        if self.nodes[node as usize].parent != ROOT {
            path.push('/');
        }
        path.push_str(self.label(node));
    }

    /// Makes a parent's path of its child's.
    pub(super) fn pop_label(&self, path: &mut String, node: NodeId) {
        let slash = usize::from(self.nodes[node as usize].parent != ROOT);
        path.truncate(path.len() - self.label(node).len() - slash);
    }

    fn find(&self, path: &str) -> Option<NodeId> {
        let mut node = ROOT;
        let mut rest = path;
        loop {
            node = self.child(node, first_level(rest))?;
            match rest.strip_prefix(self.label(node))? {
                "" => return Some(node),
                below => rest = below.strip_prefix('/')?,
            }
        }
    }

    fn find_or_create(&mut self, path: &str) -> NodeId {
        let mut parent = ROOT;
        let mut rest = path;
        loop {
            let Some(child) = self.child(parent, first_level(rest)) else {
                return self.create(rest.into(), parent);
            };
            let common = common_levels(self.label(child), rest);
            let node = if common == self.label(child).len() { child } else { self.split(child, common) };
            if common == rest.len() {
                return node;
            }
            parent = node;
            rest = &rest[common + 1..];
        }
    }

    fn create(&mut self, label: Box<str>, parent: NodeId) -> NodeId {
        self.label_bytes += label.len();
        let node = Node::new(label, parent);
        let id = if self.free == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as NodeId
        } else {
            let id = self.free;
            self.free = self.nodes[id as usize].next_sibling;
            self.nodes[id as usize] = node;
            id
        };
        self.attach(id, parent);
        id
    }

    /// Puts a new node with the first `at` bytes of the label above `node`, which keeps the rest.
    fn split(&mut self, node: NodeId, at: usize) -> NodeId {
        let parent = self.nodes[node as usize].parent;
        self.detach(node);
        let label = std::mem::take(&mut self.nodes[node as usize].label);
        self.label_bytes -= at + 1;
        let upper = self.create(label[..at].into(), parent);
        self.nodes[node as usize].label = label[at + 1..].into();
        self.attach(node, upper);
        upper
    }

    fn prune(&mut self, mut node: NodeId) {
        while node != ROOT && self.nodes[node as usize].value.is_none() {
            let Node { parent, first_child, .. } = self.nodes[node as usize];
            if first_child == NONE {
                self.detach(node);
                self.release(node);
            } else if self.nodes[first_child as usize].next_sibling == NONE {
                self.join(node, first_child);
            } else {
                return;
            }
            node = parent;
        }
    }

    /// Gives a node's levels to its only child, which takes its place.
    fn join(&mut self, node: NodeId, only_child: NodeId) {
        let parent = self.nodes[node as usize].parent;
        self.detach(only_child);
        self.detach(node);
        let label = [self.label(node), self.label(only_child)].join("/");
        self.label_bytes += self.label(node).len() + 1;
        self.nodes[only_child as usize].label = label.into();
        self.attach(only_child, parent);
        self.release(node);
    }

    /// Frees a node that is detached and has no children.
    fn release(&mut self, node: NodeId) {
        self.label_bytes -= self.label(node).len();
        let free = std::mem::replace(&mut self.free, node);
        self.nodes[node as usize] = Node::new(Box::default(), NONE);
        self.nodes[node as usize].next_sibling = free;
    }

    /// Enters a node, whose label stands, into its parent's children.
    fn attach(&mut self, node: NodeId, parent: NodeId) {
        let next = std::mem::replace(&mut self.nodes[parent as usize].first_child, node);
        if next != NONE {
            self.nodes[next as usize].previous_sibling = node;
        }
        let entered = &mut self.nodes[node as usize];
        entered.parent = parent;
        entered.previous_sibling = NONE;
        entered.next_sibling = next;
        let Self { nodes, children, hash_key, .. } = self;
        let hash_of = |id: &NodeId| {
            let Node { parent, label, .. } = &nodes[*id as usize];
            hash(hash_key, *parent, first_level(label))
        };
        children.insert_unique(hash_of(&node), node, hash_of);
    }

    /// The reverse of [`attach`](Self::attach); to be called before the label changes.
    fn detach(&mut self, node: NodeId) {
        let Node { parent, previous_sibling: previous, next_sibling: next, .. } = self.nodes[node as usize];
        if previous == NONE {
            self.nodes[parent as usize].first_child = next;
        } else {
            self.nodes[previous as usize].next_sibling = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous_sibling = previous;
        }
        let hash = self.hash(parent, first_level(self.label(node)));
        let entry = self.children.find_entry(hash, |id| *id == node);
        debug_assert!(entry.is_ok(), "an attached node is in the table");
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    fn is_child(&self, child: NodeId, parent: NodeId, level: &str) -> bool {
        let node = &self.nodes[child as usize];
        node.parent == parent && first_level(&node.label) == level
    }

    fn hash(&self, parent: NodeId, level: &str) -> u64 {
        hash(&self.hash_key, parent, level)
    }
}

/// What is before the first slash.
pub(super) fn first_level(path: &str) -> &str {
    let end = path.bytes().position(|byte| byte == b'/').unwrap_or(path.len());
    &path[..end]
}

fn hash(key: &RandomState, parent: NodeId, level: &str) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level.as_bytes());
    hasher.finish()
}

/// Bytes of the whole levels that two paths have in common; their first levels are equal.
fn common_levels(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let equal = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let ends_level = |path: &[u8]| path.get(equal).is_none_or(|byte| *byte == b'/');
    if ends_level(left) && ends_level(right) {
        equal
    } else {
        left[..equal].iter().rposition(|byte| *byte == b'/').unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn contents(trie: &Trie<u32>) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        trie.for_each_below(ROOT, &mut String::new(), &mut |path, value| {
            assert_eq!(found.insert(path.to_owned(), *value), None, "{path} was visited twice");
        });
        found
    }

    #[test]
    fn a_run_of_levels_is_one_node_until_paths_part() {
        let mut trie = Trie::default();
        trie.replace("a/b/c", 1);
        assert_eq!(trie.nodes.len(), 2);
        trie.replace("a/b/d", 2);
        assert_eq!(trie.nodes.len(), 4, "root, a/b, c, d");
        assert_eq!(trie.remove("a/b/d"), Some(2));
        assert_eq!(trie.child(ROOT, "a").map(|node| trie.label(node)), Some("a/b/c"), "joined again");
    }

    #[test]
    fn empty_levels_are_levels() {
        let mut trie = Trie::default();
        for (value, path) in ["/", "a", "a/", "/a", "//", "a//b"].into_iter().enumerate() {
            assert_eq!(trie.replace(path, value as u32), None, "{path}");
        }
        assert_eq!(trie.get("a/"), Some(&2));
        assert_eq!(trie.get("//"), Some(&4));
        assert_eq!(trie.get("///"), None);
        assert_eq!(contents(&trie).len(), 6);
    }

    #[test]
    fn an_emptied_trie_owns_no_labels_and_uses_its_nodes_again() {
        let mut trie = Trie::default();
        let paths: Vec<String> = (0..100).map(|number| format!("devices/{number}/x")).collect();
        for _ in 0..3 {
            for path in &paths {
                trie.replace(path, 0);
            }
            for path in &paths {
                assert_eq!(trie.remove(path), Some(0));
            }
        }
        assert_eq!((trie.len(), trie.label_bytes, trie.children.len()), (0, 0, 0));
        assert!(trie.nodes.len() <= 102, "root, devices, and one for each path");
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in proptest::collection::vec(("[ab/]{0,6}", any::<bool>()), 0..60)) {
            let mut trie = Trie::default();
            let mut map = BTreeMap::new();
            for (number, (path, insert)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(trie.replace(&path, number as u32), map.insert(path, number as u32));
                } else {
                    prop_assert_eq!(trie.remove(&path), map.remove(&path));
                }
                prop_assert_eq!(trie.len(), map.len());
                prop_assert_eq!(&contents(&trie), &map);
                let labels: usize = trie.nodes.iter().map(|node| node.label.len()).sum();
                prop_assert_eq!(trie.label_bytes, labels);
            }
        }
    }
}
