//! Which link leads to which shard.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_wire::ids::Owner;

use super::peer::Peer;
use crate::fanout::LinkId;

/// All open links. As many as there are shards that dialled; a shard that dials again replaces its former link.
#[derive(Debug, Default)]
pub(crate) struct Peers(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    by_shard: HashMap<Owner, Arc<Peer>>,
    by_link: HashMap<LinkId, Arc<Peer>>,
}

impl Peers {
    /// A link is open. Gives out the shard's former one, which is to be closed.
    pub(crate) fn opened(&self, peer: &Arc<Peer>) -> Option<Arc<Peer>> {
        let mut tables = self.write();
        tables.by_link.insert(peer.link, Arc::clone(peer));
        tables.by_shard.insert(peer.shard, Arc::clone(peer))
    }

    /// A link is gone.
    pub(crate) fn lost(&self, peer: &Peer) {
        let mut tables = self.write();
        tables.by_link.remove(&peer.link);
        if tables.by_shard.get(&peer.shard).is_some_and(|known| known.link == peer.link) {
            tables.by_shard.remove(&peer.shard);
        }
    }

    /// How many links are open.
    pub(crate) fn count(&self) -> usize {
        self.read().by_link.len()
    }

    pub(crate) fn of_shard(&self, shard: Owner) -> Option<Arc<Peer>> {
        self.read().by_shard.get(&shard).cloned()
    }

    pub(crate) fn of_link(&self, link: LinkId) -> Option<Arc<Peer>> {
        self.read().by_link.get(&link).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
