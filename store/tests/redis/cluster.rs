//! A node of a cluster dies, and slots move from one to another, under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast_store::contract::{Progress, Reply, Request, StoreError, WillRecord};
use holdfast_store::{RedisOptions, RedisStore};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::QoS;

use crate::load::{Load, ask, ask_until_done, connect, message, open};
use crate::redis_forms::{Cluster, cluster, is_ok};
use crate::redis_server::{RedisServer, until};
use crate::world::{ALICE, subscription};

#[test]
fn a_node_that_dies_under_load_loses_nothing_that_was_acknowledged() {
    let servers = Cluster::start(&[0, 0, 1, 2], "");
    let store = connect(&format!("{}?replicas=1", servers.url()));
    let mut load = Load::new(&store);
    load.run(20);
    servers.nodes[0].signal("KILL");
    let killed = Instant::now();
    let mut taken_over = None;
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            until("the replica has the slots", || {
                is_ok(&servers.nodes[1]) && servers.nodes[3..5].iter().any(is_primary)
            });
            killed.elapsed()
        });
        load.run(50);
        taken_over = Some(taking.join().unwrap());
    });
    println!(
        "kill -9 of one of three primaries: the others saw its replica serve after {} ms, nothing was acknowledged for a device for {} ms, {} appends were refused",
        taken_over.unwrap().as_millis(),
        load.longest_silence().as_millis(),
        load.refused(),
    );
    load.check();
    load.check_epochs();
}

#[test]
fn slots_move_under_load_and_no_request_overtakes_another() {
    let servers = Cluster::start(&[], "");
    let store = connect(&servers.url());
    let mut load = Load::new(&store);
    load.run(20);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| move_all_slots(&servers.nodes[0], &servers.nodes[1]));
        while !moving.is_finished() {
            load.run(5);
        }
        moving.join().unwrap();
    });
    load.run(20);
    println!("slots moved under load: {} appends were refused", load.refused());
    load.check();
    load.check_epochs();
    // Nothing was begun anew where it was before.
    let left: usize =
        cluster(&["COUNTKEYSINSLOT", &LAST.to_string()]).query(&mut servers.nodes[0].connection()).unwrap();
    assert_eq!(count_keys(&servers.nodes[0]), left);
}

#[test]
fn the_others_serve_on_while_a_dead_one_has_no_successor() {
    let servers = Cluster::start(&[], "--cluster-require-full-coverage no");
    let store = connect(&servers.url());
    let load = Load::new(&store);
    servers.nodes[2].signal("KILL");
    until("each request is answered, and those for the dead one at once", || {
        let answers = load.lookup_each();
        let served = answers.iter().filter(|(is_there, _)| *is_there).count();
        let at_once = answers.iter().all(|(_, took)| *took < Duration::from_secs(1));
        (1..answers.len()).contains(&served) && at_once
    });
}

#[test]
fn a_session_is_opened_though_some_of_its_streams_are_on_a_dead_one() {
    let servers = Cluster::start(&[], "--cluster-require-full-coverage no");
    let store = connect(&servers.url());
    let clients: Vec<_> = (0..12).map(|number| format!("d{number}")).collect();
    for client in &clients {
        let epoch = open(&store, client);
        let subscriptions = (0..12).map(|number| subscription(&format!("f{number}"), QoS::AtLeastOnce));
        let (client, subscriptions) = (ClientId::new(client), subscriptions.collect());
        ask_until_done(&store, &Request::Subscribe { client, epoch, subscriptions });
    }
    servers.nodes[2].signal("KILL");
    let opens = |client: &&String| {
        let client = ClientId::new(client);
        let opened =
            ask(&store, Request::Open { client, owner: ALICE, clean_start: false, expiry_s: 60, will: None });
        match opened {
            Ok(Reply::Opened(opened)) => {
                assert_eq!(opened.session.map(|session| session.cursors.len()), Some(13));
                true
            }
            _ => false,
        }
    };
    until("those on the others are opened", || clients.iter().filter(opens).count() >= clients.len() / 3);
}

#[test]
fn wills_are_given_out_while_a_dead_one_has_no_successor() {
    let servers = Cluster::start(&[], "--cluster-require-full-coverage no");
    let store = connect(&servers.url());
    let clients: Vec<_> = (0..24).map(|number| format!("device-{number}")).collect();
    for client in &clients {
        let (epoch, client) = (open(&store, client), ClientId::new(client));
        let will = Some(WillRecord { message: message(&client), delay_s: 0, expiry_s: 0 });
        let close = Request::Close { client, epoch, expiry_s: 3_600, progress: Progress::default(), will };
        ask_until_done(&store, &close);
    }
    servers.nodes[2].signal("KILL");
    let is_served = |client: &String| {
        let answer = ask(&store, Request::Lookup { client: ClientId::new(client) });
        matches!(answer, Ok(Reply::Session(Some(_))))
    };
    until("some are served, and some are not", || {
        (1..clients.len()).contains(&clients.iter().filter(|client| is_served(client)).count())
    });
    let served: BTreeSet<_> = clients.iter().filter(|client| is_served(client)).cloned().collect();
    let mut given = BTreeSet::new();
    until("all wills are given out that are there", || {
        if let Ok(Reply::Wills(wills)) = ask(&store, Request::DueWills { wills_max: 5 }) {
            given.extend(wills.into_iter().map(|due| due.client.to_string()));
        }
        given == served
    });
    let none = ask(&store, Request::DueWills { wills_max: 5 });
    assert!(matches!(none, Err(StoreError::Unavailable(_))), "nobody knows whether there are more: {none:?}");
}

#[test]
fn a_cluster_is_told_from_a_single_server() {
    let servers = Cluster::start(&[], "");
    let options = || RedisOptions { deadline: Duration::from_secs(5), ..RedisOptions::default() };
    let refusal = RedisStore::connect(&servers.nodes[0].url(), options()).err().unwrap().to_string();
    assert!(refusal.contains("name it as redis+cluster://"), "{refusal}");
    let single = RedisServer::start("");
    let url = format!("redis+cluster://127.0.0.1:{}", single.port());
    let refusal = RedisStore::connect(&url, options()).err().unwrap().to_string();
    assert!(refusal.contains("cluster support disabled"), "{refusal}");
}

/// The last slot of the first node. It stays, since a node without any becomes a replica.
const LAST: usize = 16_384 / 3 - 1;

/// Moves each slot that holds a key from one node to the other, key by key, as `redis-cli --cluster reshard` does; the rest of its slots at once.
fn move_all_slots(from: &RedisServer, to: &RedisServer) {
    let id = |node: &RedisServer| -> String { cluster(&["MYID"]).query(&mut node.connection()).unwrap() };
    let (from_id, to_id, port) = (id(from), id(to), to.port().to_string());
    let (mut source, mut target) = (from.connection(), to.connection());
    let set_slot = |slot: usize, how: &[&str], connection: &mut redis::Connection| {
        let slot = slot.to_string();
        cluster(&[&["SETSLOT", &slot][..], how].concat()).exec(connection).unwrap();
    };
    for slot in 0..LAST {
        let keys = |source: &mut redis::Connection| -> Vec<String> {
            cluster(&["GETKEYSINSLOT", &slot.to_string(), "1"]).query(source).unwrap()
        };
        if !keys(&mut source).is_empty() {
            set_slot(slot, &["IMPORTING", &from_id], &mut target);
            set_slot(slot, &["MIGRATING", &to_id], &mut source);
            loop {
                let keys = keys(&mut source);
                let Some(key) = keys.first() else { break };
                let mut migrate = redis::cmd("MIGRATE");
                migrate.arg("127.0.0.1").arg(&port).arg(key).arg(0).arg(5_000);
                migrate.exec(&mut source).unwrap();
            }
        }
        set_slot(slot, &["NODE", &to_id], &mut target);
        set_slot(slot, &["NODE", &to_id], &mut source);
    }
}

fn count_keys(node: &RedisServer) -> usize {
    redis::cmd("DBSIZE").query(&mut node.connection()).unwrap()
}

fn is_primary(node: &RedisServer) -> bool {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut node.connection()).unwrap();
    info.contains("role:master")
}
