//! Named groups of clients, for pushes to all of them. Nothing to do with shared subscriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Page, Reply, StoreError};

use super::change::{Change, Journal};

/// All groups together have at most as many members as this many groups may have.
const FULL_GROUPS_MAX: usize = 16;

/// All groups. None is without members.
pub(crate) struct ClientGroups {
    by_name: BTreeMap<Box<str>, BTreeSet<ClientId>>,
    members: usize,
    members_max: usize,
}

impl ClientGroups {
    pub(crate) fn new(members_max: u32) -> Self {
        Self { by_name: BTreeMap::new(), members: 0, members_max: members_max as usize }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Carries out a change as a whole or not at all.
    pub(crate) fn change(
        &mut self,
        name: &str,
        add: Vec<ClientId>,
        remove: Vec<ClientId>,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let none = BTreeSet::new();
        let members = self.by_name.get(name).unwrap_or(&none);
        let leaving: BTreeSet<_> = remove.into_iter().collect();
        let is_new = |client: &ClientId| !members.contains(client) && !leaving.contains(client);
        let came: BTreeSet<_> = add.into_iter().filter(is_new).collect();
        let left: Vec<_> = leaving.into_iter().filter(|client| members.contains(client)).collect();
        let own = members.len() + came.len() - left.len();
        let all = self.members + came.len() - left.len();
        // What makes it smaller is never refused.
        if own > self.members_max && own > members.len() {
            return Err(StoreError::Full(format!("a group has at most {} members", self.members_max)));
        }
        if all > self.members_max * FULL_GROUPS_MAX && all > self.members {
            return Err(StoreError::Full(format!("all groups have {} members", self.members)));
        }
        let reply = Reply::GroupChanged { added: came.len() as u32, removed: left.len() as u32 };
        if came.is_empty() && left.is_empty() {
            return Ok(reply);
        }
        journal.record(|| Change::Members(name.into(), came.iter().cloned().collect(), left.clone()));
        self.members = all;
        if own == 0 {
            self.by_name.remove(name);
            return Ok(reply);
        }
        let members = self.by_name.entry(name.into()).or_default();
        for client in &left {
            members.remove(client);
        }
        members.extend(came);
        Ok(reply)
    }

    /// Ends a group, if it is there.
    pub(crate) fn drop_group(&mut self, name: &str, journal: &mut impl Journal) {
        if let Some(members) = self.by_name.remove(name) {
            self.members -= members.len();
            journal.record(|| Change::GroupGone(name.into()));
        }
    }

    /// Members in the order of their names; a page is the last name on the former one.
    pub(crate) fn page(
        &self,
        name: &str,
        page: Option<&Page>,
        members_max: u32,
    ) -> Result<Reply, StoreError> {
        let after = page.map(|page| std::str::from_utf8(page)).transpose();
        let after =
            after.map_err(|_| StoreError::Unreadable("a page of a group that it did not name".to_owned()))?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let Some(members) = self.by_name.get(name) else {
            return Ok(Reply::Members { clients: Vec::new(), next: None });
        };
        let mut behind = members.range::<str, _>((from, Bound::Unbounded));
        // A page of none would never end.
        let clients: Vec<_> = behind.by_ref().take(members_max.max(1) as usize).cloned().collect();
        let more = behind.next().is_some();
        let next = clients.last().filter(|_| more).map(|last| last.as_bytes().into());
        Ok(Reply::Members { clients, next })
    }

    /// Puts a member back that a disk kept.
    pub(crate) fn restore(&mut self, name: &str, client: &str) {
        let members = match self.by_name.get_mut(name) {
            Some(members) => members,
            None => self.by_name.entry(name.into()).or_default(),
        };
        self.members += usize::from(members.insert(ClientId::new(client)));
    }
}
