//! The nodes that own sessions, their leases, and the short name by which a session's entry knows them.
//!
//! A node's slot is freed once it owns nothing and its lease has run out, so there are never more slots than nodes
//! alive or owning.

use std::collections::HashMap;

use holdfast_wire::ids::{NodeId, Owner, ShardId};

/// An owner in eight bytes instead of sixteen: there is one for each connection. `node` is the slot plus one; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedOwner {
    node: u32,
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
    by_id: HashMap<NodeId, u32>,
}

impl Nodes {
    /// Counts one more session of `owner`.
    pub(crate) fn take(&mut self, owner: Owner) -> PackedOwner {
        let slot = self.slot_of(owner.node);
        if let Some(node) = &mut self.slots[slot as usize] {
            node.sessions += 1;
        }
        PackedOwner { node: slot + 1, shard: owner.shard.0 }
    }

    /// Counts one session less.
    pub(crate) fn release(&mut self, owner: PackedOwner) {
        let Some(slot) = owner.node.checked_sub(1) else { return };
        let Some(node) = &mut self.slots[slot as usize] else { return };
        node.sessions -= 1;
        // One with a lease goes in `retire`: between two sessions it must not lose its lease.
        if node.sessions == 0 && node.lease_until_ms.is_none() {
            self.free(slot);
        }
    }

    /// The owner behind its short name.
    pub(crate) fn owner(&self, packed: PackedOwner) -> Option<Owner> {
        let slot = packed.node.checked_sub(1)?;
        let node = self.slots[slot as usize].as_ref()?;
        Some(Owner { node: node.id, shard: ShardId(packed.shard) })
    }

    /// Extends a lease; a shorter one than before counts as well.
    pub(crate) fn renew(&mut self, node: NodeId, until_ms: u64, now_ms: u64) {
        self.retire(now_ms);
        let slot = self.slot_of(node);
        if let Some(node) = &mut self.slots[slot as usize] {
            node.lease_until_ms = Some(until_ms);
        }
    }

    /// Nodes whose lease ran out while they own sessions, in order. One that never had a lease is not among them.
    pub(crate) fn dead(&mut self, now_ms: u64) -> Vec<NodeId> {
        self.retire(now_ms);
        let ran_out = |node: &Node| node.lease_until_ms.is_some_and(|until| until <= now_ms);
        let mut dead: Vec<_> =
            self.slots.iter().flatten().filter(|node| ran_out(node)).map(|node| node.id).collect();
        dead.sort_unstable();
        dead
    }

    /// Forgets nodes that own nothing and whose lease ran out.
    fn retire(&mut self, now_ms: u64) {
        for slot in 0..self.slots.len() {
            if let Some(Node { lease_until_ms: Some(until), sessions: 0, .. }) = self.slots[slot]
                && until <= now_ms
            {
                self.free(slot as u32);
            }
        }
    }

    fn slot_of(&mut self, id: NodeId) -> u32 {
        if let Some(&slot) = self.by_id.get(&id) {
            return slot;
        }
        let node = Some(Node { id, lease_until_ms: None, sessions: 0 });
        let slot = if let Some(free) = self.slots.iter().position(Option::is_none) {
            self.slots[free] = node;
            free
        } else {
            self.slots.push(node);
            self.slots.len() - 1
        } as u32;
        self.by_id.insert(id, slot);
        slot
    }

    fn free(&mut self, slot: u32) {
        if let Some(node) = self.slots[slot as usize].take() {
            self.by_id.remove(&node.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_forgotten_nodes_are_used_again() {
        let mut nodes = Nodes::default();
        for id in 0..1_000 {
            nodes.renew(NodeId(id), id + 1, id);
            let owner = Owner { node: NodeId(id), shard: ShardId(3) };
            let packed = nodes.take(owner);
            assert_eq!(nodes.owner(packed), Some(owner));
            nodes.release(packed);
        }
        assert_eq!(nodes.slots.len(), 1);
    }
}
