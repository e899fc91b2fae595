//! Named groups of clients, for pushes to all of them. Nothing to do with shared subscriptions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Page, Reply, StoreError};

use super::change::{Change, Journal};
use crate::contract::{group_has_no_place, groups_have_no_place};

/// Members of a group that ends which are let go at once. More would hold everyone up for longer.
const SLICE: usize = 65_536;

/// All groups together have at most as many members as this many groups may have.
const FULL_GROUPS_MAX: usize = 16;

/// All groups. None is without members.
pub(crate) struct ClientGroups {
    by_name: BTreeMap<Box<str>, BTreeSet<ClientId>>,
    /// What is left of groups that ended. Each was a whole group once, so there are never more than a store may have of them, with what was added since.
    ending: VecDeque<(Box<str>, BTreeSet<ClientId>)>,
    members: usize,
    members_max: usize,
}

impl ClientGroups {
    pub(crate) fn new(members_max: u32) -> Self {
        Self {
            by_name: BTreeMap::new(),
            ending: VecDeque::new(),
            members: 0,
            members_max: members_max as usize,
        }
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
            return Err(group_has_no_place(members.len() as u64, self.members_max as u64));
        }
        let all_max = self.members_max * FULL_GROUPS_MAX;
        if all > all_max && all > self.members {
            return Err(groups_have_no_place(self.members as u64, all_max as u64));
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

    /// Ends a group, if it is there. A large one has no members from now on, but lets go of them slice by slice ([`Self::end_some`]).
    pub(crate) fn drop_group(&mut self, name: &str, journal: &mut impl Journal) {
        let Some(members) = self.by_name.remove(name) else { return };
        self.members -= members.len();
        if members.len() <= SLICE {
            journal.record(|| Change::GroupGone(name.into()));
        } else {
            self.ending.push_back((name.into(), members));
        }
    }

    /// Whether something is left of a group of this name that ended.
    pub(crate) fn is_ending(&self, name: &str) -> bool {
        self.ending.iter().any(|(ending, _)| **ending == *name)
    }

    /// Whether something is left of any.
    pub(crate) fn are_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Lets go of some members of groups that ended.
    pub(crate) fn end_some(&mut self, journal: &mut impl Journal) {
        let Some((name, left)) = self.ending.front_mut() else { return };
        let mut slice = std::iter::from_fn(|| left.pop_first()).take(SLICE);
        let first = slice.next();
        let last = slice.last().or_else(|| first.clone());
        if let (Some(first), Some(last)) = (first, last) {
            // Those that have come into a new group of that name are kept by the same rows.
            let again = self.by_name.get(name);
            let kept = || {
                again
                    .into_iter()
                    .flat_map(|group| group.range::<ClientId, _>(&first..=&last))
                    .cloned()
                    .collect()
            };
            journal.record(|| Change::MembersGone(name.clone(), first.clone(), last.clone(), kept()));
        }
        if left.is_empty() {
            self.ending.pop_front();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<usize>) -> Vec<ClientId> {
        range.map(|number| ClientId::new(&format!("{number:06}"))).collect()
    }

    #[test]
    fn a_large_group_ends_at_once_and_lets_go_of_its_members_slice_by_slice() {
        let mut groups = ClientGroups::new(1_000_000);
        let mut journal = Vec::new();
        groups.change("g", ids(0..200_000), vec![], &mut journal).unwrap();
        journal.clear();
        groups.drop_group("g", &mut journal);
        assert!(journal.is_empty() && !groups.contains("g") && groups.is_ending("g"));
        let page = groups.page("g", None, 10).unwrap();
        assert_eq!(page, Reply::Members { clients: vec![], next: None });
        assert_eq!(groups.members, 0);
        // A new group of that name begins before the former one is gone.
        groups.change("g", ids(5_000..5_002), vec![], &mut journal).unwrap();
        journal.clear();
        while groups.are_ending() {
            groups.end_some(&mut journal);
        }
        let slices: Vec<_> = journal
            .into_iter()
            .map(|change| match change {
                Change::MembersGone(_, first, last, kept) => (first, last, kept),
                other => panic!("{other:?}"),
            })
            .collect();
        let edges = |from: usize, to: usize| (ids(from..from + 1).remove(0), ids(to - 1..to).remove(0));
        let slice = |from, to, kept| {
            let (first, last) = edges(from, to);
            (first, last, kept)
        };
        let expected = [
            slice(0, SLICE, ids(5_000..5_002)),
            slice(SLICE, 2 * SLICE, vec![]),
            slice(2 * SLICE, 3 * SLICE, vec![]),
            slice(3 * SLICE, 200_000, vec![]),
        ];
        assert_eq!(slices, expected);
        assert!(groups.contains("g"));
    }
}
