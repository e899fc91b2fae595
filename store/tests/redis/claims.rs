//! Members of a shared subscription's group whose owner dies between a session's slot and the stream's.

use holdfast_store::contract::{Progress, Request};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::session_record::Offset;

use crate::replicated::Replicated;
use crate::world::{ALICE, BOB, Bench, at, filter};

const GROUP: &str = "$share/g/a";

fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn append(bench: &Bench, messages: u32) {
    for number in 1..=messages {
        bench.append(&[filter(GROUP)], &number.to_string());
    }
}

fn claims(bench: &Bench, client: &str, epoch: Epoch, after: Offset) -> Vec<String> {
    bench.claim((client, epoch), GROUP, after, 100).0.into_iter().map(|(_, text)| text).collect()
}

/// The number as the store has it.
fn number(bench: &Bench, client: &str, number: Offset) -> Vec<u8> {
    text(bench.beginning_of(Some(&ClientId::new(client)), &filter(GROUP)) + number)
}

/// A session saves, and nobody tells the stream.
fn saves_halfway(bench: &Bench, client: &str, epoch: Epoch, settled: Offset) {
    let (number, epoch) = (number(bench, client, settled), text(epoch.0));
    let arguments: [&[u8]; 7] =
        [&bench.now(), client.as_bytes(), &epoch, b"", b"", GROUP.as_bytes(), &number];
    assert_eq!(bench.call("save", client, &arguments)[0], b"ok");
}

/// A session's connection ends, and nobody tells the stream.
fn rests_halfway(bench: &Bench, client: &str, epoch: Epoch, settled: Offset) {
    let (number, epoch) = (number(bench, client, settled), text(epoch.0));
    let name = client.as_bytes();
    let arguments: [&[u8]; 10] =
        [&bench.now(), name, &epoch, b"", b"", b"60", b"", b"0", GROUP.as_bytes(), &number];
    assert_eq!(bench.call("close", client, &arguments)[0], b"ok");
}

fn kept(bench: &Bench) -> usize {
    bench.offsets(&filter(GROUP)).len()
}

#[test]
fn what_only_its_session_knows_to_be_settled_is_given_to_nobody() {
    for end in 0..6 {
        let bench = Bench::redis();
        let first = bench.subscriber("first", GROUP);
        let second = bench.subscriber("second", GROUP);
        append(&bench, 5);
        assert_eq!(claims(&bench, "first", first, 0).len(), 5);
        saves_halfway(&bench, "first", first, 3);
        assert_eq!(kept(&bench), 5, "the stream has not heard of it");
        match end {
            0 => assert_eq!(claims(&bench, "first", first, 0), ["4", "5"]),
            1 => {
                let cursors = bench.open("first", BOB, 60).session.unwrap().cursors;
                assert!(cursors.contains(&at(filter(GROUP), 3)), "{cursors:?}");
            }
            2 => bench.close("first", first, 60),
            3 => bench.reap("first", first),
            4 => bench.unsubscribe("first", first, &[GROUP]),
            _ => bench.close("first", first, 0),
        }
        let left = if end < 2 { vec![] } else { vec!["4", "5"] };
        assert_eq!(claims(&bench, "second", second, 0), left, "{end}");
        assert_eq!(kept(&bench), 2, "{end}");
    }
}

#[test]
fn a_leave_that_a_sweep_carries_out_settles_what_the_session_had() {
    let bench = Bench::redis();
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(&bench, 4);
    assert_eq!(claims(&bench, "first", first, 0).len(), 4);
    saves_halfway(&bench, "first", first, 3);
    let unsubscribes = [&*bench.now(), b"first", &text(first.0), GROUP.as_bytes()];
    assert_eq!(bench.call("unsubscribe", "first", &unsubscribes)[0], b"ok");
    assert!(claims(&bench, "second", second, 0).is_empty());
    bench.pass_s(5);
    assert_eq!(claims(&bench, "second", second, 0), ["4"]);
}

#[test]
fn a_group_that_has_not_heard_of_a_rest_is_told_again() {
    let bench = Bench::redis();
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(&bench, 4);
    assert_eq!(claims(&bench, "first", first, 0).len(), 4);
    rests_halfway(&bench, "first", first, 2);
    assert!(claims(&bench, "second", second, 0).is_empty());
    bench.pass_s(5);
    assert_eq!(claims(&bench, "second", second, 0), ["3", "4"]);
    // The same of one whose reaper died.
    let reaps = [&*bench.now(), b"second", &text(second.0), b"0"];
    assert_eq!(bench.call("reap", "second", &reaps)[0], b"ok");
    let first = bench.open("first", BOB, 60).epoch;
    assert!(claims(&bench, "first", first, 2).is_empty());
    bench.pass_s(5);
    assert_eq!(claims(&bench, "first", first, 2), ["3", "4"]);
}

#[test]
fn who_is_back_before_its_group_has_heard_of_its_rest_keeps_what_it_claimed() {
    let bench = Bench::redis();
    let first = bench.subscriber("first", GROUP);
    let second = bench.subscriber("second", GROUP);
    append(&bench, 3);
    assert_eq!(claims(&bench, "first", first, 0).len(), 3);
    rests_halfway(&bench, "first", first, 1);
    let opened = bench.open("first", BOB, 60);
    bench.pass_s(10);
    assert!(claims(&bench, "second", second, 0).is_empty());
    assert_eq!(claims(&bench, "first", opened.epoch, 1), ["2", "3"]);
}

/// It may have lain in some buffer for long.
#[test]
fn a_claim_that_comes_after_the_rest_or_the_resume_is_refused_by_the_stream() {
    let bench = Bench::redis();
    let first = bench.subscriber("first", GROUP);
    append(&bench, 2);
    let asks = [&*bench.now(), b"first", &text(first.0), GROUP.as_bytes()];
    let reader = bench.call("member", "first", &asks)[1].clone();
    let late = || {
        let arguments: [&[u8]; 8] =
            [&bench.now(), GROUP.as_bytes(), &reader, &text(first.0), b"0", b"0", b"10", b"1000"];
        bench.call("claim", GROUP, &arguments)
    };
    assert_eq!(late()[0], b"ok");
    bench.close("first", first, 60);
    assert_eq!(late(), [b"fenced"]);
    let opened = bench.open("first", BOB, 60);
    assert_eq!(late(), [b"fenced"]);
    assert_eq!(claims(&bench, "first", opened.epoch, 0), ["1", "2"]);
}

/// The stream's server could die with a rest that it has told nobody of.
#[test]
fn a_rest_is_owed_until_the_replicas_have_it() {
    let mut replicated = Replicated::start();
    let first = replicated.bench.subscriber("first", GROUP);
    replicated.bench.subscriber("second", GROUP);
    append(&replicated.bench, 2);
    assert_eq!(claims(&replicated.bench, "first", first, 0).len(), 2);
    replicated.loses_its_replica();
    let progress = Progress::default();
    let close =
        Request::Close { client: ClientId::new("first"), epoch: first, expiry_s: 60, progress, will: None };
    assert!(replicated.bench.ask(close).is_err());
    replicated.bench.pass_s(5);
    assert_eq!(replicated.owed(b"g"), 1);
    replicated.gets_a_replica();
    replicated.bench.pass_s(5);
    assert_eq!(replicated.owed(b"g"), 0);
    let second = replicated.bench.open("second", ALICE, 60).epoch;
    assert_eq!(claims(&replicated.bench, "second", second, 0), ["1", "2"]);
}

#[test]
fn a_member_that_holds_nothing_has_no_entry_beside_its_membership() {
    let bench = Bench::redis();
    let epoch = bench.subscriber("first", GROUP);
    let before = bench.keys();
    append(&bench, 3);
    let held = bench.hold(GROUP, "held", 60_000)[0].acked;
    assert_eq!(claims(&bench, "first", epoch, 0).len(), 3);
    bench.save("first", epoch, vec![at(filter(GROUP), 3)]);
    bench.end_hold(GROUP, held, true);
    let added: Vec<_> = bench.keys().into_iter().filter(|key| !before.contains(key)).collect();
    assert!(added.iter().all(|key| key.ends_with(":due")), "{added:?}");
}
