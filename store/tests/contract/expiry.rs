//! How sessions end.

use holdfast_store::contract::{NEVER_EXPIRES_S, StoreError};
use holdfast_wire::mqtt::QoS;

use crate::world::{ALICE, BOB, Bench, close, device, filter};

pub(crate) fn a_resting_session_is_there_until_it_expires(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.close("d", epoch, 60);
    bench.pass_s(59);
    assert_eq!(bench.lookup("d").unwrap().owner, None);
    bench.pass_s(1);
    assert_eq!(bench.lookup("d"), None);
    assert_eq!(bench.ask(close("d", epoch, 60)), Err(StoreError::Gone));
    assert_eq!(bench.open("d", ALICE, 60).session, None);
}

pub(crate) fn a_session_that_never_expires_is_there_after_a_century(bench: &Bench) {
    let epoch = bench.open("d", ALICE, NEVER_EXPIRES_S).epoch;
    bench.close("d", epoch, NEVER_EXPIRES_S);
    bench.pass_s(100 * 366 * 86_400);
    assert!(bench.open("d", ALICE, 60).session.is_some());
}

pub(crate) fn a_connected_session_does_not_expire(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.close("d", epoch, 60);
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.pass_s(600);
    assert_eq!(bench.lookup("d").unwrap().epoch, epoch);
    bench.close("d", epoch, 60);
    assert!(bench.lookup("d").is_some());
}

pub(crate) fn a_close_with_expiry_zero_discards(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.close("d", epoch, 0);
    assert_eq!(bench.lookup("d"), None);
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn a_close_can_shorten_and_lengthen_the_expiry(bench: &Bench) {
    for (name, expiry_s) in [("short", 5), ("long", 500)] {
        let epoch = bench.open(name, ALICE, 60).epoch;
        bench.close(name, epoch, expiry_s);
    }
    bench.pass_s(5);
    assert_eq!(bench.lookup("short"), None);
    bench.pass_s(494);
    assert!(bench.lookup("long").is_some());
}

pub(crate) fn a_clean_start_discards_what_was_there(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[device("d")], "for the former session");
    bench.close("d", epoch, 60);
    let opened = bench.open_with("d", ALICE, true, 60);
    assert_eq!(opened.session, None);
    assert!(bench.durable_filters().is_empty());
    assert_eq!(bench.read(&device("d"), 0).0, []);
    assert_eq!(bench.lookup("d").unwrap().subscriptions, []);
}

pub(crate) fn a_session_without_expiry_is_gone_with_its_connection(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 0).epoch;
    assert!(!bench.lookup("d").unwrap().persistent);
    bench.close("d", epoch, 60);
    assert_eq!(bench.lookup("d"), None);
}

pub(crate) fn a_resume_with_expiry_zero_keeps_the_session_until_it_closes(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.close("d", epoch, 60);
    bench.append(&[filter("a")], "while away");
    let opened = bench.open("d", BOB, 0);
    assert_eq!(opened.session.unwrap().subscriptions.len(), 1);
    bench.pass_s(600);
    assert_eq!(bench.read(&filter("a"), 0).0.len(), 1);
    assert!(!bench.lookup("d").unwrap().persistent);
    bench.close("d", opened.epoch, 0);
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn streams_go_with_the_last_session_that_expires(bench: &Bench) {
    for (client, expiry_s) in [("a", 10), ("b", 20)] {
        let epoch = bench.subscriber(client, "x");
        bench.close(client, epoch, expiry_s);
    }
    bench.append(&[filter("x")], "1");
    bench.pass_s(10);
    assert_eq!(bench.offsets(&filter("x")), [1]);
    bench.pass_s(10);
    assert_eq!(bench.append(&[filter("x")], "2"), []);
    assert_eq!(bench.open("b", ALICE, 60).session, None);
}

pub(crate) fn many_sessions_that_expire_at_once_are_all_gone(bench: &Bench) {
    for number in 0..300 {
        let client = number.to_string();
        let epoch = bench.open(&client, ALICE, 60).epoch;
        bench.subscribe(&client, epoch, &[(&client, QoS::AtLeastOnce)]);
        bench.close(&client, epoch, 10);
    }
    bench.pass_s(10);
    assert_eq!(bench.lookup("299"), None);
    // The sweep clears a bounded number with each request; some more requests see the end of it.
    for _ in 0..30 {
        bench.lookup("0");
    }
    assert!(bench.durable_filters().is_empty());
}
