//! Shared subscriptions: members divide a stream, and nothing of it is lost between them.

use holdfast_store::contract::{Progress, Request};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS::AtLeastOnce;
use holdfast_wire::session_record::Offset;

use crate::world::{BOB, Bench, at, filter};

const GROUP: &str = "$share/g/a";

fn append(bench: &Bench, messages: u32) {
    for _ in 0..messages {
        bench.append(&[filter(GROUP)], "x");
    }
}

fn save(bench: &Bench, client: &str, epoch: Epoch, settled: Offset) {
    bench.save(client, epoch, vec![at(filter(GROUP), settled)]);
}

fn close(bench: &Bench, client: &str, epoch: Epoch, settled: Offset) {
    let progress = Progress { cursors: vec![at(filter(GROUP), settled)], ..Progress::default() };
    bench.done(Request::Close { client: ClientId::new(client), epoch, expiry_s: 60, progress, will: None });
}

/// Opens a session that is there, and where it is told that the group stands.
fn open(bench: &Bench, client: &str) -> (Epoch, Offset) {
    let opened = bench.open(client, BOB, 60);
    let cursors = opened.session.unwrap().cursors;
    let cursor = cursors.into_iter().find(|cursor| cursor.stream == filter(GROUP)).unwrap();
    (opened.epoch, cursor.acked)
}

fn offsets(bench: &Bench) -> Vec<Offset> {
    bench.offsets(&filter(GROUP))
}

pub(crate) fn a_group_stands_where_its_slowest_member_does(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(bench, 3);
    save(bench, "first", first, 3);
    save(bench, "second", second, 1);
    assert_eq!(offsets(bench), [2, 3]);
    assert_eq!(bench.subscribe("first", first, &[(GROUP, AtLeastOnce)]), [at(filter(GROUP), 1)]);
    save(bench, "second", second, 3);
    assert!(offsets(bench).is_empty());
}

pub(crate) fn one_members_save_settles_nothing_that_another_holds(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    bench.subscriber("second", GROUP);
    append(bench, 40);
    save(bench, "first", first, 40);
    assert_eq!(offsets(bench), (1..=40).collect::<Vec<_>>());
    let (second, stands_at) = open(bench, "second");
    assert_eq!(stands_at, 0, "its connection died before it saved anything");
    save(bench, "second", second, 40);
    assert!(offsets(bench).is_empty());
}

pub(crate) fn a_member_whose_node_died_leaves_what_it_held_to_whoever_opens_first(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    bench.subscriber("second", GROUP);
    append(bench, 4);
    close(bench, "first", first, 4);
    assert_eq!(open(bench, "first").1, 0, "what `second` held is not known to be settled");
}

pub(crate) fn a_new_member_is_told_where_the_group_stands_and_holds_nothing_back(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    append(bench, 3);
    let second = bench.open("second", BOB, 60).epoch;
    assert_eq!(bench.subscribe("second", second, &[(GROUP, AtLeastOnce)]), [at(filter(GROUP), 0)]);
    save(bench, "second", second, 3);
    assert_eq!(offsets(bench), [1, 2, 3]);
    save(bench, "first", first, 3);
    assert!(offsets(bench).is_empty());
}

pub(crate) fn what_a_resting_member_has_not_settled_passes_to_the_next_that_opens(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(bench, 3);
    close(bench, "first", first, 1);
    close(bench, "second", second, 3);
    assert_eq!(offsets(bench), [2, 3]);
    let (second, stands_at) = open(bench, "second");
    assert_eq!(stands_at, 1, "it takes over what `first` had not settled");
    append(bench, 2);
    save(bench, "second", second, 2);
    assert_eq!(offsets(bench), [3, 4, 5]);
    close(bench, "second", second, 5);
    assert!(offsets(bench).is_empty(), "`first` holds nothing up for as long as it rests");
    append(bench, 1);
    assert_eq!(open(bench, "second").1, 5);
    assert_eq!(open(bench, "first").1, 5);
}

pub(crate) fn a_member_that_has_settled_everything_leaves_nothing_behind(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(bench, 3);
    close(bench, "first", first, 3);
    save(bench, "second", second, 3);
    append(bench, 2);
    save(bench, "second", second, 5);
    assert!(offsets(bench).is_empty());
}

pub(crate) fn what_a_leaving_member_has_not_settled_stays_for_the_others(bench: &Bench) {
    for end in [0, 1, 2] {
        let first = bench.subscriber("first", GROUP);
        let second = bench.subscriber("second", GROUP);
        append(bench, 4);
        save(bench, "first", first, 4);
        save(bench, "second", second, 2);
        match end {
            0 => bench.unsubscribe("second", second, &[GROUP]),
            1 => bench.close("second", second, 0),
            _ => {
                bench.close("second", second, 5);
                bench.pass_s(5);
            }
        }
        assert_eq!(offsets(bench), [3, 4]);
        let (first, stands_at) = open(bench, "first");
        assert_eq!(stands_at, 2);
        save(bench, "first", first, 4);
        assert!(offsets(bench).is_empty());
        bench.close("first", first, 0);
    }
}

pub(crate) fn a_resting_member_that_saves_moves_nobody(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    append(bench, 3);
    close(bench, "first", first, 1);
    save(bench, "first", first, 3);
    assert_eq!(offsets(bench), [2, 3]);
    assert_eq!(open(bench, "first").1, 1);
}

/// As the owner's own may after a failover that lost the stream's last messages.
pub(crate) fn a_member_that_saves_more_than_there_is_gives_up_nothing_that_comes_later(bench: &Bench) {
    let member = bench.subscriber("first", GROUP);
    append(bench, 1);
    save(bench, "first", member, 3);
    append(bench, 3);
    assert_eq!(offsets(bench), [2, 3, 4]);
    bench.close("first", member, 60);
    assert_eq!(open(bench, "first").1, 1);
    assert_eq!(offsets(bench), [2, 3, 4]);
}

pub(crate) fn a_group_ends_with_its_last_member(bench: &Bench) {
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(bench, 2);
    close(bench, "first", first, 0);
    bench.unsubscribe("second", second, &[GROUP]);
    assert_eq!(offsets(bench), [1, 2], "the group lives on with its other member");
    bench.pass_s(60);
    assert!(bench.durable_filters().is_empty());
}
