//! Messages of a shared subscription's group that a member may have already: nobody claims them until it is clear that it has not.

use holdfast_store::contract::{Request, StoreError};

use crate::claims::{GROUP, Member, NOTHING, append, kept};
use crate::world::{BOUNDS, Bench, at, filter};

pub(crate) fn a_message_on_hold_is_not_claimed(bench: &Bench) {
    let member = Member::joins(bench, "first");
    assert_eq!(bench.hold(GROUP, "held", 60_000), [at(filter(GROUP), 1)]);
    assert_eq!(member.claims_numbered(0, 10), (vec![], 0));
    append(bench, 2..=3);
    assert_eq!(member.claims_numbered(0, 10).0, [(1, "2".to_owned()), (2, "3".to_owned())]);
    member.saves(2);
    assert_eq!(kept(bench), 3, "it stands until its hold ends");
}

pub(crate) fn a_hold_that_ends_as_taken_settles_the_message(bench: &Bench) {
    let member = Member::joins(bench, "first");
    append(bench, 1..=1);
    let held = bench.hold(GROUP, "held", 60_000)[0].acked;
    append(bench, 3..=3);
    for _ in 0..2 {
        bench.end_hold(GROUP, held, true);
        assert_eq!(member.claims(0, 10), ["1", "3"]);
    }
    bench.pass_s(61);
    assert_eq!(member.claims(2, 10), NOTHING);
    member.saves(2);
    assert_eq!(kept(bench), 0);
}

pub(crate) fn a_hold_that_ends_as_not_taken_frees_the_message(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    let held = bench.hold(GROUP, "held", 60_000)[0].acked;
    append(bench, 2..=3);
    assert_eq!(first.claims(0, 1), ["2"]);
    bench.end_hold(GROUP, held, false);
    assert_eq!(first.claims(1, 1), ["held"], "the oldest comes first");
    // It is somebody's now, and the end of its hold is told again.
    for taken in [false, true] {
        bench.end_hold(GROUP, held, taken);
        assert_eq!(second.claims(0, 10), ["3"]);
    }
    first.rests(1);
    assert_eq!(second.claims(1, 10), ["held"]);
}

pub(crate) fn a_hold_whose_time_is_over_frees_the_message(bench: &Bench) {
    let member = Member::joins(bench, "first");
    for (text, for_ms) in [("long", 6_000), ("short", 3_000), ("at once", 0)] {
        bench.hold(GROUP, text, for_ms);
    }
    assert_eq!(member.claims(0, 10), ["at once"]);
    bench.pass_s(2);
    assert_eq!(member.claims(1, 10), NOTHING);
    bench.pass_s(1);
    assert_eq!(member.claims(1, 10), ["short"]);
    bench.pass_s(3);
    assert_eq!(member.claims(2, 10), ["long"]);
    assert_eq!(member.claims(0, 10), ["at once", "short", "long"]);
}

pub(crate) fn a_hold_behind_what_waits_changes_no_order(bench: &Bench) {
    let member = Member::joins(bench, "first");
    append(bench, 1..=2);
    let held = bench.hold(GROUP, "3", 60_000)[0].acked;
    append(bench, 4..=4);
    bench.end_hold(GROUP, held, false);
    append(bench, 5..=5);
    assert_eq!(member.claims(0, 10), ["1", "2", "3", "4", "5"]);
}

pub(crate) fn what_is_held_keeps_to_the_bounds_of_its_stream(bench: &Bench) {
    let member = Member::joins(bench, "first");
    let held: Vec<_> = (0..53).flat_map(|_| bench.hold(GROUP, "held", 60_000)).collect();
    assert_eq!(kept(bench), 50);
    bench.end_hold(GROUP, held[2].acked, false);
    assert_eq!(member.claims(0, 10), NOTHING, "it was cut off");
    bench.end_hold(GROUP, held[3].acked, false);
    assert_eq!(member.claims(0, 10), ["held"]);
    for cursor in &held[4..] {
        bench.end_hold(GROUP, cursor.acked, true);
    }
    member.saves(1);
    assert_eq!(kept(bench), 0);
    let message = bench.message("t", &"x".repeat(BOUNDS.stream.bytes_max as usize));
    let answer = bench.ask(Request::Hold { filter: GROUP.into(), message, for_ms: 1 });
    assert!(matches!(answer, Err(StoreError::Full(_))), "{answer:?}");
}

pub(crate) fn a_hold_for_a_group_that_nobody_is_in_goes_nowhere(bench: &Bench) {
    assert_eq!(bench.hold(GROUP, "held", 60_000), []);
    bench.end_hold(GROUP, 1, true);
    assert!(bench.durable_filters().is_empty());
}
