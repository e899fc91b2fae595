//! A server that answers questions and takes no changes is known as one before anybody's change is refused.

use holdfast_store::contract::{Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore, Store};

use crate::load::{ask, ask_until_done, connect, message, open, read};
use crate::redis_forms::Cluster;
use crate::redis_server::{RedisServer, until};
use crate::world::device;

fn set(server: &RedisServer, parameter: &str, value: &str) {
    redis::cmd("CONFIG").arg("SET").arg(parameter).arg(value).exec(&mut server.connection()).unwrap();
}

fn append() -> Request {
    Request::Append { streams: vec![device("d")], message: message("x"), collapse_key: None }
}

#[test]
fn a_server_without_memory_refuses_until_it_has_some_and_loses_nothing_by_being_asked() {
    let server = RedisServer::start("--maxmemory-policy noeviction");
    let store = connect(&server.url());
    open(&store, "d");
    ask_until_done(&store, &append());
    assert!(!store.is_refusing());
    set(&server, "maxmemory", "1");
    until("it is known to refuse", || store.is_refusing());
    assert_eq!(read(&store, &device("d")).len(), 1, "nobody wanted room");
    assert!(matches!(ask(&store, append()), Err(StoreError::Full(_))));
    let late = RedisStore::connect(&server.url(), RedisOptions::default()).unwrap();
    until("one that comes newly knows it too", || late.is_refusing());
    set(&server, "maxmemory", "0");
    until("it takes changes again", || !store.is_refusing() && !late.is_refusing());
    ask_until_done(&store, &append());
}

#[test]
fn a_server_that_cannot_save_refuses() {
    let server = RedisServer::start("--enable-protected-configs yes");
    let store = connect(&server.url());
    let former: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("dir").query(&mut server.connection()).unwrap();
    // Nobody writes a file there.
    set(&server, "dir", "/proc");
    set(&server, "save", "3600 1");
    redis::cmd("BGSAVE").exec(&mut server.connection()).unwrap();
    until("it is known to refuse", || store.is_refusing());
    set(&server, "dir", &former[1]);
    redis::cmd("BGSAVE").exec(&mut server.connection()).unwrap();
    until("it takes changes again", || !store.is_refusing());
}

#[test]
fn a_server_with_too_few_replicas_refuses() {
    let server = RedisServer::start("");
    let store = connect(&server.url());
    set(&server, "min-replicas-to-write", "1");
    until("it is known to refuse", || store.is_refusing());
    set(&server, "min-replicas-to-write", "0");
    until("it takes changes again", || !store.is_refusing());
}

#[test]
fn a_cluster_refuses_once_none_of_its_primaries_takes_anything() {
    let servers = Cluster::start(&[], "");
    let store = connect(&servers.url());
    let (last, others) = servers.nodes.split_last().unwrap();
    set(last, "maxmemory", "1");
    until("the last one lets go of its own", || store.is_refusing() || is_full(last));
    assert!(!store.is_refusing(), "the others take what is theirs");
    for node in others {
        set(node, "maxmemory", "1");
    }
    until("it is known to refuse", || store.is_refusing());
    set(last, "maxmemory", "0");
    until("one takes changes again", || !store.is_refusing());
}

#[test]
fn a_cluster_of_which_one_primary_is_away_says_so_until_none_is_left() {
    let servers = Cluster::start(&[], "--cluster-require-full-coverage no");
    let store = connect(&servers.url());
    assert!(!store.is_partly_away());
    servers.nodes[2].signal("STOP");
    until("a part is known to be away", || store.is_partly_away());
    servers.nodes[2].signal("CONT");
    until("all of it is back", || !store.is_partly_away());
    servers.nodes[0].signal("KILL");
    until("a part is known to be away again", || store.is_partly_away());
    for node in &servers.nodes[1..] {
        node.signal("KILL");
    }
    until("nobody answers", || !store.is_partly_away());
}

/// Whether it has refused someone for want of memory.
fn is_full(server: &RedisServer) -> bool {
    let info: String = redis::cmd("INFO").arg("errorstats").query(&mut server.connection()).unwrap();
    info.contains("errorstat_OOM")
}
