//! The nodes that own sessions, their leases, and the short name by which a session's entry knows them.
//!
//! ```text
//!               renew                      lease runs out, bury
//! (unknown) ───────────> has a lease ────────────────────────────> buried: never renews, never opens
//!     ^                      │  ^
//!     │    a day             │  │ renew: "known"
//!     └────────────── owns nothing and its lease ran out
//! ```
//!
//! A node's slot is freed once it owns nothing and its lease has run out, so there are never more slots than nodes
//! alive or owning. That it was there is remembered for a day, lest it think that the store has lost its data. Nothing of this
//! outlives the process: neither do the nodes.

use std::collections::{HashMap, VecDeque};

use holdfast_wire::ids::{NodeId, Owner, ShardId};
use holdfast_wire::store::StoreError;

/// Nodes that are alive or own something, at most; beyond it a further one opens nothing ([`StoreError::Full`]).
const SLOTS_MAX: usize = u16::MAX as usize - 1;

/// How long a node is remembered that was buried or has nothing any more.
const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// How many are: of those that just went the oldest is forgotten early, and a burial answers [`StoreError::Full`].
const REMEMBERED_MAX: usize = 65_536;

/// An owner in four bytes instead of sixteen: there is one for each connection. `node` is the slot plus one; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedOwner {
    node: u16,
    shard: u16,
}

struct Node {
    id: NodeId,
    /// Unix ms; none before the first renewal.
    lease_until_ms: Option<u64>,
    sessions: u32,
}

/// All nodes.
#[derive(Default)]
pub(crate) struct Nodes {
    slots: Vec<Option<Node>>,
    by_id: HashMap<NodeId, u16>,
    buried: Remembered,
    gone: Remembered,
}

impl Nodes {
    /// Counts one more session of `owner`.
    pub(crate) fn take(&mut self, owner: Owner) -> Result<PackedOwner, StoreError> {
        let slot = self.slot_of(owner.node)?;
        if let Some(node) = &mut self.slots[usize::from(slot)] {
            node.sessions += 1;
        }
        Ok(PackedOwner { node: slot + 1, shard: owner.shard.0 })
    }

    /// Counts one session less.
    pub(crate) fn release(&mut self, owner: PackedOwner) {
        let Some(slot) = owner.node.checked_sub(1) else { return };
        let Some(node) = &mut self.slots[usize::from(slot)] else { return };
        node.sessions -= 1;
        // One with a lease goes in `retire`: between two sessions it must not lose its lease.
        if node.sessions == 0 && node.lease_until_ms.is_none() {
            self.free(slot);
        }
    }

    /// The owner behind its short name.
    pub(crate) fn owner(&self, packed: PackedOwner) -> Option<Owner> {
        let slot = packed.node.checked_sub(1)?;
        let node = self.slots[usize::from(slot)].as_ref()?;
        Some(Owner { node: node.id, shard: ShardId(packed.shard) })
    }

    /// Extends a lease; a shorter one than before counts as well. Gives whether a lease of this node was known.
    pub(crate) fn renew(&mut self, node: NodeId, until_ms: u64, now_ms: u64) -> Result<bool, StoreError> {
        self.retire(now_ms);
        if self.is_buried(node) {
            return Err(StoreError::Fenced);
        }
        let slot = self.slot_of(node)?;
        let had_gone = self.gone.remove(node);
        let Some(node) = &mut self.slots[usize::from(slot)] else { return Ok(false) };
        Ok(node.lease_until_ms.replace(until_ms).is_some() || had_gone)
    }

    /// Declares a node dead, unless its lease still runs.
    pub(crate) fn bury(&mut self, node: NodeId, now_ms: u64) -> Result<(), StoreError> {
        self.retire(now_ms);
        if self.is_buried(node) {
            return Ok(());
        }
        let lease =
            self.by_id.get(&node).and_then(|slot| self.slots[usize::from(*slot)].as_ref()?.lease_until_ms);
        if lease.is_some_and(|until| until > now_ms) {
            return Err(StoreError::Fenced);
        }
        if self.buried.is_full() {
            return Err(StoreError::Full(format!("it remembers {REMEMBERED_MAX} buried nodes")));
        }
        self.gone.remove(node);
        self.buried.insert(node, now_ms);
        Ok(())
    }

    /// Whether the node was buried.
    pub(crate) fn is_buried(&self, node: NodeId) -> bool {
        self.buried.contains(node)
    }

    /// Nodes that own sessions and are buried or have let their lease run out, in order. One that never had a lease is not
    /// among them unless it was buried.
    pub(crate) fn dead(&mut self, now_ms: u64) -> Vec<NodeId> {
        self.retire(now_ms);
        let is_dead = |node: &&Node| {
            let ran_out = node.lease_until_ms.is_some_and(|until| until <= now_ms);
            node.sessions > 0 && (ran_out || self.is_buried(node.id))
        };
        let mut dead: Vec<_> = self.slots.iter().flatten().filter(is_dead).map(|node| node.id).collect();
        dead.sort_unstable();
        dead
    }

    /// Frees the slots of nodes that own nothing and whose lease ran out, and forgets who went long ago.
    fn retire(&mut self, now_ms: u64) {
        for slot in 0..self.slots.len() {
            if let Some(Node { id, lease_until_ms: Some(until), sessions: 0 }) = self.slots[slot]
                && until <= now_ms
            {
                self.free(slot as u16);
                if !self.is_buried(id) {
                    self.gone.insert(id, now_ms);
                }
            }
        }
        self.gone.forget_old(now_ms);
        for node in self.buried.forget_old(now_ms) {
            // Somebody has yet to take its sessions, and it must not wake up meanwhile.
            if self.by_id.contains_key(&node) {
                self.buried.insert(node, now_ms);
            }
        }
    }

    fn slot_of(&mut self, id: NodeId) -> Result<u16, StoreError> {
        if let Some(&slot) = self.by_id.get(&id) {
            return Ok(slot);
        }
        let node = Some(Node { id, lease_until_ms: None, sessions: 0 });
        let slot = if let Some(free) = self.slots.iter().position(Option::is_none) {
            self.slots[free] = node;
            free
        } else if self.slots.len() < SLOTS_MAX {
            self.slots.push(node);
            self.slots.len() - 1
        } else {
            return Err(StoreError::Full(format!("it knows {SLOTS_MAX} nodes")));
        } as u16;
        self.by_id.insert(id, slot);
        Ok(slot)
    }

    fn free(&mut self, slot: u16) {
        if let Some(node) = self.slots[usize::from(slot)].take() {
            self.by_id.remove(&node.id);
        }
    }
}

/// Nodes with the time at which they may be forgotten. Of [`REMEMBERED_MAX`] places each is one's.
#[derive(Default)]
struct Remembered {
    until_ms: HashMap<NodeId, u64>,
    /// Soonest first. One that is not in `until_ms` with this time was taken out, or came again.
    order: VecDeque<(u64, NodeId)>,
}

impl Remembered {
    fn contains(&self, node: NodeId) -> bool {
        self.until_ms.contains_key(&node)
    }

    fn is_full(&self) -> bool {
        self.until_ms.len() >= REMEMBERED_MAX
    }

    fn insert(&mut self, node: NodeId, now_ms: u64) {
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        self.until_ms.insert(node, until_ms);
        self.order.push_back((until_ms, node));
        if self.order.len() > REMEMBERED_MAX {
            self.pop();
        }
    }

    fn remove(&mut self, node: NodeId) -> bool {
        self.until_ms.remove(&node).is_some()
    }

    fn forget_old(&mut self, now_ms: u64) -> Vec<NodeId> {
        let mut forgotten = Vec::new();
        while self.order.front().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            forgotten.extend(self.pop());
        }
        forgotten
    }

    fn pop(&mut self) -> Option<NodeId> {
        let (until_ms, node) = self.order.pop_front()?;
        (self.until_ms.get(&node) == Some(&until_ms)).then(|| self.until_ms.remove(&node))?;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_forgotten_nodes_are_used_again() {
        let mut nodes = Nodes::default();
        for id in 0..1_000 {
            nodes.renew(NodeId(id), id + 1, id).unwrap();
            let owner = Owner { node: NodeId(id), shard: ShardId(3) };
            let packed = nodes.take(owner).unwrap();
            assert_eq!(nodes.owner(packed), Some(owner));
            nodes.release(packed);
        }
        assert_eq!(nodes.slots.len(), 1);
    }

    #[test]
    fn what_is_remembered_of_nodes_is_bounded() {
        let mut nodes = Nodes::default();
        let most = REMEMBERED_MAX as u64;
        for id in 0..most + 10 {
            nodes.renew(NodeId(id), id + 1, id).unwrap();
        }
        assert!(nodes.gone.order.len() <= REMEMBERED_MAX && nodes.gone.until_ms.len() <= REMEMBERED_MAX);
        for id in 0..most {
            assert_eq!(nodes.bury(NodeId(id), most + 20), Ok(()));
        }
        assert!(matches!(nodes.bury(NodeId(most), most + 20), Err(StoreError::Full(_))));
        let a_day_later = most + 20 + REMEMBERED_MS;
        assert_eq!(nodes.bury(NodeId(most), a_day_later), Ok(()));
        assert!(!nodes.is_buried(NodeId(0)));
    }

    #[test]
    fn a_buried_node_is_not_forgotten_while_it_owns_something() {
        let mut nodes = Nodes::default();
        let packed = nodes.take(Owner { node: NodeId(1), shard: ShardId(0) }).unwrap();
        nodes.bury(NodeId(1), 0).unwrap();
        for day in 1..5 {
            assert_eq!(nodes.dead(day * REMEMBERED_MS), [NodeId(1)]);
        }
        nodes.release(packed);
        assert!(nodes.is_buried(NodeId(1)));
        assert!(nodes.dead(6 * REMEMBERED_MS).is_empty());
        assert!(!nodes.is_buried(NodeId(1)));
    }
}
