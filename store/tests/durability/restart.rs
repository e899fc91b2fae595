//! An orderly end and a new start.

use holdfast_store::Bounds;
use holdfast_store::contract::{ExpiredSession, NEVER_EXPIRES_S, Progress, Reply, Request};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::{PacketId, QoS};

use crate::world::{ALICE, BOB, BOUNDS, Bench, at, close, device, filter, text_of};

#[test]
fn sessions_streams_cursors_and_retained_messages_are_there_again() {
    let mut bench = Bench::embedded();
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.subscribe("d", epoch, &[("a", QoS::AtLeastOnce), ("$share/g/a", QoS::AtLeastOnce)]);
    for text in ["1", "2", "3"] {
        bench.append(&[filter("a"), filter("$share/g/a"), device("d")], text);
    }
    bench.done(Request::Retain { message: bench.message("kept", "r") });
    assert_eq!(bench.claim(("d", epoch), "$share/g/a", 0, 2).0.len(), 2);
    let cursors = vec![at(filter("a"), 1), at(filter("$share/g/a"), 2), at(device("d"), 3)];
    let received = vec![PacketId::new(5).unwrap()];
    let progress = Progress { cursors: cursors.clone(), received: received.clone(), inflight: vec![] };
    bench.done(Request::Close { client: ClientId::new("d"), epoch, expiry_s: 60, progress, will: None });

    bench.reopen();

    assert_eq!(bench.durable_filters(), [Box::from("$share/g/a"), Box::from("a")]);
    assert_eq!(bench.offsets(&filter("a")), [2, 3]);
    assert_eq!(bench.offsets(&filter("$share/g/a")), [3]);
    assert_eq!(bench.append(&[device("d")], "4"), [at(device("d"), 4)]);
    let read =
        Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9, bytes_max: u32::MAX };
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
fn what_members_of_a_group_held_when_the_process_died_is_there_for_either_of_them() {
    const GROUP: &str = "$share/g/a";
    for first_back in ["a", "b"] {
        let mut bench = Bench::embedded();
        let (a, b) = (bench.subscriber("a", GROUP), bench.subscriber("b", GROUP));
        let append = |bench: &Bench, texts: &[&str]| {
            for text in texts {
                bench.append(&[filter(GROUP)], text);
            }
        };
        append(&bench, &["1", "2", "3", "4", "5", "6"]);
        assert_eq!(bench.claim(("a", a), GROUP, 0, 3).0.len(), 3);
        assert_eq!(bench.claim(("b", b), GROUP, 0, 2).0.len(), 2);
        let held = ["taken", "not taken", "held"].map(|text| bench.hold(GROUP, text, 60_000)[0].acked);
        bench.save("b", b, vec![at(filter(GROUP), 1)]);
        bench.end_hold(GROUP, held[0], true);
        bench.end_hold(GROUP, held[1], false);
        // Claims alone are written nowhere, so it does not know of this one.
        bench.save("a", a, vec![at(filter(GROUP), 1)]);
        assert_eq!(bench.claim(("b", b), GROUP, 2, 1).0.len(), 1);
        append(&bench, &["7"]);
        for _ in 0..2 {
            bench.reopen();
            // Nobody holds anything any more, and what was settled stays so.
            let opened = bench.open(first_back, BOB, 60);
            assert!(opened.session.unwrap().cursors.contains(&at(filter(GROUP), 1)), "{first_back}");
            let (claimed, _) = bench.claim((first_back, opened.epoch), GROUP, 1, 100);
            let texts: Vec<_> = claimed.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(texts, ["2", "3", "5", "6", "not taken", "held", "7"]);
            assert_eq!(claimed[0].0, 2, "its count goes on where its cursor is");
        }
        let opened = bench.open(first_back, BOB, 60);
        bench.save(first_back, opened.epoch, vec![at(filter(GROUP), 8)]);
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
    let read =
        Request::ReadRetained { filter: "#".into(), after: None, messages_max: 9, bytes_max: u32::MAX };
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

/// Whose wills are due, and strikes them out.
fn publish_due(bench: &Bench) -> Vec<String> {
    let publish = |will: holdfast_store::contract::DueWill| {
        bench.done(Request::WillPublished { client: will.client, number: will.number });
        text_of(&will.will.message)
    };
    bench.due_wills().into_iter().map(publish).collect()
}

#[test]
fn who_was_connected_when_the_process_died_has_a_will_that_falls_due() {
    let mut bench = Bench::embedded();
    for (client, expiry_s, delay_s) in [("now", 60, 0), ("soon", 60, 30), ("back", 60, 30), ("last", 60, 600)]
    {
        bench.open_with_will(client, ALICE, expiry_s, delay_s);
    }
    let epoch = bench.open_with_will("closed", ALICE, 60, 0);
    bench.close("closed", epoch, 60);
    bench.pass_s(600);
    bench.reopen();
    assert_eq!(publish_due(&bench), ["now"]);
    bench.open("back", BOB, 60);
    bench.pass_s(20);
    // Another crash neither begins the delay anew nor brings back what was published.
    bench.reopen();
    assert_eq!(publish_due(&bench), [""; 0]);
    bench.pass_s(10);
    assert_eq!(publish_due(&bench), ["soon"]);
    bench.pass_s(30);
    assert_eq!(publish_due(&bench), ["last"]);
    bench.reopen();
    bench.pass_s(6_000);
    assert_eq!(publish_due(&bench), [""; 0]);
}

#[test]
fn a_will_that_was_given_and_not_published_is_given_again() {
    let mut bench = Bench::embedded();
    for client in ["a", "b"] {
        let epoch = bench.open_with_will(client, ALICE, 0, 0);
        bench.reap(client, epoch);
    }
    let given = bench.due_wills();
    bench.done(Request::WillPublished { client: ClientId::new("a"), number: given[0].number });
    bench.reopen();
    assert_eq!(bench.due_wills(), given[1..]);
}

#[test]
fn the_will_of_a_close_waits_through_a_restart() {
    let mut bench = Bench::embedded();
    for (client, expiry_s, delay_s) in
        [("at once", 0, 30), ("back", 60, 30), ("clean", 60, 30), ("soon", 60, 30)]
    {
        let epoch = bench.open_with_will(client, ALICE, expiry_s, 0);
        let will = Some(bench.will(client, delay_s));
        let (client, progress) = (ClientId::new(client), Progress::default());
        bench.done(Request::Close { client, epoch, expiry_s, progress, will });
    }
    bench.pass_s(10);
    bench.reopen();
    assert_eq!(publish_due(&bench), ["at once"]);
    assert_eq!(bench.open("back", BOB, 60).will, None);
    let will = bench.open_with("clean", BOB, true, 60).will.expect("its session has ended");
    bench.done(Request::WillPublished { client: will.client, number: will.number });
    bench.reopen();
    bench.pass_s(20);
    assert_eq!(publish_due(&bench), ["soon"]);
    bench.pass_s(600);
    assert_eq!(publish_due(&bench), [""; 0]);
}

#[test]
fn a_will_that_was_answered_to_who_died_with_the_process_is_given_out() {
    let mut bench = Bench::embedded();
    for expiry_s in [0, 60] {
        let client = format!("expiry {expiry_s}");
        bench.open_with_will(&client, ALICE, expiry_s, 0);
        assert!(bench.open(&client, BOB, 60).will.is_some());
    }
    bench.reopen();
    assert_eq!(publish_due(&bench), ["expiry 0", "expiry 60"]);
    bench.reopen();
    bench.pass_s(600);
    assert_eq!(publish_due(&bench), [""; 0]);
}

#[test]
fn who_comes_back_after_a_restart_takes_its_will_back() {
    let mut bench = Bench::embedded();
    let epoch = bench.open_with_will("d", ALICE, 60, 30);
    bench.reap("d", epoch);
    bench.reopen();
    bench.open("d", BOB, 60);
    bench.pass_s(600);
    bench.reopen();
    assert!(bench.due_wills().is_empty());
}

#[test]
fn what_expired_while_there_was_no_process_is_told() {
    let mut bench = Bench::embedded();
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.close("d", epoch, 60);
    let at_ms = bench.now_ms() + 60_000;
    bench.pass_s(86_400);
    bench.reopen();
    let told = bench.take_expired(10);
    assert_eq!(told, [ExpiredSession { client: ClientId::new("d"), epoch, at_ms }]);
}

#[test]
fn groups_are_there_again() {
    let mut bench = Bench::embedded();
    let change = |bench: &Bench, group: &str, add: &[&str], remove: &[&str]| {
        let ids = |names: &[&str]| names.iter().map(|name| ClientId::new(name)).collect();
        bench.ask(Request::ChangeGroup { group: group.into(), add: ids(add), remove: ids(remove) }).unwrap();
    };
    for group in ["g", "g2", "gone"] {
        change(&bench, group, &["a", "b", "c"], &[]);
    }
    change(&bench, "g", &["d"], &["a"]);
    bench.done(Request::DropGroup { group: "gone".into() });
    bench.reopen();
    for (group, expected) in [("g", &["b", "c", "d"][..]), ("g2", &["a", "b", "c"]), ("gone", &[])] {
        let read = Request::GroupMembers { group: group.into(), page: None, members_max: 10 };
        let Ok(Reply::Members { clients, next: None }) = bench.ask(read) else { panic!("one page") };
        assert_eq!(clients.iter().map(ClientId::as_str).collect::<Vec<_>>(), expected);
    }
    change(&bench, "g", &[], &["b", "c", "d"]);
    bench.reopen();
    let read = Request::GroupMembers { group: "g".into(), page: None, members_max: 10 };
    assert_eq!(bench.ask(read), Ok(Reply::Members { clients: vec![], next: None }));
}

/// It goes slice by slice, each with a commit.
#[test]
fn a_large_group_that_ended_does_not_come_back() {
    let mut bench = Bench::embedded().another(Bounds { group_members_max: 100_000, ..BOUNDS });
    let members: Vec<_> = (0..80_000).map(|number| ClientId::new(&number.to_string())).collect();
    let add = |add: Vec<ClientId>| Request::ChangeGroup { group: "g".into(), add, remove: vec![] };
    bench.ask(add(members.clone())).unwrap();
    let (answered, answers) = std::sync::mpsc::channel();
    for (name, request) in [
        ("ended", Request::DropGroup { group: "g".into() }),
        ("ended again", Request::DropGroup { group: "g".into() }),
        ("began", add(members[..2].to_vec())),
    ] {
        let answered = answered.clone();
        bench.store.submit(
            request,
            Box::new(move |answer| {
                answered.send((name, answer.is_ok())).unwrap();
            }),
        );
    }
    drop(answered);
    // Who has only begun a group waits for no slice but the first, so the order depends on the disk.
    let mut answered: Vec<_> = answers.iter().collect();
    answered.sort_unstable();
    assert_eq!(answered, [("began", true), ("ended", true), ("ended again", true)]);
    bench.reopen();
    let read = Request::GroupMembers { group: "g".into(), page: None, members_max: 10 };
    let Ok(Reply::Members { clients, next: None }) = bench.ask(read) else { panic!("one page") };
    assert_eq!(clients, members[..2]);
}

#[test]
fn a_collapse_key_still_finds_what_it_replaces() {
    let mut bench = Bench::embedded();
    bench.open("d", ALICE, 60);
    for (text, key) in [("a1", "a"), ("b1", "b"), ("a2", "a"), ("c1", "c")] {
        bench.append_under(&[device("d")], text, key);
    }
    bench.reopen();
    let texts = |bench: &Bench| bench.read(&device("d"), 0);
    let waiting = |offset: u64, text: &str| (offset, text.to_owned());
    assert_eq!(texts(&bench), (vec![waiting(2, "b1"), waiting(3, "a2"), waiting(4, "c1")], 4));
    bench.append_under(&[device("d")], "a3", "a");
    bench.reopen();
    assert_eq!(texts(&bench), (vec![waiting(2, "b1"), waiting(4, "c1"), waiting(5, "a3")], 5));
}

#[test]
fn a_page_goes_on_where_it_was_after_a_restart() {
    let mut bench = Bench::embedded();
    for number in 0..100 {
        let client = number.to_string();
        let epoch = bench.open(&client, ALICE, NEVER_EXPIRES_S).epoch;
        bench.pass_s(1);
        bench.close(&client, epoch, NEVER_EXPIRES_S);
    }
    let whole = bench.sessions(None, 1_000);
    let (mut listed, mut page) = (Vec::new(), None);
    loop {
        let Ok(Reply::Sessions { mut sessions, next }) =
            bench.ask(Request::Sessions { owner: None, page, sessions_max: 30 })
        else {
            panic!("a page")
        };
        listed.append(&mut sessions);
        page = next;
        if page.is_none() {
            break;
        }
        bench.reopen();
    }
    assert_eq!(listed, whole, "with the time since when each rests");
}
