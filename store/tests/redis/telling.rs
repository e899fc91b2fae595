//! What an operator is told of a server's settings, and what becomes of writes while too few replicas follow.

use std::time::Duration;

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore};
use holdfast_wire::mqtt::QoS::AtLeastOnce;

use crate::redis_forms::SentinelTrio;
use crate::redis_server::{RedisServer, until};
use crate::warnings::{listen, said_of};
use crate::world::{ALICE, Bench, device, filter};

/// What was said of a server when a store connected to it.
fn warnings(server: &RedisServer) -> Vec<String> {
    listen();
    drop(RedisStore::connect(&server.url(), RedisOptions::default()).unwrap());
    said_of(&format!("127.0.0.1:{}/", server.port()))
}

#[test]
fn settings_that_lose_sessions_are_warned_of_each_in_one_line() {
    let careless = RedisServer::start("--maxmemory-policy allkeys-lru --appendonly no");
    let said = warnings(&careless);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0]
            .starts_with("Redis may evict sessions and queued messages: set maxmemory-policy to noeviction")
    );
    assert!(said[0].contains("policy=\"allkeys-lru\""), "{}", said[0]);
    assert!(
        said[1].starts_with(
            "Redis forgets sessions and queued messages when it restarts: set appendonly to yes"
        )
    );

    let hasty = RedisServer::start("--appendonly yes --appendfsync everysec");
    let said = warnings(&hasty);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("Redis may lose the last seconds of queued messages when it is killed"));
    assert!(said[0].contains("appendfsync=\"everysec\""), "{}", said[0]);

    let careful = RedisServer::start("--appendonly yes --appendfsync always");
    assert_eq!(warnings(&careful), [""; 0]);
}

#[test]
fn a_primary_that_may_be_cut_off_and_go_on_is_warned_of_where_something_fails_over() {
    listen();
    let trio = SentinelTrio::start(1, Duration::from_secs(5));
    let told = || {
        let said = said_of(&format!("127.0.0.1:{}", trio.servers[0].port()));
        said.iter().filter(|line| line.contains("min-replicas-to-write")).count()
    };
    drop(RedisStore::connect(&trio.url(), RedisOptions::default()).unwrap());
    assert_eq!(told(), 1);
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("min-replicas-to-write").arg(1).exec(&mut trio.servers[0].connection()).unwrap();
    drop(RedisStore::connect(&trio.url(), RedisOptions::default()).unwrap());
    assert_eq!(told(), 1, "it was mended, and nothing more is said");
}

#[test]
fn a_user_that_may_not_see_the_settings_hears_nothing_of_them() {
    listen();
    let server = RedisServer::start("--maxmemory-policy allkeys-lru");
    let mut rule = redis::cmd("ACL");
    rule.arg("SETUSER").arg("holdfast").arg("on").arg(">secret").arg("~*").arg("+@all").arg("-config");
    rule.exec(&mut server.connection()).unwrap();
    let url = format!("redis://holdfast:secret@127.0.0.1:{}/", server.port());
    drop(RedisStore::connect(&url, RedisOptions::default()).unwrap());
    assert_eq!(said_of(&format!("127.0.0.1:{}/", server.port())), [""; 0]);
}

/// `min-replicas-to-write`: what cannot be replicated is not taken, and nobody is told that it was.
#[test]
fn a_primary_with_too_few_replicas_is_unavailable_to_writers_until_they_follow() {
    let server = RedisServer::start("");
    let bench = Bench::redis_at(&server.url());
    let epoch = bench.subscriber("d", "a");
    let set = |replicas: u32| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("min-replicas-to-write").arg(replicas).exec(&mut server.connection()).unwrap();
    };
    set(1);
    let append = || {
        let message = bench.message("t", "x");
        bench.ask(Request::Append { streams: vec![filter("a"), device("d")], message, collapse_key: None })
    };
    for _ in 0..3 {
        let refused = append();
        assert!(
            matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("NOREPLICAS")),
            "{refused:?}"
        );
    }
    let renewed = bench.ask(Request::RenewLease { node: ALICE.node, for_ms: 1_000 });
    assert!(matches!(renewed, Err(StoreError::Unavailable(_))), "{renewed:?}");
    // Reading goes on.
    assert_eq!(bench.lookup("d").unwrap().epoch, epoch);
    assert!(bench.offsets(&filter("a")).is_empty());
    // Whoever starts now is refused in one line.
    let start = RedisStore::connect(&server.url(), RedisOptions::default());
    if let Err(refusal) = start {
        assert!(!refusal.to_string().contains('\n'), "{refusal}");
    }

    let replica =
        RedisServer::start(&format!("--replicaof 127.0.0.1 {} --repl-diskless-sync-delay 0", server.port()));
    until("the replica follows, and writes are taken", || matches!(append(), Ok(Reply::Appended { .. })));
    drop(replica);
    until("the replica is missed", || append().is_err());
    set(0);
    until("nothing more is asked for", || append().is_ok());
    bench.subscribe("d", epoch, &[("b", AtLeastOnce)]);
}
