//! Epochs after a server has forgotten some, and how it is known that one has.

use std::time::{Duration, Instant, SystemTime};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, SessionRecord};

use crate::load::{PATIENCE, ask, ask_until_done, message, open};
use crate::redis_server::{RedisServer, until};
use crate::world::{ALICE, BOB, Bench, at, device, filter, subscription};

/// In which partition the client `d` is, as the server names it, with a kind of key.
fn key(kind: &str) -> String {
    format!("{}:{kind}", holdfast_store::redis::partition_key("hf", "d"))
}

fn connect(server: &RedisServer) -> RedisStore {
    let options = RedisOptions { deadline: Duration::from_secs(10), ..RedisOptions::default() };
    RedisStore::connect(&server.url(), options).unwrap()
}

/// Ends the store's connections, so that it dials again.
fn cut(server: &RedisServer) {
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut server.connection()).unwrap();
}

/// What a promoted replica has not heard of: epochs of a primary whose clock was ahead of its own.
#[test]
fn epochs_grow_over_a_failover_that_forgot_some_of_a_faster_clock() {
    let server = RedisServer::start("");
    let store = connect(&server);
    open(&store, "d");
    let mut connection = server.connection();
    let counts = key("n");
    let known: u64 = redis::cmd("HGET").arg(&counts).arg("e").query(&mut connection).unwrap();
    let now_us = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let ahead_us = u64::try_from(now_us).unwrap() + 50 * 60 * 1_000_000;
    redis::cmd("HSET").arg(&counts).arg("e").arg(ahead_us.max(known)).exec(&mut connection).unwrap();
    let lost = open(&store, "d");
    // The failover: another life, and the counter as it was some time ago.
    let earlier_us = u64::try_from(now_us).unwrap() - 1_000_000;
    let mut forget = redis::cmd("HSET");
    forget.arg(&counts).arg("e").arg(earlier_us).arg("i").arg("another-life").exec(&mut connection).unwrap();
    cut(&server);
    let promoted = open(&store, "d");
    assert!(promoted > lost, "{promoted:?} after {lost:?}");
    // And once more, with a counter that was ahead already.
    let mut connection = server.connection();
    redis::cmd("HSET").arg(&counts).arg("i").arg("yet-another").exec(&mut connection).unwrap();
    cut(&server);
    assert!(open(&store, "d").0 >= promoted.0 + 50_000_000, "more than anyone opens meanwhile");
}

#[test]
fn epochs_grow_over_the_loss_of_all_data_while_the_connection_stands() {
    let server = RedisServer::start("");
    let store = connect(&server);
    let before = open(&store, "d");
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    assert!(open(&store, "d") > before);
}

#[test]
fn a_server_that_goes_on_where_it_was_gives_out_no_leap() {
    let server = RedisServer::start("");
    let store = connect(&server);
    let before = open(&store, "d");
    cut(&server);
    let after = open(&store, "d");
    assert!(after > before && after.0 < before.0 + 50_000_000, "{after:?} after {before:?}");
}

#[test]
fn a_partition_that_lost_its_data_is_told_to_whoever_renews_its_lease() {
    let server = RedisServer::start("");
    let store = connect(&server);
    let renew = || ask_until_done(&store, &Request::RenewLease { node: ALICE.node, for_ms: 60_000 });
    assert_eq!(renew(), Reply::Renewed { known: false });
    assert_eq!(renew(), Reply::Renewed { known: true });
    open(&store, "d");
    redis::cmd("DEL").arg(key("n")).arg(key("s:d")).exec(&mut server.connection()).unwrap();
    assert_eq!(renew(), Reply::Renewed { known: true }, "nobody has dialled");
    cut(&server);
    let started = Instant::now();
    while renew() == (Reply::Renewed { known: true }) {
        assert!(started.elapsed() < PATIENCE, "nobody noticed");
    }
    assert_eq!(renew(), Reply::Renewed { known: true }, "it is told once");
}

#[test]
fn a_server_without_memory_is_dialled_again_and_serves_those_who_are_there() {
    let server = RedisServer::start("--maxmemory-policy noeviction");
    let store = connect(&server);
    open(&store, "d");
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut connection).unwrap();
    cut(&server);
    let lookup = Request::Lookup { client: ClientId::new("d") };
    assert!(matches!(ask_until_done(&store, &lookup), Reply::Session(Some(_))));
    open(&store, "d");
    let streams = vec![device("d")];
    let append = Request::Append { streams, message: message("x"), collapse_key: None };
    assert!(matches!(ask(&store, append), Err(StoreError::Full(_))));
    // Nor does it keep away one that comes newly.
    let late = connect(&server);
    assert!(matches!(ask_until_done(&late, &lookup), Reply::Session(Some(_))));
}

#[test]
fn a_session_is_written_back_under_any_epoch_that_may_ever_be_given_out() {
    let server = RedisServer::start("");
    let store = connect(&server);
    let restore = |epoch| {
        let request = Request::Restore {
            client: ClientId::new("d"),
            owner: ALICE,
            epoch: Epoch(epoch),
            expiry_s: 60,
            will: None,
            session: SessionRecord::default(),
        };
        ask(&store, request)
    };
    // Whoever comes with one that is none has no session here, and is not to come again and again.
    for none in [0, 1 << 53, u64::MAX] {
        assert_eq!(restore(none), Err(StoreError::Fenced), "{none}");
    }
    // The year 2253, in which the server begins another life.
    let late = (1 << 53) - (1 << 46);
    let mut begin = redis::cmd("HSET");
    begin.arg(key("n")).arg("h").arg(late + 1).arg("e").arg(late + 1).exec(&mut server.connection()).unwrap();
    assert!(restore(late).is_ok());
    assert!(open(&store, "d") > Epoch(late));
}

#[test]
fn readers_of_two_lives_have_different_names() {
    let bench = Bench::redis();
    bench.open("d", ALICE, 60);
    let epoch = bench.lookup("d").unwrap().epoch.0.to_string().into_bytes();
    let subscribe = || {
        let options = [1, 0, 0, 0, 0];
        bench.call("subscribe", "d", &[&bench.now(), b"d", &epoch, b"a", &options, b"", b"0"])[2].clone()
    };
    let first = subscribe();
    bench.call("begin", "d", &[b"0123456789abcdef", b"mark", b"0"]);
    let second = subscribe();
    assert_ne!(first[10..], second[10..], "what follows time and partition");
    assert_eq!(second[10..], *b"0123");
}

#[test]
fn what_a_server_lost_a_moment_ago_may_be_on_its_way_back_and_later_is_not_there() {
    let bench = Bench::redis();
    let asks = || {
        assert_eq!(bench.lookup("d"), None);
        assert_eq!(bench.append(&[filter("a")], "x"), []);
        bench.store.has_just_begun()
    };
    assert!(!asks(), "it is an old one, for tests");
    assert!(bench.loses_its_data());
    // It is believed for a second of real time what was said before, and a busy machine may take longer than that to the next line.
    until("whoever asks first writes down when it began", || {
        assert_eq!(bench.lookup("d"), None);
        bench.store.has_just_begun()
    });
    until("it has just begun", asks);
    bench.pass_s(4);
    until("it has still just begun", asks);
    bench.pass_s(2);
    until("a device that nobody knows is waited for no longer", || !asks());
    // What an earlier version left was not lost.
    let server = RedisServer::start("");
    drop(connect(&server));
    redis::cmd("HDEL").arg(key("n")).arg("y").exec(&mut server.connection()).unwrap();
    let store = connect(&server);
    let lookup = Request::Lookup { client: ClientId::new("d") };
    assert_eq!(ask(&store, lookup), Ok(Reply::Session(None)));
    assert!(!holdfast_store::Store::has_just_begun(&store));
}

/// A primary of a cluster has lost the streams, and others have the sessions that read them.
struct Torn {
    bench: Bench,
    epoch: Epoch,
}

/// Two that are sent what one of them reads first.
const GROUP: &str = "$share/g/b";

impl Torn {
    fn new(bench: Bench) -> Self {
        let epoch = bench.open("d", ALICE, 600).epoch;
        bench.subscribe("d", epoch, &[("a", QoS::AtLeastOnce), (GROUP, QoS::AtLeastOnce)]);
        bench.append(&[filter("a"), filter(GROUP)], "before");
        for of in ["a", GROUP] {
            bench.loses_partition(of);
        }
        assert!(bench.lookup("d").is_some(), "its row is elsewhere");
        assert_eq!(bench.append(&[filter("a"), filter(GROUP)], "lost"), []);
        Self { bench, epoch }
    }

    /// What the owner writes back.
    fn restore(&self) -> Vec<Cursor> {
        let subscriptions = ["a", GROUP].map(|filter| subscription(filter, QoS::AtLeastOnce)).to_vec();
        let request = Request::Restore {
            client: ClientId::new("d"),
            owner: ALICE,
            epoch: self.epoch,
            expiry_s: 600,
            will: None,
            session: SessionRecord { subscriptions, ..SessionRecord::default() },
        };
        match self.bench.ask(request) {
            Ok(Reply::Subscribed(mut cursors)) => {
                cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
                cursors
            }
            other => panic!("{other:?}"),
        }
    }

    /// What is appended now waits for the session until it has settled that, and not longer.
    fn check(&self, epoch: Epoch) {
        let (bench, streams) = (&self.bench, [filter("a"), filter(GROUP)]);
        bench.pass_s(61);
        assert_eq!(bench.append(&streams, "after").len(), 2);
        // Others come and go, and take nothing along.
        for other in ["other", "another"] {
            let epoch = bench.open(other, BOB, 60).epoch;
            bench.subscribe(other, epoch, &[("a", QoS::AtLeastOnce)]);
            bench.close(other, epoch, 0);
        }
        let read = |stream| bench.read(stream, 0).0;
        let given = [read(&streams[0]), bench.claim(("d", epoch), GROUP, 0, 100).0];
        let mut ends = Vec::new();
        for (stream, given) in streams.iter().zip(given) {
            let (last, text) = given.last().unwrap();
            assert_eq!(text, "after", "{stream:?}");
            ends.push(at(stream.clone(), *last));
        }
        bench.save("d", epoch, ends);
        for stream in &streams {
            assert_eq!(read(stream), [], "{stream:?} has no other reader");
        }
        bench.close("d", epoch, 0);
        assert!(bench.durable_filters().is_empty(), "nobody reads for ever");
    }
}

#[test]
fn a_session_that_is_there_still_is_written_back_into_streams_that_are_not() {
    let torn = Torn::new(Bench::cluster());
    let written = torn.restore();
    assert_eq!(written.len(), 3);
    assert_eq!(torn.restore(), written, "once is enough");
    torn.check(torn.epoch);
}

#[test]
fn who_is_back_reads_streams_again_that_were_lost_in_its_absence() {
    let torn = Torn::new(Bench::redis());
    torn.bench.close("d", torn.epoch, 600);
    let opened = torn.bench.open("d", BOB, 600);
    assert_eq!(opened.session.map(|session| session.cursors.len()), Some(3));
    torn.check(opened.epoch);
}

#[test]
fn a_stream_that_others_have_made_again_waits_for_who_is_back() {
    let torn = Torn::new(Bench::redis());
    let bench = &torn.bench;
    let other = bench.subscriber("other", "a");
    bench.append(&[filter("a")], "for both");
    let cursors = bench.open("d", BOB, 600).session.unwrap().cursors;
    let cursor = cursors.iter().find(|cursor| cursor.stream == filter("a")).unwrap();
    // No longer young, it lets go of what all have settled whom it knows.
    bench.pass_s(61);
    bench.save("other", other, vec![at(filter("a"), 1)]);
    let read = bench.read(&filter("a"), cursor.acked).0;
    assert_eq!(read, [(1, "for both".to_owned())]);
}
