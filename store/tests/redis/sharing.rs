//! Several processes use one server, with names that no key was made for, and die where it hurts.

use std::sync::Arc;

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::QoS::AtLeastOnce;

use crate::redis_server::RedisServer;
use crate::world::{ALICE, BOB, Bench, at, device, filter};

#[test]
fn a_device_comes_back_on_another_node_and_finds_what_was_kept() {
    let alice = Bench::redis();
    let bob = alice.beside();
    let epoch = alice.open("d", ALICE, 60).epoch;
    alice.subscribe("d", epoch, &[("a", AtLeastOnce)]);
    bob.append(&[filter("a"), device("d")], "kept");
    let opened = bob.open("d", BOB, 60);
    assert_eq!(opened.former, Some(ALICE));
    assert_eq!(opened.session.unwrap().cursors, [at(filter("a"), 0), at(device("d"), 0)]);
    assert_eq!(bob.read(&filter("a"), 0).0, [(1, "kept".to_owned())]);
    assert_eq!(alice.lookup("d").unwrap().owner, Some(BOB));
}

#[test]
fn no_name_chooses_its_slot_or_breaks_a_key() {
    let bench = Bench::redis();
    let long = "x".repeat(ClientId::BYTES_MAX);
    for client in ["{a}{b}", "}{", "a:b", "", "\u{1f980}", "' .. redis.call", &long] {
        let epoch = bench.open(client, ALICE, 60).epoch;
        let stream = filter(client);
        bench.subscribe(client, epoch, &[(client, AtLeastOnce)]);
        bench.append(&[device(client), stream.clone()], "m");
        bench.save(client, epoch, vec![at(stream.clone(), 1)]);
        let session = bench.open(client, BOB, 60).session.unwrap();
        assert_eq!(session.cursors, [at(stream, 1), at(device(client), 0)]);
        assert_eq!(bench.offsets(&device(client)), [1]);
    }
}

/// What a caller leaves that dies between two steps of a subscribe: readers that no session knows.
#[test]
fn a_reader_that_no_session_took_up_leaves_by_itself() {
    let bench = Bench::redis();
    bench.open("d", ALICE, 60);
    let epoch = bench.lookup("d").unwrap().epoch;
    // The session is given a reader and the stream is joined; the third step never comes.
    let joining = bench.call(
        "subscribe",
        "d",
        &[&bench.now(), b"d", &epoch.0.to_string().into_bytes(), b"a", &[1, 0, 0, 0, 0], b"", b"0"],
    );
    let reader = joining[2].clone();
    bench.call("join", "a", &[&bench.now(), b"a", &reader, b"1", b"0"]);
    assert_eq!(bench.durable_filters(), [Box::from("a")]);
    bench.pass_s(59);
    assert_eq!(bench.durable_filters(), [Box::from("a")], "it may yet be taken up");
    bench.pass_s(1);
    assert!(bench.durable_filters().is_empty());
    // Whoever comes back after that is told, instead of holding a stream that is not there.
    let late = bench.call(
        "subscribe",
        "d",
        &[&bench.now(), b"d", &epoch.0.to_string().into_bytes(), b"a", &[1, 0, 0, 0, 0], &reader, b"0"],
    );
    assert_eq!(late[0], b"lapsed");
}

/// A join may lie in some buffer for longer than its reader is waited for.
#[test]
fn a_reader_that_joins_after_it_was_told_to_leave_is_refused() {
    let bench = Bench::redis();
    let epoch = bench.open("d", ALICE, 60).epoch.0.to_string().into_bytes();
    let joining =
        bench.call("subscribe", "d", &[&bench.now(), b"d", &epoch, b"a", &[1, 0, 0, 0, 0], b"", b"0"]);
    let (birth, partition) = joining[2].split_first_chunk().unwrap();
    let birth_us = u64::from_be_bytes(*birth) - 60_000_000;
    let reader = [&birth_us.to_be_bytes()[..], partition].concat();
    assert_eq!(bench.call("join", "a", &[&bench.now(), b"a", &reader, b"1", b"0"])[0], b"lapsed");
    assert!(bench.durable_filters().is_empty());
    bench.call("join", "a", &[&bench.now(), b"a", &joining[2], b"1", b"0"]);
    assert_eq!(bench.durable_filters(), [Box::from("a")]);
}

/// What a caller leaves that dies after the first step of a close: streams that have not heard of it.
#[test]
fn a_session_that_ended_halfway_leaves_its_streams_by_itself() {
    let bench = Bench::redis();
    let epoch = bench.subscriber("d", "a").0.to_string().into_bytes();
    bench.call("close", "d", &[&bench.now(), b"d", &epoch, b"", b"", b"0", b"", b"0"]);
    assert_eq!(bench.lookup("d"), None);
    assert_eq!(bench.durable_filters(), [Box::from("a")], "nobody has told the stream");
    // Meanwhile the device is back and subscribes again.
    let again = bench.subscriber("d", "a");
    bench.append(&[filter("a")], "for the new session");
    bench.pass_s(5);
    assert_eq!(bench.offsets(&filter("a")), [1], "the former reader is gone, the new one is not");
    bench.close("d", again, 0);
    assert!(bench.durable_filters().is_empty());
}

#[test]
fn everything_is_gone_from_the_server_when_the_last_session_is() {
    let bench = Bench::redis();
    let format_key_and_counts = bench.keys();
    for client in ["a", "b", "c"] {
        let epoch = bench.open(client, ALICE, 60).epoch;
        let filters = [("x", AtLeastOnce), ("$share/g/x", AtLeastOnce), (client, AtLeastOnce)];
        bench.subscribe(client, epoch, &filters);
        bench.append(&[filter("x"), filter("$share/g/x"), filter(client), device(client)], "m");
        bench.append(&[filter("$share/g/x")], "m");
        bench.hold("$share/g/x", "held", 60_000);
        bench.claim((client, epoch), "$share/g/x", 0, 1);
        bench.done(Request::Retain { message: bench.message_until(client, "r", bench.now_ms() + 5_000) });
        bench.close(client, epoch, 30);
    }
    bench.pass_s(60);
    let left: Vec<_> = bench
        .keys()
        .into_iter()
        .filter(|key| !format_key_and_counts.contains(key) && !key.ends_with(":n"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn no_call_cuts_more_than_a_thousand_messages_for_their_age_and_the_next_goes_on() {
    let bench = Bench::redis();
    bench.subscriber("d", "a");
    let message = bench.message("t", "x");
    let bounds: [&[u8]; 3] = [b"2000", b"1000000", b"1000"];
    let arguments = [&*bench.now(), b"fa", message.as_bytes(), bounds[0], bounds[1], bounds[2]];
    bench.call_times(1_001, "append", "a", &arguments);
    let later = (bench.now_ms() + 10_000).to_string().into_bytes();
    bench.call("sweep", "a", &[&later, b"64", b"1000"]);
    assert_eq!(bench.offsets(&filter("a")), [1_001]);
    bench.call("sweep", "a", &[&later, b"64", b"1000"]);
    assert!(bench.offsets(&filter("a")).is_empty());
}

#[test]
fn a_full_server_says_so_and_what_frees_memory_still_works() {
    let server = RedisServer::start("--maxmemory 100mb --maxmemory-policy noeviction");
    let bench = Bench::redis_at(&server.url());
    let epoch = bench.subscriber("d", "a");
    bench.subscribe("d", epoch, &[("$share/g/a", AtLeastOnce)]);
    bench.append(&[filter("a"), filter("$share/g/a")], "x");
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut connection).unwrap();
    // Who could not claim would free nothing.
    assert_eq!(bench.claim(("d", epoch), "$share/g/a", 0, 10).0.len(), 1);
    let is_full = |request| matches!(bench.ask(request), Err(StoreError::Full(_)));
    assert!(is_full(Request::Append {
        streams: vec![filter("a")],
        message: bench.message("t", "x"),
        collapse_key: None
    }));
    assert!(is_full(Request::Open {
        client: ClientId::new("new"),
        owner: BOB,
        clean_start: false,
        expiry_s: 60,
        will: None
    }));
    let renewed = bench.ask(Request::RenewLease { node: BOB.node, for_ms: 1_000 });
    assert_eq!(renewed, Ok(Reply::Renewed { known: false }));
    bench.save("d", epoch, vec![at(filter("a"), 1)]);
    let opened = bench.open("d", BOB, 60);
    let streams: Vec<_> = opened.session.unwrap().cursors.into_iter().map(|cursor| cursor.stream).collect();
    assert_eq!(
        streams,
        [filter("$share/g/a"), filter("a"), device("d")],
        "with the group, which has it back"
    );
    let epoch = bench.open_with("d", ALICE, true, 60).epoch;
    bench.close("d", epoch, 0);
    assert_eq!(bench.lookup("d"), None);
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut connection).unwrap();
    bench.subscriber("d", "a");
}

#[test]
fn many_devices_subscribe_to_one_filter_at_once() {
    let bench = Bench::redis();
    let store = Arc::clone(&bench.store);
    let (answered, answers) = std::sync::mpsc::channel();
    for number in 0..500 {
        let client = ClientId::new(&number.to_string());
        let epoch = bench.open(&client, ALICE, 60).epoch;
        let subscriptions = vec![crate::world::subscription("all", AtLeastOnce)];
        let answered = answered.clone();
        let request = Request::Subscribe { client, epoch, subscriptions };
        store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    }
    drop(answered);
    assert!(
        answers.iter().all(|answer| matches!(answer, Ok(Reply::Subscribed(stands)) if stands.len() == 1))
    );
}
