//! Who comes into a shared subscription's group and who leaves it, and what becomes of what they had.

use holdfast_store::contract::{Progress, Request};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS::{AtLeastOnce, AtMostOnce};
use holdfast_wire::session_record::SessionRecord;

use crate::claims::{GROUP, Member, NOTHING, append, kept};
use crate::world::{ALICE, BOB, Bench, at, filter, subscription};

pub(crate) fn a_new_member_claims_what_waits(bench: &Bench) {
    let first = Member::joins(bench, "first");
    append(bench, 1..=4);
    assert_eq!(first.claims(0, 2).len(), 2);
    bench.pass_s(1);
    let second = Member::joins(bench, "second");
    assert_eq!(second.claims(0, 10), ["3", "4"]);
}

pub(crate) fn what_comes_while_nobody_is_connected_is_divided_among_those_who_come_back(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=1);
    assert_eq!(first.claims(0, 10), ["1"]);
    first.rests(1);
    second.rests(0);
    append(bench, 2..=5);
    let (second, stands_at) = Member::resumes(bench, "second", BOB);
    assert_eq!(stands_at, 0);
    assert_eq!(second.claims(0, 2), ["2", "3"]);
    let (first, stands_at) = Member::resumes(bench, "first", ALICE);
    assert_eq!(stands_at, 1);
    let (claimed, _) = first.claims_numbered(1, 10);
    assert_eq!(claimed, [(2, "4".to_owned()), (3, "5".to_owned())]);
}

pub(crate) fn who_holds_nothing_holds_nothing_back(bench: &Bench) {
    let idle: Vec<_> = (0..20).map(|number| bench.subscriber(&format!("idle {number}"), GROUP)).collect();
    bench.close("idle 0", idle[0], 60);
    let busy = Member::joins(bench, "busy");
    // Twice as many as fit.
    for number in 1..=100 {
        append(bench, number..=number);
        assert_eq!(busy.claims(u64::from(number) - 1, 10), [number.to_string()]);
        busy.saves(number.into());
        assert_eq!(kept(bench), 0);
    }
}

pub(crate) fn a_dead_node_leaves_what_its_member_held_at_its_burial(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=8);
    assert_eq!(first.claims(0, 5).len(), 5);
    first.saves(2);
    assert_eq!(second.claims(0, 1), ["6"]);
    // Alice dies, and nobody says so yet.
    let (second, stands_at) = Member::resumes(bench, "second", BOB);
    assert_eq!(stands_at, 0);
    assert_eq!(second.claims(0, 10), ["6", "7", "8"]);
    second.saves(3);
    assert_eq!(second.claims(3, 10), NOTHING);
    first.is_reaped();
    assert_eq!(second.claims(3, 10), ["3", "4", "5"]);
    second.saves(6);
    assert_eq!(kept(bench), 0);
    let (first, stands_at) = Member::resumes(bench, "first", BOB);
    assert_eq!((stands_at, first.claims(2, 10)), (2, vec![]));
}

pub(crate) fn what_a_leaving_member_has_not_settled_is_given_back(bench: &Bench) {
    for end in 0..6 {
        let first = Member::joins(bench, "first");
        let second = Member::joins(bench, "second");
        append(bench, 1..=5);
        assert_eq!(first.claims(0, 1), ["1"]);
        assert_eq!(second.claims(0, 3).len(), 3);
        second.saves(1);
        match end {
            0 => second.leaves(),
            1 => bench.close("second", second.epoch, 0),
            2 => {
                bench.close("second", second.epoch, 5);
                bench.pass_s(5);
            }
            3 => drop(bench.open_with("second", BOB, true, 60)),
            4 => drop(bench.subscribe("second", second.epoch, &[(GROUP, AtMostOnce)])),
            // It ends with its connection.
            _ => bench.reap("second", bench.open("second", BOB, 0).epoch),
        }
        assert_eq!(first.claims(1, 10), ["3", "4", "5"], "{end}");
        first.saves(4);
        assert_eq!(kept(bench), 0, "{end}");
        bench.close("first", first.epoch, 0);
        bench.open_with("second", BOB, true, 0);
        bench.pass_s(1);
    }
}

pub(crate) fn a_close_that_ends_the_session_settles_what_it_says(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=4);
    assert_eq!(first.claims(0, 3).len(), 3);
    let progress = Progress { cursors: vec![at(filter(GROUP), 2)], ..Progress::default() };
    let (client, epoch) = (ClientId::new("first"), first.epoch);
    bench.done(Request::Close { client, epoch, expiry_s: 0, progress, will: None });
    assert_eq!(bench.lookup("first"), None);
    assert_eq!(second.claims(0, 10), ["3", "4"]);
}

pub(crate) fn who_comes_back_into_a_group_that_it_left_counts_on(bench: &Bench) {
    let first = Member::joins(bench, "first");
    Member::joins(bench, "second");
    append(bench, 1..=3);
    assert_eq!(first.claims(0, 2).len(), 2);
    let counted = || bench.beginning_of(Some(&ClientId::new("first")), &filter(GROUP));
    let before = counted();
    first.leaves();
    bench.pass_s(1);
    bench.subscribe("first", first.epoch, &[(GROUP, AtLeastOnce)]);
    assert!(counted() > before + 2);
    assert_eq!(first.claims_numbered(0, 1).0, [(1, "1".to_owned())]);
}

pub(crate) fn a_member_that_is_written_back_keeps_what_it_claimed(bench: &Bench) {
    let epoch = Epoch(1_000);
    let write_back = |owner, epoch| {
        bench.ask(Request::Restore {
            client: ClientId::new("first"),
            owner,
            epoch,
            expiry_s: 60,
            will: None,
            session: SessionRecord {
                subscriptions: vec![subscription(GROUP, AtLeastOnce)],
                ..SessionRecord::default()
            },
        })
    };
    write_back(ALICE, epoch).unwrap();
    let second = Member::joins(bench, "second");
    append(bench, 1..=4);
    assert_eq!(bench.claim(("first", epoch), GROUP, 0, 3).0.len(), 3);
    bench.save("first", epoch, vec![at(filter(GROUP), 1)]);
    // The store has gone back behind an opening that it had answered.
    let later = Epoch(1_100);
    write_back(BOB, later).unwrap();
    assert_eq!(second.claims(0, 10), ["4"]);
    let (again, _) = bench.claim(("first", later), GROUP, 1, 10);
    assert_eq!(again, [(2, "2".to_owned()), (3, "3".to_owned())]);
}

pub(crate) fn who_saves_at_rest_settles_nothing_that_it_gave_back(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=3);
    assert_eq!(first.claims(0, 3).len(), 3);
    first.rests(1);
    first.saves(3);
    assert_eq!(kept(bench), 2);
    assert_eq!(second.claims(0, 10), ["2", "3"]);
}

pub(crate) fn a_close_that_is_repeated_gives_back_what_is_there_once(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=2);
    assert_eq!(first.claims(0, 2).len(), 2);
    first.rests(0);
    assert_eq!(second.claims(0, 10), ["1", "2"]);
    first.rests(2);
    let progress = Progress::default();
    let (client, epoch) = (ClientId::new("first"), first.epoch);
    bench.done(Request::Close { client, epoch, expiry_s: 60, progress, will: None });
    assert_eq!(second.claims(2, 10), NOTHING);
    assert_eq!(kept(bench), 2);
    second.saves(2);
    assert_eq!(kept(bench), 0);
}

pub(crate) fn a_group_ends_with_its_last_member(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=2);
    assert_eq!(second.claims(0, 1), ["1"]);
    let held = bench.hold(GROUP, "held", 60_000)[0].acked;
    first.rests(0);
    second.leaves();
    assert_eq!(kept(bench), 3, "the group lives on with its other member");
    bench.pass_s(60);
    assert!(bench.durable_filters().is_empty());
    bench.end_hold(GROUP, held, false);
    assert_eq!(bench.hold(GROUP, "nobody's", 60_000), []);
    let later = Member::joins(bench, "later");
    assert_eq!(later.claims(0, 10), NOTHING);
    append(bench, 3..=3);
    assert_eq!(later.claims(0, 10), ["3"]);
}
