//! Named groups of clients.

use std::collections::BTreeSet;

use holdfast_store::contract::{Page, Reply, Request, StoreError};
use holdfast_wire::ids::ClientId;

use crate::world::{BOUNDS, Bench};

fn ids<T: AsRef<str>>(names: &[T]) -> Vec<ClientId> {
    names.iter().map(|name| ClientId::new(name.as_ref())).collect()
}

/// How many were added and removed.
fn change(bench: &Bench, group: &str, add: &[&str], remove: &[&str]) -> (u32, u32) {
    match bench.ask(Request::ChangeGroup { group: group.into(), add: ids(add), remove: ids(remove) }) {
        Ok(Reply::GroupChanged { added, removed }) => (added, removed),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn members_of(bench: &Bench, group: &str, members_max: u32) -> BTreeSet<String> {
    let (mut all, mut page) = (Vec::new(), None::<Page>);
    for _ in 0..100_000 {
        match bench.ask(Request::GroupMembers { group: group.into(), page: page.take(), members_max }) {
            Ok(Reply::Members { clients, next }) => {
                assert!(clients.len() <= members_max as usize);
                all.extend(clients.into_iter().map(|client| client.to_string()));
                page = next;
            }
            other => panic!("{other:?}"),
        }
        if page.is_none() {
            let members: BTreeSet<_> = all.iter().cloned().collect();
            assert_eq!(members.len(), all.len(), "none is on two pages");
            return members;
        }
    }
    panic!("the pages have no end");
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn clients_come_into_a_group_and_leave_it(bench: &Bench) {
    assert!(members_of(bench, "g", 10).is_empty());
    assert_eq!(change(bench, "g", &["a", "b", "c", "a"], &[]), (3, 0));
    assert_eq!(change(bench, "g", &["c", "d"], &["a", "nobody"]), (1, 1));
    assert_eq!(members_of(bench, "g", 10), set(&["b", "c", "d"]));
    assert_eq!(change(bench, "other", &["a"], &[]), (1, 0));
    assert_eq!(members_of(bench, "g", 10), set(&["b", "c", "d"]), "groups know nothing of each other");
}

pub(crate) fn who_is_to_come_and_to_leave_leaves(bench: &Bench) {
    change(bench, "g", &["a"], &[]);
    assert_eq!(change(bench, "g", &["a", "b", "c"], &["a", "b"]), (1, 1));
    assert_eq!(members_of(bench, "g", 10), set(&["c"]));
}

pub(crate) fn a_group_ends_with_its_last_member_or_by_word(bench: &Bench) {
    change(bench, "g", &["a"], &[]);
    assert_eq!(change(bench, "g", &[], &["a"]), (0, 1));
    assert!(members_of(bench, "g", 10).is_empty());
    change(bench, "g", &["a", "b"], &[]);
    change(bench, "g2", &["a"], &[]);
    for _ in 0..2 {
        bench.done(Request::DropGroup { group: "g".into() });
        assert!(members_of(bench, "g", 10).is_empty());
    }
    assert_eq!(members_of(bench, "g2", 10), set(&["a"]), "its name only begins alike");
    assert_eq!(change(bench, "g", &["a"], &[]), (1, 0));
}

pub(crate) fn members_are_read_page_by_page(bench: &Bench) {
    let names: Vec<_> = (0..300).map(|number| format!("client {number}")).collect();
    let request = Request::ChangeGroup { group: "g".into(), add: ids(&names), remove: vec![] };
    assert_eq!(bench.ask(request), Ok(Reply::GroupChanged { added: 300, removed: 0 }));
    for members_max in [1, 7, 300, 1_000] {
        assert_eq!(members_of(bench, "g", members_max).len(), 300, "{members_max} a page");
    }
}

pub(crate) fn a_group_is_bounded(bench: &Bench) {
    let most = BOUNDS.group_members_max as usize;
    let names: Vec<_> = (0..most).map(|number| number.to_string()).collect();
    let request = Request::ChangeGroup { group: "g".into(), add: ids(&names), remove: vec![] };
    assert_eq!(bench.ask(request), Ok(Reply::GroupChanged { added: most as u32, removed: 0 }));
    let one_more = Request::ChangeGroup { group: "g".into(), add: ids(&["more"]), remove: vec![] };
    let Err(StoreError::Full(why)) = bench.ask(one_more) else { panic!("it has no place") };
    assert_eq!(
        why,
        format!("the group has {most} of at most {most} members (store.group_members_max): 0 more fit")
    );
    assert!(!members_of(bench, "g", 1_000).contains("more"));
    assert_eq!(change(bench, "g", &["0", "1"], &[]), (0, 0), "who is in it already needs no place");
    assert_eq!(change(bench, "g", &["more"], &["0"]), (1, 1));
    assert_eq!(change(bench, "other", &["more"], &[]), (1, 0));
}
