//! How sessions end.

use holdfast_store::contract::{EXPIRED_ASKED_S, ExpiredSession, NEVER_EXPIRES_S, Request, StoreError};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::SessionRecord;

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

fn expired(client: &str, epoch: Epoch, at_ms: u64) -> ExpiredSession {
    ExpiredSession { client: ClientId::new(client), epoch, at_ms }
}

/// A session that rests for so long from now on.
fn resting(bench: &Bench, client: &str, expiry_s: u32) -> Epoch {
    let epoch = bench.open(client, ALICE, expiry_s).epoch;
    bench.close(client, epoch, expiry_s);
    epoch
}

pub(crate) fn each_session_that_expired_is_told_once(bench: &Bench) {
    assert_eq!(bench.take_expired(100), []);
    let began_ms = bench.now_ms();
    let epoch = resting(bench, "expires", 60);
    let later = resting(bench, "later", 90);
    let dead = bench.open("reaped", ALICE, 60).epoch;
    bench.reap("reaped", dead);
    resting(bench, "for ever", NEVER_EXPIRES_S);
    for (client, clean_start) in [("resumed", false), ("discarded", true)] {
        resting(bench, client, 60);
        bench.open_with(client, BOB, clean_start, 60);
    }
    let ended = resting(bench, "closed again", 60);
    bench.close("closed again", ended, 0);
    let clean = bench.open("clean", ALICE, 0).epoch;
    bench.close("clean", clean, 0);
    bench.pass_s(60);
    let told = bench.take_expired(100);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], expired("expires", epoch, began_ms + 60_000));
    assert_eq!(told[1], expired("reaped", told[1].epoch, began_ms + 60_000));
    assert!(told[1].epoch > dead);
    bench.pass_s(60);
    assert_eq!(bench.take_expired(100), [expired("later", later, began_ms + 90_000)]);
    assert_eq!(bench.take_expired(100), []);
}

pub(crate) fn an_expiry_that_a_clients_return_finds_is_told_too(bench: &Bench) {
    bench.take_expired(1);
    let at_ms = bench.now_ms() + 60_000;
    let clients: Vec<_> = (0..50).map(|number| format!("{number:02}")).collect();
    let mut told: Vec<_> =
        clients.iter().map(|client| expired(client, resting(bench, client, 60), at_ms)).collect();
    bench.pass_unswept_s(100);
    for client in clients.iter().rev() {
        assert_eq!(bench.open(client, BOB, 60).session, None);
    }
    assert_eq!(bench.take_expired(100), told);
    // And one that is written back: the store had forgotten that its client came back in time.
    let owner = ALICE;
    let restore = |epoch| {
        let (client, session) = (ClientId::new("forgotten"), SessionRecord::default());
        Request::Restore { client, owner, epoch: Epoch(epoch), expiry_s: 60, will: None, session }
    };
    assert!(bench.ask(restore(1_000)).is_ok());
    bench.close("forgotten", Epoch(1_000), 60);
    told = vec![expired("forgotten", Epoch(1_000), bench.now_ms() + 60_000)];
    bench.pass_unswept_s(100);
    assert!(bench.ask(restore(2_000)).is_ok());
    assert_eq!(bench.take_expired(100), told);
}

pub(crate) fn as_many_expired_sessions_are_told_as_are_wanted(bench: &Bench) {
    bench.take_expired(1);
    for number in 0..30 {
        resting(bench, &number.to_string(), 60);
    }
    bench.pass_s(60);
    bench.pass_s(0);
    let told = bench.take_expired(7);
    assert_eq!(told.len(), 30);
}

pub(crate) fn what_expires_long_after_anyone_asked_is_told_to_nobody(bench: &Bench) {
    bench.take_expired(1);
    let asked_s = EXPIRED_ASKED_S;
    resting(bench, "while it was kept", asked_s - 1);
    resting(bench, "too late", asked_s);
    bench.pass_s(u64::from(asked_s));
    assert_eq!(bench.take_expired(100), [], "and nothing is kept so long");
    // Who goes on asking misses nothing.
    let at_ms = bench.now_ms() + 1_000 * 2 * u64::from(asked_s);
    let epoch = resting(bench, "told", 2 * asked_s);
    for _ in 0..4 {
        assert_eq!(bench.take_expired(100), []);
        bench.pass_s(u64::from(asked_s / 2));
    }
    assert_eq!(bench.take_expired(100), [expired("told", epoch, at_ms)]);
}
