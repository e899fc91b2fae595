//! An orderly end and a new start.

use holdfast_store::contract::{Progress, Reply, Request};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::{PacketId, QoS};

use crate::world::{ALICE, BOB, Bench, at, close, device, filter};

#[test]
fn sessions_streams_cursors_and_retained_messages_are_there_again() {
    let mut bench = Bench::embedded();
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.subscribe("d", epoch, &[("a", QoS::AtLeastOnce), ("$share/g/a", QoS::AtLeastOnce)]);
    for text in ["1", "2", "3"] {
        bench.append(&[filter("a"), filter("$share/g/a"), device("d")], text);
    }
    bench.done(Request::Retain { message: bench.message("kept", "r") });
    let cursors = vec![at(filter("a"), 1), at(filter("$share/g/a"), 2), at(device("d"), 3)];
    let received = vec![PacketId::new(5).unwrap()];
    let progress = Progress { cursors: cursors.clone(), received: received.clone(), inflight: vec![] };
    bench.done(Request::Close { client: ClientId::new("d"), epoch, expiry_s: 60, progress });

    bench.reopen();

    assert_eq!(bench.durable_filters(), [Box::from("$share/g/a"), Box::from("a")]);
    assert_eq!(bench.offsets(&filter("a")), [2, 3]);
    assert_eq!(bench.offsets(&filter("$share/g/a")), [3]);
    assert_eq!(bench.append(&[device("d")], "4"), [at(device("d"), 4)]);
    let read = Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9 };
    assert!(matches!(bench.ask(read), Ok(Reply::Retained(messages)) if messages.len() == 1));
    let opened = bench.open("d", BOB, 60);
    assert!(opened.epoch > epoch);
    let session = opened.session.unwrap();
    assert_eq!(session.received, received);
    assert_eq!(session.subscriptions.len(), 2);
    for cursor in cursors {
        assert!(session.cursors.contains(&cursor), "{cursor:?} is not in {:?}", session.cursors);
    }
}

#[test]
fn what_a_groups_member_held_when_the_process_died_is_there_for_either_of_them() {
    const GROUP: &str = "$share/g/a";
    for first_back in ["a", "b"] {
        let mut bench = Bench::embedded();
        let saves = bench.subscriber("a", GROUP);
        bench.subscriber("b", GROUP);
        for _ in 0..40 {
            bench.append(&[filter(GROUP)], "x");
        }
        bench.save("a", saves, vec![at(filter(GROUP), 40)]);
        bench.reopen();
        let opened = bench.open(first_back, BOB, 60);
        assert!(opened.session.unwrap().cursors.contains(&at(filter(GROUP), 0)), "{first_back}");
        assert_eq!(bench.offsets(&filter(GROUP)).len(), 40);
        // Whoever took it over settles it for the one that never comes back.
        bench.save(first_back, opened.epoch, vec![at(filter(GROUP), 40)]);
        bench.reopen();
        assert!(bench.offsets(&filter(GROUP)).is_empty());
    }
}

#[test]
fn epochs_grow_across_restarts() {
    let mut bench = Bench::embedded();
    let mut last = bench.open("d", ALICE, 60).epoch;
    for _ in 0..3 {
        bench.reopen();
        let epoch = bench.open("clean", ALICE, 0).epoch;
        assert!(epoch > last);
        last = epoch;
    }
}

#[test]
fn who_was_connected_rests_from_the_start_on() {
    let mut bench = Bench::embedded();
    bench.open("d", ALICE, 60);
    bench.pass_s(600);
    bench.reopen();
    assert_eq!(bench.lookup("d").unwrap().owner, None);
    bench.pass_s(59);
    assert!(bench.lookup("d").is_some());
    bench.pass_s(1);
    assert_eq!(bench.lookup("d"), None);
}

#[test]
fn who_rested_goes_on_resting_until_the_same_moment() {
    let mut bench = Bench::embedded();
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.close("d", epoch, 60);
    bench.pass_s(59);
    bench.reopen();
    assert!(bench.lookup("d").is_some());
    bench.pass_s(1);
    assert_eq!(bench.lookup("d"), None);
}

#[test]
fn a_session_without_expiry_is_not_kept() {
    let mut bench = Bench::embedded();
    bench.open("clean", ALICE, 0);
    let epoch = bench.subscriber("resumed", "a");
    bench.close("resumed", epoch, 60);
    bench.open("resumed", ALICE, 0);
    bench.reopen();
    assert_eq!(bench.lookup("clean"), None);
    assert_eq!(bench.lookup("resumed"), None);
    assert!(bench.durable_filters().is_empty(), "a stream that nobody holds is not kept either");
}

#[test]
fn what_is_gone_stays_gone() {
    let mut bench = Bench::embedded();
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a"), device("d")], "1");
    bench.done(Request::Retain { message: bench.message("r", "1") });
    bench.done(Request::Retain { message: bench.message("r", "") });
    bench.done(close("d", epoch, 0));
    bench.reopen();
    assert_eq!(bench.lookup("d"), None);
    let read = Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9 };
    assert_eq!(bench.ask(read), Ok(Reply::Retained(vec![])));
    bench.subscriber("d", "a");
    assert_eq!(bench.read(&filter("a"), 0), (vec![], 0));
}

#[test]
fn offsets_go_on_where_they_were_although_every_message_is_read() {
    let mut bench = Bench::embedded();
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a"), device("d")], "1");
    bench.save("d", epoch, vec![at(filter("a"), 1), at(device("d"), 1)]);
    bench.reopen();
    assert_eq!(bench.append(&[filter("a"), device("d")], "2"), [at(filter("a"), 2), at(device("d"), 2)]);
}
