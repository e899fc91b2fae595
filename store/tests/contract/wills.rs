//! Wills that a close leaves, and those that fall due by an opening: published before the client's next words, or not at all.

use holdfast_store::contract::{
    DueWill, NEVER_EXPIRES_S, OPENER_WILL_S, Opened, Progress, Reply, Request, StoreError, WILL_AGAIN_S,
    WillRecord,
};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};

use crate::world::{ALICE, BOB, BOUNDS, Bench, close, open, text_of};

const CAROL: Owner = Owner { node: NodeId(0xc), shard: ShardId(0) };

/// Whose wills are due, and what is in them.
fn due(bench: &Bench) -> Vec<String> {
    bench.due_wills().into_iter().map(|will| text_of(&will.will.message)).collect()
}

fn is_published(bench: &Bench, client: &str, number: u64) {
    bench.done(Request::WillPublished { client: ClientId::new(client), number });
}

fn close_with(client: &str, epoch: Epoch, expiry_s: u32, will: Option<WillRecord>) -> Request {
    let progress = Progress::default();
    Request::Close { client: ClientId::new(client), epoch, expiry_s, progress, will }
}

/// Closes a session with a will that has its client's name in it.
fn close_with_will(bench: &Bench, client: &str, epoch: Epoch, expiry_s: u32, delay_s: u32) {
    bench.done(close_with(client, epoch, expiry_s, Some(bench.will(client, delay_s))));
}

/// The number of the will that an opening was answered, with the client's name in it.
fn number_of(opened: &Opened, client: &str) -> u64 {
    let DueWill { client: of, number, will } = opened.will.as_ref().expect("it is answered a will");
    assert_eq!((of.as_str(), &*text_of(&will.message)), (client, client));
    *number
}

fn nothing_is_ever_due(bench: &Bench) {
    bench.pass_s(u64::from(WILL_AGAIN_S) * 10);
    assert_eq!(due(bench), [""; 0]);
}

pub(crate) fn the_will_of_a_close_falls_due_after_its_delay_or_with_its_session(bench: &Bench) {
    for (client, opened_for_s, expiry_s, delay_s) in [
        ("at once", 60, 60, 0),
        ("later", 60, 60, 20),
        ("session for ever", 60, NEVER_EXPIRES_S, 50),
        ("with the session", 60, 60, 600),
        ("session ends", 60, 0, 600),
        ("session without expiry", 0, 60, 600),
    ] {
        let epoch = bench.open_with_will(client, ALICE, opened_for_s, 0);
        close_with_will(bench, client, epoch, expiry_s, delay_s);
    }
    let publish_due = || {
        let wills = bench.due_wills();
        for will in &wills {
            is_published(bench, &will.client, will.number);
        }
        wills.into_iter().map(|will| text_of(&will.will.message)).collect::<Vec<_>>()
    };
    assert_eq!(publish_due(), ["at once", "session ends", "session without expiry"]);
    bench.pass_s(19);
    assert_eq!(publish_due(), [""; 0]);
    bench.pass_s(1);
    assert_eq!(publish_due(), ["later"]);
    bench.pass_s(30);
    assert_eq!(publish_due(), ["session for ever"]);
    bench.pass_s(10);
    assert_eq!(publish_due(), ["with the session"]);
    nothing_is_ever_due(bench);
}

pub(crate) fn the_number_of_a_closed_sessions_will_is_its_epoch(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    close_with_will(bench, "d", epoch, 60, 20);
    bench.pass_s(19);
    assert_eq!(due(bench), [""; 0]);
    bench.pass_s(1);
    let wills = bench.due_wills();
    assert_eq!((wills.len(), wills[0].number), (1, epoch.0));
    is_published(bench, "d", epoch.0);
    nothing_is_ever_due(bench);
}

pub(crate) fn a_close_without_a_will_forgets_the_one_of_its_connection(bench: &Bench) {
    for expiry_s in [0, 60] {
        let epoch = bench.open_with_will("d", ALICE, expiry_s, 20);
        bench.close("d", epoch, expiry_s);
        assert_eq!(bench.open("d", BOB, 60).will, None);
        let epoch = bench.open("d", BOB, 60).epoch;
        bench.close("d", epoch, 0);
    }
    nothing_is_ever_due(bench);
}

pub(crate) fn who_resumes_in_time_strikes_out_the_will_of_the_close(bench: &Bench) {
    for owner in [ALICE, BOB] {
        let epoch = bench.open("d", ALICE, 60).epoch;
        close_with_will(bench, "d", epoch, 60, 20);
        bench.pass_s(19);
        let opened = bench.open("d", owner, 60);
        assert_eq!((opened.session.is_some(), opened.will), (true, None));
        nothing_is_ever_due(bench);
        bench.close("d", opened.epoch, 0);
    }
}

pub(crate) fn a_clean_start_is_answered_the_will_that_waited_for_its_delay(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    close_with_will(bench, "d", epoch, 60, 20);
    let opened = bench.open_with("d", BOB, true, 60);
    assert_eq!((number_of(&opened, "d"), opened.former), (epoch.0, None));
    bench.pass_s(u64::from(OPENER_WILL_S) - 1);
    assert_eq!(due(bench), [""; 0], "it is left to whoever asked");
    bench.pass_s(1);
    assert_eq!(due(bench), ["d"]);
    is_published(bench, "d", epoch.0);
    nothing_is_ever_due(bench);
}

pub(crate) fn a_second_close_changes_no_will(bench: &Bench) {
    for second in [None, Some(bench.will("another", 0))] {
        let epoch = bench.open("d", ALICE, 60).epoch;
        close_with_will(bench, "d", epoch, 60, 20);
        bench.done(close_with("d", epoch, 60, second.clone()));
        bench.pass_s(20);
        assert_eq!(due(bench), ["d"]);
        is_published(bench, "d", epoch.0);
        // Its answer was lost, and nobody knows what has become of the will.
        close_with_will(bench, "d", epoch, 60, 0);
        nothing_is_ever_due(bench);
    }
}

pub(crate) fn a_second_close_that_ends_the_session_earlier_brings_its_will_forward(bench: &Bench) {
    for (client, expiry_s) in [("sooner", 5), ("at once", 0), ("as before", 600)] {
        let epoch = bench.open(client, ALICE, 60).epoch;
        close_with_will(bench, client, epoch, 60, 20);
        bench.close(client, epoch, expiry_s);
    }
    assert_eq!(due(bench), ["at once"]);
    bench.pass_s(5);
    assert_eq!(due(bench), ["sooner"]);
    bench.pass_s(15);
    assert_eq!(due(bench), ["as before"]);
}

pub(crate) fn who_takes_a_session_over_is_answered_the_will_that_falls_due_by_it(bench: &Bench) {
    for (client, expiry_s, delay_s, clean_start) in [
        ("no delay", 60, 0, false),
        ("no delay, clean", 60, 0, true),
        ("session without expiry", 0, 20, false),
        ("clean", 60, 20, true),
    ] {
        let epoch = bench.open_with_will(client, ALICE, expiry_s, delay_s);
        let opened = bench.open_with(client, BOB, clean_start, 60);
        assert_eq!((number_of(&opened, client), opened.former), (epoch.0, Some(ALICE)));
        assert_eq!(opened.session.is_some(), client == "no delay");
    }
    bench.pass_s(u64::from(OPENER_WILL_S) - 1);
    assert_eq!(due(bench), [""; 0]);
    bench.pass_s(1);
    let wills = bench.due_wills();
    assert_eq!(wills.len(), 4, "none of them was struck out");
    bench.pass_s(u64::from(WILL_AGAIN_S));
    assert_eq!(bench.due_wills(), wills);
    for DueWill { client, number, .. } in wills {
        is_published(bench, &client, number);
    }
    nothing_is_ever_due(bench);
}

pub(crate) fn who_resumes_anothers_session_before_the_delay_takes_its_will_away(bench: &Bench) {
    bench.open_with_will("d", ALICE, 60, 20);
    let opened = bench.open("d", BOB, 60);
    assert_eq!((opened.former, opened.will), (Some(ALICE), None));
    nothing_is_ever_due(bench);
}

pub(crate) fn an_owner_is_not_answered_the_will_of_its_own_connection(bench: &Bench) {
    for clean_start in [false, true] {
        bench.open_with_will("d", ALICE, 60, 0);
        let opened = bench.open_with("d", ALICE, clean_start, 60);
        assert_eq!((opened.former, opened.will), (None, None));
    }
    nothing_is_ever_due(bench);
}

pub(crate) fn a_will_that_its_opener_published_is_never_given(bench: &Bench) {
    bench.open_with_will("d", ALICE, 60, 0);
    let number = number_of(&bench.open("d", BOB, 60), "d");
    for _ in 0..2 {
        is_published(bench, "d", number);
    }
    assert_eq!(bench.open("d", BOB, 60).will, None);
    nothing_is_ever_due(bench);
}

/// Its first answer may be lost, and the client must not be heard before its former connection's will.
pub(crate) fn an_opening_that_is_repeated_is_answered_alike(bench: &Bench) {
    for (clean_start, expiry_s) in [(false, 60), (true, 60), (false, 0)] {
        let number = bench.open_with_will("d", ALICE, 60, 0).0;
        for _ in 0..3 {
            let opened = bench.open_with("d", BOB, clean_start, expiry_s);
            assert_eq!((number_of(&opened, "d"), opened.former), (number, Some(ALICE)));
            bench.pass_s(u64::from(OPENER_WILL_S) - 1);
        }
        assert_eq!(due(bench), [""; 0], "each of them leaves it to the owner anew");
        bench.pass_s(1);
        // Nobody did anything about it, so another does.
        assert_eq!(due(bench), ["d"]);
        let opened = bench.open_with("d", BOB, clean_start, expiry_s);
        assert_eq!((opened.former, opened.will), (None, None));
        is_published(bench, "d", number);
        nothing_is_ever_due(bench);
        bench.close("d", opened.epoch, 0);
    }
}

pub(crate) fn what_an_owner_was_answered_is_left_to_it_alone(bench: &Bench) {
    for (client, expiry_s) in [("rests", 60), ("ends", 0), ("taken over", 60)] {
        bench.open_with_will(client, ALICE, 60, 0);
        let opened = bench.open(client, BOB, 60);
        number_of(&opened, client);
        if client != "taken over" {
            bench.close(client, opened.epoch, expiry_s);
        }
        let again = bench.open(client, CAROL, 60);
        assert_eq!(again.will, None, "{client}");
        assert_eq!(again.former, (client == "taken over").then_some(BOB));
    }
    bench.pass_s(u64::from(OPENER_WILL_S));
    assert_eq!(due(bench), ["ends", "rests", "taken over"]);
}

pub(crate) fn each_connection_of_a_hasty_client_has_its_will(bench: &Bench) {
    let first = bench.open_with_will("d", ALICE, 60, 0);
    let will = |bench: &Bench| Some(bench.will("d", 0));
    let by_bob = match bench.ask(open("d", BOB, false, 60, will(bench))) {
        Ok(Reply::Opened(opened)) => opened,
        other => panic!("{other:?}"),
    };
    let by_carol = bench.open("d", CAROL, 60);
    assert_eq!([number_of(&by_bob, "d"), number_of(&by_carol, "d")], [first.0, by_bob.epoch.0]);
    is_published(bench, "d", by_bob.epoch.0);
    bench.pass_s(u64::from(OPENER_WILL_S));
    let wills = bench.due_wills();
    assert_eq!((wills.len(), wills[0].number), (1, first.0), "Bob has not published Alice's");
}

pub(crate) fn a_late_close_of_a_former_owner_strikes_out_its_will(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    let opened = bench.open("d", BOB, 60);
    number_of(&opened, "d");
    let other = close_with("d", epoch, 60, Some(bench.will("d", 20)));
    assert_eq!(bench.ask(other), Err(StoreError::Fenced));
    assert!(bench.open("d", BOB, 60).will.is_some(), "its client had not said goodbye");
    assert_eq!(bench.ask(close("d", epoch, 60)), Err(StoreError::Fenced));
    assert_eq!(bench.open("d", BOB, 60).will, None);
    nothing_is_ever_due(bench);

    let epoch = bench.open_with_will("ends", ALICE, 60, 0);
    let opened = bench.open("ends", BOB, 60);
    bench.close("ends", opened.epoch, 0);
    assert_eq!(bench.ask(close("ends", epoch, 60)), Err(StoreError::Gone));
    nothing_is_ever_due(bench);
}

pub(crate) fn a_late_close_strikes_out_nobody_elses_will(bench: &Bench) {
    let former = bench.open_with_will("d", ALICE, 60, 0);
    let opened = bench.open_with_will("d", BOB, 60, 0);
    let by_carol = bench.open("d", CAROL, 60);
    assert_eq!(number_of(&by_carol, "d"), opened.0);
    assert_eq!(bench.ask(close("d", former, 60)), Err(StoreError::Fenced));
    assert_eq!(bench.ask(close("d", Epoch(opened.0 + 1_000_000_000), 60)), Err(StoreError::Fenced));
    bench.pass_s(u64::from(OPENER_WILL_S));
    assert_eq!(due(bench), ["d"]);
}

pub(crate) fn who_opens_a_buried_owners_session_is_answered_its_will_under_another_number(bench: &Bench) {
    let epoch = bench.open_with_will("d", ALICE, 60, 0);
    bench.done(Request::Bury { node: ALICE.node });
    let opened = bench.open("d", BOB, 60);
    assert_eq!(opened.former, Some(ALICE));
    let number = number_of(&opened, "d");
    assert!(number > epoch.0, "as if it had been reaped");
    assert_eq!(number_of(&bench.open("d", BOB, 60), "d"), number);
    assert_eq!(bench.ask(close("d", epoch, 60)), Err(StoreError::Fenced));
    bench.pass_s(u64::from(OPENER_WILL_S));
    assert_eq!(due(bench), ["d"]);
    is_published(bench, "d", number);
    nothing_is_ever_due(bench);
}

/// The reaper looks once a second, and may have many to publish.
pub(crate) fn a_will_that_fell_due_and_was_given_to_nobody_yet_is_the_openers(bench: &Bench) {
    for (client, expiry_s, delay_s, passing_s) in [
        ("reaped", 60, 0, 0),
        ("reaped and ended", 0, 20, 0),
        ("waited", 60, 20, 20),
        ("expired", 60, 600, 60),
        ("expired long ago", 60, 600, 6_000),
    ] {
        let epoch = bench.open_with_will(client, ALICE, expiry_s, delay_s);
        bench.reap(client, epoch);
        bench.pass_s(passing_s);
        let opened = bench.open(client, BOB, 60);
        assert_eq!(opened.session.is_some(), ["reaped", "waited"].contains(&client));
        let number = number_of(&opened, client);
        assert!(number > epoch.0);
        assert_eq!(number_of(&bench.open(client, BOB, 60), client), number);
        assert_eq!(due(bench), [""; 0], "{client}");
        is_published(bench, client, number);
        nothing_is_ever_due(bench);
    }
}

pub(crate) fn a_will_that_was_given_to_somebody_is_not_the_openers(bench: &Bench) {
    for (client, expiry_s, delay_s) in [("rests", 60, 0), ("ended", 0, 0), ("waited", 60, 20)] {
        let epoch = bench.open_with_will(client, ALICE, expiry_s, delay_s);
        bench.reap(client, epoch);
    }
    assert_eq!(due(bench), ["ended", "rests"]);
    bench.pass_s(20);
    assert_eq!(due(bench), ["waited"]);
    for client in ["rests", "ended", "waited"] {
        assert_eq!(bench.open(client, BOB, 60).will, None);
    }
    bench.pass_s(u64::from(WILL_AGAIN_S));
    assert_eq!(due(bench), ["ended", "rests", "waited"], "nobody has said that they are published");
}

pub(crate) fn writing_a_session_back_strikes_out_the_will_that_waits_for_it(bench: &Bench) {
    let restore = |epoch: u64, expiry_s: u32| Request::Restore {
        client: ClientId::new("d"),
        owner: ALICE,
        epoch: Epoch(epoch),
        expiry_s,
        will: None,
        session: holdfast_wire::session_record::SessionRecord::default(),
    };
    for (epoch, expiry_s) in [(1_000, 60), (2_000, 0)] {
        assert!(matches!(bench.ask(restore(epoch, 60)), Ok(Reply::Subscribed(_))));
        close_with_will(bench, "d", Epoch(epoch), 60, 20);
        // The store has forgotten that its client came back.
        assert!(matches!(bench.ask(restore(epoch + 500, expiry_s)), Ok(Reply::Subscribed(_))));
        nothing_is_ever_due(bench);
    }
}

/// The ends of sessions matter more than their last words: nobody could come back, and nothing would expire.
pub(crate) fn wills_are_bounded_and_no_session_fails_to_end_for_them(bench: &Bench) {
    let large = |client: &str| {
        let text = format!("{client}{}", "x".repeat(BOUNDS.message_bytes_max as usize / 8));
        Some(WillRecord { message: bench.message("gone", &text), delay_s: 20, expiry_s: NEVER_EXPIRES_S })
    };
    let opened = |client: &str| match bench.ask(open(client, ALICE, false, 60, large(client))) {
        Ok(Reply::Opened(opened)) => opened.epoch,
        other => panic!("{other:?}"),
    };
    // They may take half as much as all messages.
    for client in ["a", "b", "c"] {
        bench.done(close_with(client, opened(client), 60, large(client)));
    }
    let [closed, reaped, taken] = ["closed", "reaped", "taken"].map(opened);
    bench.done(close_with("closed", closed, 60, large("closed")));
    bench.reap("reaped", reaped);
    assert_eq!(bench.lookup("closed").and_then(|session| session.owner), None);
    assert_eq!(bench.lookup("reaped").and_then(|session| session.owner), None);
    // Whoever takes one over hears it all the same.
    let by_bob = bench.open_with("taken", BOB, true, 60);
    assert_eq!(by_bob.will.map(|will| will.number), Some(taken.0));
    bench.pass_s(20);
    let given: Vec<_> = due(bench).into_iter().map(|text| text[..1].to_owned()).collect();
    assert_eq!(given, ["a", "b", "c"]);
    bench.pass_s(u64::from(WILL_AGAIN_S));
    for DueWill { client, number, .. } in bench.due_wills() {
        is_published(bench, &client, number);
    }
    // And there is room again.
    let epoch = opened("later");
    bench.done(close_with("later", epoch, 60, large("later")));
    bench.pass_s(20);
    assert_eq!(due(bench).len(), 1);
}
