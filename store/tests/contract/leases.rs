//! Nodes, their leases, and how their death is seen.

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_wire::ids::{NodeId, Owner, ShardId};

use crate::world::{ALICE, BOB, Bench, open};

/// Whether the store knew a lease of the node.
fn renew(bench: &Bench, node: NodeId) -> bool {
    match bench.ask(Request::RenewLease { node, for_ms: 5_000 }) {
        Ok(Reply::Renewed { known }) => known,
        other => panic!("{other:?}"),
    }
}

fn bury(bench: &Bench, node: NodeId) -> Result<Reply, StoreError> {
    bench.ask(Request::Bury { node })
}

fn renew_answers(bench: &Bench, node: NodeId) -> Result<Reply, StoreError> {
    bench.ask(Request::RenewLease { node, for_ms: 5_000 })
}

fn dead(bench: &Bench) -> Vec<NodeId> {
    match bench.ask(Request::DeadNodes) {
        Ok(Reply::Nodes(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_node_whose_lease_runs_out_while_it_owns_sessions_is_dead(bench: &Bench) {
    renew(bench, ALICE.node);
    renew(bench, BOB.node);
    bench.open("d", ALICE, 60);
    assert!(dead(bench).is_empty());
    bench.pass_s(5);
    assert_eq!(dead(bench), [ALICE.node], "the other one owned nothing");
}

pub(crate) fn a_renewed_lease_keeps_a_node_alive(bench: &Bench) {
    renew(bench, ALICE.node);
    bench.open("d", ALICE, 60);
    for _ in 0..5 {
        bench.pass_s(4);
        assert!(dead(bench).is_empty());
        renew(bench, ALICE.node);
    }
}

pub(crate) fn a_dead_node_is_forgotten_once_others_own_its_sessions(bench: &Bench) {
    renew(bench, ALICE.node);
    bench.open("d", ALICE, 60);
    bench.pass_s(5);
    renew(bench, BOB.node);
    assert_eq!(bench.open("d", BOB, 60).former, Some(ALICE));
    assert!(dead(bench).is_empty());
}

pub(crate) fn a_node_is_told_whether_its_lease_was_known(bench: &Bench) {
    assert!(!renew(bench, ALICE.node));
    assert!(renew(bench, ALICE.node));
    bench.open("d", ALICE, 60);
    bench.pass_s(600);
    assert!(renew(bench, ALICE.node), "its lease ran out, and is known to have been");
    assert!(dead(bench).is_empty());
}

pub(crate) fn a_node_that_owned_nothing_and_comes_back_late_does_not_think_that_the_store_lost_its_data(
    bench: &Bench,
) {
    renew(bench, ALICE.node);
    bench.pass_s(600);
    assert!(dead(bench).is_empty());
    renew(bench, BOB.node);
    assert!(renew(bench, ALICE.node));
}

pub(crate) fn a_node_whose_lease_runs_cannot_be_buried(bench: &Bench) {
    renew(bench, ALICE.node);
    bench.open("d", ALICE, 60);
    assert_eq!(bury(bench, ALICE.node), Err(StoreError::Fenced));
    assert!(renew(bench, ALICE.node));
    bench.open("d", ALICE, 60);
}

pub(crate) fn a_buried_node_neither_renews_nor_opens(bench: &Bench) {
    renew(bench, ALICE.node);
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.pass_s(5);
    assert_eq!(bury(bench, ALICE.node), Ok(Reply::Done));
    assert_eq!(bury(bench, ALICE.node), Ok(Reply::Done));
    assert_eq!(renew_answers(bench, ALICE.node), Err(StoreError::Fenced));
    for client in ["d", "new"] {
        for expiry_s in [0, 60] {
            assert_eq!(bench.ask(open(client, ALICE, false, expiry_s, None)), Err(StoreError::Fenced));
        }
    }
    assert_eq!(bench.lookup("new"), None);
    assert_eq!(bench.lookup("d").unwrap().epoch, epoch, "what it has is untouched until someone takes it");
    assert_eq!(dead(bench), [ALICE.node], "it is named for as long as it owns something");
    assert_eq!(bench.open("d", BOB, 60).former, Some(ALICE));
    assert!(dead(bench).is_empty());
    bench.pass_s(23 * 3_600);
    renew(bench, BOB.node);
    assert_eq!(
        renew_answers(bench, ALICE.node),
        Err(StoreError::Fenced),
        "it stays buried though it owns nothing"
    );
}

pub(crate) fn a_node_that_never_had_a_lease_can_be_buried(bench: &Bench) {
    let node = NodeId(0xdead);
    assert_eq!(bury(bench, node), Ok(Reply::Done));
    assert_eq!(renew_answers(bench, node), Err(StoreError::Fenced));
    let owner = Owner { node, shard: ShardId(0) };
    assert_eq!(bench.ask(open("d", owner, false, 0, None)), Err(StoreError::Fenced));
}
