//! Callers that die between two steps of what follows a node's death, and what such steps leave behind.

use holdfast_store::contract::{Progress, Reply, Request, StoreError};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::mqtt::QoS::AtLeastOnce;
use holdfast_wire::session_record::SessionRecord;

use crate::redis_server::{RedisServer, shared_url};
use crate::replicated::Replicated;
use crate::world::{ALICE, BOB, BOUNDS, Bench, at, device, filter, open, subscription};

const CAROL: NodeId = NodeId(0xc);

fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A client in the partition that has the leases, and one in another.
fn a_client_beside_the_leases_and_one_elsewhere() -> (String, String) {
    let is_first = |name: &String| holdfast_store::redis::partition_key("", name) == "{0}";
    let mut names = (0..).map(|number| format!("client {number}"));
    let elsewhere = names.find(|name| !is_first(name)).unwrap();
    (names.find(is_first).unwrap(), elsewhere)
}

/// Sums what a command says of all keys of a kind.
fn sum(server: &RedisServer, bench: &Bench, command: &str, kind: &str) -> u64 {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let keys = bench.keys().into_iter().filter(|key| key.contains(kind));
    keys.map(|key| redis::cmd(command).arg(key).query::<u64>(&mut connection).unwrap()).sum()
}

/// Sums a count over all partitions.
fn sum_of_counts(bench: &Bench, field: &str) -> u64 {
    let mut connection = redis::Client::open(shared_url()).unwrap().get_connection().unwrap();
    let counts = bench.keys().into_iter().filter(|key| key.ends_with(":n"));
    let count = |key| redis::cmd("HGET").arg(key).arg(field).query::<Option<u64>>(&mut connection).unwrap();
    counts.filter_map(count).sum()
}

#[test]
fn a_burial_that_stopped_halfway_is_finished_by_the_next() {
    let bench = Bench::redis();
    let (beside, elsewhere) = a_client_beside_the_leases_and_one_elsewhere();
    let node = ALICE.node.0.to_be_bytes();
    assert_eq!(bench.call("bury", &beside, &[&bench.now(), &node, b"1"])[0], b"ok");
    let renewal = Request::RenewLease { node: ALICE.node, for_ms: 1_000 };
    assert_eq!(bench.ask(renewal), Err(StoreError::Fenced), "it is as good as dead");
    assert_eq!(bench.ask(open(&beside, ALICE, false, 60, None)), Err(StoreError::Fenced));
    // Nobody reaps yet, since whoever buried it has heard nothing.
    let epoch = bench.open(&elsewhere, ALICE, 60).epoch;
    bench.done(Request::Bury { node: ALICE.node });
    assert_eq!(bench.ask(open(&elsewhere, ALICE, false, 60, None)), Err(StoreError::Fenced));
    bench.reap(&elsewhere, epoch);
}

/// The session rests; its group has not heard of it.
#[test]
fn who_comes_back_in_the_middle_of_the_reaping_wins() {
    let bench = Bench::redis();
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.subscribe("d", epoch, &[("$share/g/a", AtLeastOnce), ("a", AtLeastOnce)]);
    bench.append(&[filter("$share/g/a"), filter("a"), device("d")], "kept");
    assert_eq!(bench.claim(("d", epoch), "$share/g/a", 0, 10).0.len(), 1);
    let reader = bench.call("member", "d", &[&bench.now(), b"d", &text(epoch.0), b"$share/g/a"])[1].clone();
    assert_eq!(bench.call("reap", "d", &[&bench.now(), b"d", &text(epoch.0), b"0"])[0], b"ok");
    let bob = bench.beside();
    let opened = bob.open("d", BOB, 60);
    assert_eq!(
        opened.session.unwrap().cursors,
        [at(filter("$share/g/a"), 0), at(filter("a"), 0), at(device("d"), 0)]
    );
    // What the reaper tells the group comes late, and a second reaper comes too late altogether.
    let late = [&*bench.now(), b"$share/g/a", &reader, &text(epoch.0 + 1), b"0"];
    assert_eq!(bench.call("rest", "$share/g/a", &late)[0], b"none");
    let again = Request::Reap { client: ClientId::new("d"), epoch };
    assert_eq!(bench.ask(again), Err(StoreError::Fenced));
    bench.pass_s(5);
    let other = bench.subscriber("other", "$share/g/a");
    assert_eq!(bench.claim(("other", other), "$share/g/a", 0, 10).0, [], "it gave nothing back");
    bench.save("d", opened.epoch, vec![at(filter("$share/g/a"), 1)]);
    assert!(bench.offsets(&filter("$share/g/a")).is_empty());
    assert_eq!(bench.lookup("d").unwrap().owner, Some(BOB));
}

#[test]
fn a_reaped_session_whose_reaper_died_still_leaves_its_streams() {
    let bench = Bench::redis();
    let epoch = bench.subscriber("d", "a");
    bench.close("d", epoch, 60);
    let epoch = bench.open("d", ALICE, 0).epoch;
    assert_eq!(bench.call("reap", "d", &[&bench.now(), b"d", &text(epoch.0), b"0"])[0], b"ok");
    assert_eq!(bench.lookup("d"), None);
    assert_eq!(bench.durable_filters(), [Box::from("a")], "nobody has told the stream");
    bench.pass_s(5);
    assert!(bench.durable_filters().is_empty());
}

/// The streams' server could die with a leave that it has told nobody of, while the session's has struck it out.
#[test]
fn a_leave_is_owed_until_the_replicas_have_it() {
    let mut replicated = Replicated::start();
    let epoch = replicated.bench.subscriber("d", "a");
    replicated.bench.close("d", epoch, 60);
    replicated.loses_its_replica();
    replicated.bench.pass_s(60);
    assert!(replicated.bench.durable_filters().is_empty(), "the session is over");
    assert_eq!(replicated.owed(b"L"), 1, "nobody else knows that the reader has left");
    replicated.gets_a_replica();
    replicated.bench.pass_s(5);
    assert_eq!(replicated.owed(b"L"), 0);
}

#[test]
fn a_restore_that_stopped_halfway_leaves_nothing_and_can_be_repeated() {
    let bench = Bench::redis();
    let owner = [&ALICE.node.0.to_be_bytes()[..], &[0, 0]].concat();
    let arguments: [&[u8]; 12] =
        [&bench.now(), b"d", &owner, b"50", b"60", b"", b"", b"1", b"a", &[1, 0, 0, 0, 0], b"", b"0"];
    let joining = bench.call("restore", "d", &arguments);
    assert_eq!(joining[0], b"join");
    bench.call("join", "a", &[&bench.now(), b"a", &joining[2], b"50", b"0"]);
    assert_eq!(bench.lookup("d"), None);
    let restore = || Request::Restore {
        client: ClientId::new("d"),
        owner: ALICE,
        epoch: Epoch(50),
        expiry_s: 60,
        will: None,
        session: SessionRecord {
            subscriptions: vec![subscription("a", AtLeastOnce)],
            ..SessionRecord::default()
        },
    };
    for _ in 0..2 {
        assert_eq!(bench.ask(restore()), Ok(Reply::Subscribed(vec![at(filter("a"), 0), at(device("d"), 0)])));
    }
    bench.append(&[filter("a")], "x");
    bench.save("d", Epoch(50), vec![at(filter("a"), 1)]);
    assert_eq!(bench.offsets(&filter("a")), [1], "a reader that nobody knows keeps it");
    bench.pass_s(60);
    assert!(bench.offsets(&filter("a")).is_empty());
    bench.close("d", Epoch(50), 0);
    assert!(bench.durable_filters().is_empty());
}

#[test]
fn places_that_nobody_filled_are_found_again_when_they_are_needed() {
    let bench = Bench::redis();
    let most = u64::from(BOUNDS.group_members_max);
    assert_eq!(bench.call("reserve", "g", &[b"g", &text(most), &text(most)])[0], b"ok");
    let add = |client: &str| Request::ChangeGroup {
        group: "g".into(),
        add: vec![ClientId::new(client)],
        remove: vec![],
    };
    for client in ["a", "b"] {
        assert_eq!(bench.ask(add(client)), Ok(Reply::GroupChanged { added: 1, removed: 0 }));
    }
    assert_eq!(bench.call("reserve", "g", &[b"g", &text(most - 2), &text(most)])[0], b"ok");
    assert_eq!(bench.call("reserve", "g", &[b"g", b"1", &text(most)])[0], b"full");
}

#[test]
fn all_groups_together_are_bounded_too() {
    let bench = Bench::redis();
    let most = BOUNDS.group_members_max as usize;
    let clients: Vec<_> = (0..most).map(|number| ClientId::new(&number.to_string())).collect();
    let change = |group: usize, add: &[ClientId]| {
        let group = format!("group {group}").into();
        bench.ask(Request::ChangeGroup { group, add: add.to_vec(), remove: vec![] })
    };
    for group in 0..16 {
        assert!(matches!(change(group, &clients), Ok(Reply::GroupChanged { .. })));
    }
    assert!(matches!(change(16, &clients[..1]), Err(StoreError::Full(_))));
    bench.done(Request::DropGroup { group: "group 3".into() });
    assert!(matches!(change(16, &clients[..1]), Ok(Reply::GroupChanged { added: 1, removed: 0 })));
}

#[test]
fn keys_whose_messages_are_settled_are_forgotten() {
    let server = RedisServer::start("");
    let bench = Bench::redis_at(&server.url());
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.append(&[device("d")], "0");
    let keys = || sum(&server, &bench, "HLEN", ":z:");
    for number in 1..500_u64 {
        bench.append_under(&[device("d")], "x", &number.to_string());
        bench.save("d", epoch, vec![at(device("d"), number)]);
    }
    assert!(keys() < 50, "{}", keys());
    bench.save("d", epoch, vec![at(device("d"), 500)]);
    assert_eq!(keys(), 0);
}

#[test]
fn a_partition_keeps_a_bounded_number_of_expired_sessions() {
    let bench = Bench::redis();
    bench.take_expired(1);
    let of = holdfast_store::redis::partition_key("", "0");
    let names = (0..).map(|number: u32| number.to_string());
    let mut clients = names.filter(|name| holdfast_store::redis::partition_key("", name) == of);
    for client in clients.by_ref().take(1_100) {
        bench.close(&client, bench.open(&client, ALICE, 1).epoch, 1);
    }
    bench.pass_s(1);
    assert_eq!(bench.take_expired(500).len(), 1_024);
}

#[test]
fn a_message_that_stays_keeps_a_bounded_number_of_empty_places_behind_it() {
    let server = RedisServer::start("");
    let bench = Bench::redis_at(&server.url());
    bench.open("d", ALICE, 60);
    bench.append(&[device("d")], "stays");
    let places = u64::from(BOUNDS.stream.messages_max) * 16;
    for _ in 1..places {
        bench.append_under(&[device("d")], "x", "a");
    }
    assert_eq!(bench.offsets(&device("d")), [1, places]);
    bench.append_under(&[device("d")], "x", "a");
    assert_eq!(bench.offsets(&device("d")), [places + 1]);
    assert_eq!(sum(&server, &bench, "LLEN", ":l:"), 1);
}

#[test]
fn nothing_is_left_of_dead_nodes_locks_groups_and_wills_in_the_end() {
    let bench = Bench::redis();
    let before = bench.keys();
    for node in [ALICE, Owner { shard: ShardId(1), ..BOB }] {
        assert!(matches!(
            bench.ask(Request::RenewLease { node: node.node, for_ms: 1_000 }),
            Ok(Reply::Renewed { .. })
        ));
    }
    for client in ["a", "b", "c"] {
        bench.open_with_will(client, ALICE, 60, 5);
        let lock = Request::TakeLock { name: client.into(), holder: 7, for_ms: 1_000 };
        assert_eq!(bench.ask(lock), Ok(Reply::Lock(true)));
        let (group, clients) = (client.into(), vec![ClientId::new("x"), ClientId::new("y")]);
        let add = Request::ChangeGroup { group, add: clients, remove: vec![] };
        assert!(matches!(bench.ask(add), Ok(Reply::GroupChanged { .. })));
        bench.append_under(&[device(client)], "m", "key");
    }
    bench.pass_s(1);
    bench.done(Request::Bury { node: ALICE.node });
    for session in bench.sessions(Some(ALICE.node), 10) {
        bench.reap(&session.client, session.epoch);
    }
    for (client, expiry_s) in [("closed", 60), ("ended", 0)] {
        let epoch = bench.open(client, BOB, 60).epoch;
        let (client, will) = (ClientId::new(client), Some(bench.will(client, 5)));
        bench.done(Request::Close { client, epoch, expiry_s, progress: Progress::default(), will });
    }
    for client in ["taken over", "taken over and closed"] {
        bench.open_with_will(client, BOB, 0, 0);
        let owner = Owner { node: CAROL, ..BOB };
        bench.close(client, bench.open(client, owner, 0).epoch, 0);
    }
    bench.pass_s(60);
    let wills = bench.due_wills();
    assert_eq!(wills.len(), 7);
    for will in wills {
        bench.done(Request::WillPublished { client: will.client, number: will.number });
    }
    bench.done(Request::DropGroup { group: "a".into() });
    for group in ["b", "c"] {
        let (group, remove) = (group.into(), vec![ClientId::new("x"), ClientId::new("y")]);
        let remove = Request::ChangeGroup { group, add: vec![], remove };
        assert_eq!(bench.ask(remove), Ok(Reply::GroupChanged { added: 0, removed: 2 }));
    }
    assert_eq!(bench.ask(Request::DeadNodes), Ok(Reply::Nodes(vec![])));
    assert_eq!(sum_of_counts(&bench, "w"), 0);
    bench.pass_s(24 * 3_600);
    assert_eq!(bench.ask(Request::DeadNodes), Ok(Reply::Nodes(vec![])));
    let left: Vec<_> =
        bench.keys().into_iter().filter(|key| !before.contains(key) && !key.ends_with(":n")).collect();
    assert!(left.is_empty(), "{left:?}");
}
