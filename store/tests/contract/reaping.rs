//! Sessions of dead nodes: they come to rest or end, and their wills fall due.

use holdfast_store::contract::{OPENER_WILL_S, Progress, Reply, Request, StoreError, WILL_AGAIN_S};
use holdfast_wire::ids::ClientId;

use crate::world::{ALICE, BOB, Bench, at, device, filter, reap};

/// Whose wills are due, and what is in them.
fn due(bench: &Bench) -> Vec<String> {
    let text = |will: holdfast_store::contract::DueWill| crate::world::text_of(&will.will.message);
    bench.due_wills().into_iter().map(text).collect()
}

fn bury(bench: &Bench) {
    bench.done(Request::Bury { node: ALICE.node });
}

pub(crate) fn a_reaped_session_rests_from_then_on(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a"), device("d")], "1");
    bench.save("d", epoch, vec![at(filter("a"), 1)]);
    bench.pass_s(600);
    bench.reap("d", epoch);
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.persistent), (None, true));
    assert_eq!(info.since_ms, bench.now_ms());
    assert_eq!(info.rests_until_ms, Some(bench.now_ms() + 60_000));
    assert!(info.epoch > epoch);
    bench.append(&[filter("a")], "2");
    bench.pass_s(59);
    let opened = bench.open("d", BOB, 60);
    assert_eq!(opened.former, None);
    let cursors = opened.session.unwrap().cursors;
    assert!(cursors.contains(&at(filter("a"), 1)) && cursors.contains(&at(device("d"), 0)), "{cursors:?}");
    assert_eq!(bench.offsets(&filter("a")), [2]);
}

pub(crate) fn a_reaped_session_expires_as_if_its_connection_had_ended(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.pass_s(600);
    bench.reap("d", epoch);
    bench.pass_s(60);
    assert_eq!(bench.lookup("d"), None);
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn a_reaped_session_without_expiry_ends(bench: &Bench) {
    let epoch = bench.open("clean", ALICE, 0).epoch;
    bench.reap("clean", epoch);
    assert_eq!(bench.lookup("clean"), None);
    let epoch = bench.subscriber("resumed", "a");
    bench.close("resumed", epoch, 60);
    let epoch = bench.open("resumed", ALICE, 0).epoch;
    bench.reap("resumed", epoch);
    assert_eq!(bench.lookup("resumed"), None);
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn reaping_again_changes_nothing(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    bench.reap("d", epoch);
    bench.pass_s(30);
    assert_eq!(bench.ask(reap("d", epoch)), Err(StoreError::Fenced));
    assert_eq!(due(bench), ["d"]);
    bench.pass_s(30);
    assert_eq!(bench.lookup("d"), None, "it rests from the first time on");
}

pub(crate) fn who_came_back_before_the_reaper_is_not_reaped(bench: &Bench) {
    let old = bench.open_with_will("d", ALICE, 60, 0);
    let epoch = bench.open("d", BOB, 60).epoch;
    assert_eq!(bench.ask(reap("d", old)), Err(StoreError::Fenced));
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.epoch), (Some(BOB), epoch));
}

pub(crate) fn a_session_that_its_owner_closed_goes_on_resting(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    bench.close("d", epoch, 60);
    bench.pass_s(50);
    bench.reap("d", epoch);
    assert!(due(bench).is_empty(), "its owner took care of the will");
    bench.pass_s(10);
    assert_eq!(bench.lookup("d"), None);
}

pub(crate) fn a_dead_owner_cannot_write_what_was_reaped(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a")], "1");
    bench.reap("d", epoch);
    let cursors = vec![at(filter("a"), 1)];
    let progress = Progress { cursors, ..Progress::default() };
    let save = Request::Save { client: ClientId::new("d"), epoch, progress };
    assert_eq!(bench.ask(save), Err(StoreError::Fenced));
    assert_eq!(bench.offsets(&filter("a")), [1]);
}

pub(crate) fn a_will_falls_due_after_its_delay_or_with_its_session(bench: &Bench) {
    for (client, expiry_s, delay_s) in [
        ("at once", 60, 0),
        ("later", 60, 20),
        ("with the session", 60, 600),
        ("session without expiry", 0, 600),
    ] {
        let epoch = bench.open_with_will(client, ALICE, expiry_s, delay_s);
        bench.pass_s(1);
        bench.reap(client, epoch);
        bench.open_with_will(&format!("{client}, alive"), BOB, expiry_s, delay_s);
    }
    let publish_due = |expected: &[&str]| {
        let wills = bench.due_wills();
        let clients: Vec<_> = wills.iter().map(|will| will.client.as_str()).collect();
        assert_eq!(clients, expected);
        for will in wills {
            assert_eq!(crate::world::text_of(&will.will.message), will.client.as_str());
            bench.done(Request::WillPublished { client: will.client, number: will.number });
        }
    };
    publish_due(&["at once", "session without expiry"]);
    // The second one was reaped two seconds before now, the third one a second before.
    bench.pass_s(17);
    publish_due(&[]);
    bench.pass_s(1);
    publish_due(&["later"]);
    bench.pass_s(40);
    publish_due(&[]);
    bench.pass_s(1);
    publish_due(&["with the session"]);
    bench.pass_s(6_000);
    publish_due(&[]);
}

pub(crate) fn a_will_is_given_again_until_it_is_published(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    bench.reap("d", epoch);
    let first = bench.due_wills();
    assert_eq!(first.len(), 1);
    assert!(first[0].number > epoch.0);
    assert!(due(bench).is_empty());
    bench.pass_s(u64::from(WILL_AGAIN_S) - 1);
    assert!(due(bench).is_empty());
    bench.pass_s(1);
    assert_eq!(bench.due_wills(), first);
    let number = first[0].number;
    for _ in 0..2 {
        bench.done(Request::WillPublished { client: ClientId::new("d"), number });
    }
    bench.done(Request::WillPublished { client: ClientId::new("nobody"), number: 1 });
    bench.pass_s(600);
    assert!(due(bench).is_empty());
}

pub(crate) fn as_many_wills_are_given_as_are_wanted(bench: &Bench) {
    for number in 0..30 {
        let client = format!("{number:02}");
        let epoch = bench.open_with_will(&client, ALICE, 60, 0);
        bench.reap(&client, epoch);
    }
    let mut given = Vec::new();
    loop {
        match bench.ask(Request::DueWills { wills_max: 7 }) {
            Ok(Reply::Wills(wills)) => {
                assert!(wills.len() <= 7);
                // A store that keeps them in parts may give fewer, but none only once there are none.
                if wills.is_empty() {
                    break;
                }
                given.extend(wills.into_iter().map(|will| will.client));
            }
            other => panic!("{other:?}"),
        }
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 30);
}

pub(crate) fn who_comes_back_in_time_takes_its_will_back(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 20);
    bench.reap("d", epoch);
    bench.pass_s(19);
    let epoch = bench.open("d", BOB, 60).epoch;
    bench.pass_s(600);
    assert!(due(bench).is_empty());
    // The next connection has none.
    bench.reap("d", epoch);
    bench.pass_s(60);
    assert!(due(bench).is_empty());
}

pub(crate) fn who_comes_back_too_late_is_answered_its_will(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 20);
    bench.reap("d", epoch);
    bench.pass_s(20);
    let opened = bench.open("d", BOB, 60);
    let will = opened.will.expect("it fell due, and nobody has it");
    assert!(will.number > epoch.0);
    bench.reap("d", opened.epoch);
    bench.pass_s(u64::from(OPENER_WILL_S));
    assert_eq!(bench.due_wills(), [will], "its opener died as well");
}

pub(crate) fn who_was_given_a_will_may_publish_it_though_the_client_came_back(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    bench.reap("d", epoch);
    assert_eq!(due(bench), ["d"]);
    bench.open("d", BOB, 60);
    bench.pass_s(u64::from(WILL_AGAIN_S));
    assert_eq!(due(bench), ["d"], "nobody has said that it is published");
}

pub(crate) fn who_opens_before_its_buried_owner_is_reaped_does_not_lose_its_will(bench: &Bench) {
    // What happens to the will is what would have, had the reaper come first.
    for (client, expiry_s, delay_s) in
        [("late", 60, 0), ("in time", 60, 20), ("clean", 60, 20), ("over", 0, 20)]
    {
        bench.open_with_will(client, ALICE, expiry_s, delay_s);
    }
    bury(bench);
    for client in ["late", "in time", "clean", "over"] {
        let opened = bench.open_with(client, BOB, client == "clean", 60);
        assert_eq!(opened.former, Some(ALICE));
        assert_eq!(opened.session.is_some(), ["late", "in time"].contains(&client));
        assert_eq!(opened.will.is_some(), client != "in time");
    }
    bench.pass_s(20);
    assert_eq!(due(bench), ["clean", "late", "over"]);
}
