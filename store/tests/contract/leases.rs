//! Nodes, their leases, and how their death is seen.

use holdfast_store::contract::{Reply, Request};
use holdfast_wire::ids::NodeId;

use crate::world::{ALICE, BOB, Bench};

fn renew(bench: &Bench, node: NodeId) {
    let renewed = bench.ask(Request::RenewLease { node, for_ms: 5_000 });
    assert!(matches!(renewed, Ok(Reply::Renewed { .. })), "{renewed:?}");
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
