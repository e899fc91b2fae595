//! Another server takes the primary's place: by its death, by word, or while it was stopped and does not know.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_store::contract::Request;
use holdfast_store::{RedisOptions, RedisStore};

use crate::load::{Load, PATIENCE, ask_until_done, connect, message, read};
use crate::redis_forms::{NAME, SentinelTrio};
use crate::redis_server::{RedisServer, free_port, until};
use crate::world::device;

const DOWN_AFTER: Duration = Duration::from_secs(1);

/// With replicas that are waited for.
fn url(trio: &SentinelTrio) -> String {
    format!("{}?replicas=1", trio.url())
}

/// Says when the sentinels name another primary than this one.
fn watch<'scope, 'env>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    trio: &'env SentinelTrio,
    former: u16,
) -> mpsc::Receiver<Instant> {
    let (switched, switch) = mpsc::sync_channel(1);
    scope.spawn(move || {
        until("another primary is named", || trio.primary_port() != former);
        switched.send(Instant::now()).unwrap();
    });
    switch
}

#[test]
fn a_primary_that_dies_under_load_loses_nothing_that_was_acknowledged() {
    let trio = SentinelTrio::start(2, DOWN_AFTER);
    let store = connect(&url(&trio));
    let mut load = Load::new(&store);
    load.run(20);
    std::thread::scope(|scope| {
        let switch = watch(scope, &trio, trio.servers[0].port());
        trio.servers[0].signal("KILL");
        let killed = Instant::now();
        load.run(20);
        let named_after = switch.recv_timeout(PATIENCE).unwrap() - killed;
        println!(
            "kill -9 of the primary: the first sentinel named another after {} ms, nothing was acknowledged for a device for {} ms, {} appends were refused",
            named_after.as_millis(),
            load.longest_silence().as_millis(),
            load.refused(),
        );
    });
    load.check();
    load.check_epochs();
}

#[test]
fn a_primary_that_gives_way_by_word_is_left_at_once() {
    let trio = SentinelTrio::start(1, DOWN_AFTER);
    let store = connect(&url(&trio));
    let mut load = Load::new(&store);
    load.run(10);
    trio.fail_over();
    load.run(20);
    until("the former primary follows", || role(&trio.servers[0]) == "slave");
    load.run(20);
    load.check();
    load.check_epochs();
}

#[test]
fn a_primary_that_was_stopped_and_does_not_know_that_it_is_none_serves_nobody() {
    let trio = SentinelTrio::start(1, DOWN_AFTER);
    let store = connect(&trio.url());
    let mut load = Load::new(&store);
    load.run(10);
    until("the replica has everything", || offset(&trio.servers[0]) == offset(&trio.servers[1]));
    trio.servers[0].signal("STOP");
    load.run(10);
    assert_eq!(trio.primary_port(), trio.servers[1].port());
    trio.servers[0].signal("CONT");
    // It still says that it is the primary, until a sentinel tells it otherwise.
    let late = connect(&trio.url());
    let append = |store: &RedisStore, text: &str| {
        let streams = vec![device("device-0")];
        ask_until_done(store, &Request::Append { streams, message: message(text), collapse_key: None });
    };
    append(&late, "700000");
    append(&store, "700001");
    until("the former primary follows", || role(&trio.servers[0]) == "slave");
    append(&late, "700002");
    let texts: Vec<_> = read(&store, &device("device-0")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts[texts.len() - 3..], ["700000", "700001", "700002"]);
}

#[test]
fn sentinels_that_were_set_up_again_for_another_server_are_followed_by_those_who_run_already() {
    let trio = SentinelTrio::start(1, DOWN_AFTER);
    let store = connect(&trio.url());
    let mut load = Load::new(&store);
    load.run(2);
    trio.fail_over();
    until("another primary is named", || trio.primary_port() == trio.servers[1].port());
    load.run(2);
    let another = RedisServer::start("");
    trio.monitor_anew(another.port());
    let keys = || redis::cmd("DBSIZE").query::<usize>(&mut another.connection()).unwrap();
    until("the store has begun there", || keys() > 0);
}

#[test]
fn sentinels_that_do_not_know_the_name_are_told_from_those_that_are_not_there() {
    let trio = SentinelTrio::start(0, DOWN_AFTER);
    let wrong = trio.url().replace(NAME, "other");
    let options = || RedisOptions { deadline: Duration::from_secs(5), ..RedisOptions::default() };
    let refusal = RedisStore::connect(&wrong, options()).err().unwrap().to_string();
    assert!(
        refusal.contains("no sentinel names a primary for other")
            && refusal.contains("no primary of that name"),
        "{refusal}"
    );
    // A sentinel in place of a server, and the other way round.
    let sentinel = trio.url().split([',', '/']).nth(2).unwrap().to_owned();
    let refusal = RedisStore::connect(&format!("redis://{sentinel}"), options()).err().unwrap().to_string();
    assert!(refusal.contains("it is a sentinel"), "{refusal}");
    let server = format!("redis+sentinel://127.0.0.1:{}/{NAME}", trio.servers[0].port());
    let refusal = RedisStore::connect(&server, options()).err().unwrap().to_string();
    assert!(refusal.contains("no sentinel names a primary"), "{refusal}");
}

#[test]
fn sentinels_may_want_a_password_of_their_own() {
    let server = RedisServer::start("--requirepass secret");
    let configuration = format!(
        "requirepass guarded\nsentinel monitor {NAME} 127.0.0.1 {} 1\nsentinel auth-pass {NAME} secret\n",
        server.port()
    );
    let sentinel = RedisServer::configured(free_port(), "--sentinel", &configuration);
    let url = |password: &str, of_sentinel: &str| {
        let port = sentinel.port();
        format!("redis+sentinel://:{password}@127.0.0.1:{port}/{NAME}?sentinel_password={of_sentinel}")
    };
    let store = connect(&url("secret", "guarded"));
    let mut load = Load::new(&store);
    load.run(2);
    load.check();
    for (url, why) in [
        (url("secret", "guarded-not"), "no sentinel names a primary for main"),
        (url("secret-not", "guarded"), "does not accept the user and password"),
    ] {
        let refusal = RedisStore::connect(&url, RedisOptions::default()).err().unwrap().to_string();
        assert!(refusal.contains(why) && !refusal.contains('\n'), "{refusal}");
        assert!(!refusal.contains("guarded") && !refusal.contains("secret"), "{refusal}");
    }
}

#[test]
fn too_few_replicas_are_an_unavailable_store_and_not_an_acknowledgement() {
    let trio = SentinelTrio::start(0, DOWN_AFTER);
    let store = connect(&url(&trio));
    let streams = vec![device("device-0")];
    let request = Request::Append { streams, message: message("1"), collapse_key: None };
    let refusal = crate::load::ask(&store, request).unwrap_err().to_string();
    assert!(refusal.contains("only 0 of 1 replicas have it"), "{refusal}");
}

/// Nothing if the server ends the connection, as it does when it is told to follow another one.
fn role(server: &RedisServer) -> String {
    match redis::cmd("ROLE").query(&mut server.connection()) {
        Ok(redis::Value::Array(fields)) => redis::from_redis_value(fields[0].clone()).unwrap(),
        _ => String::new(),
    }
}

/// How far a server's history goes.
fn offset(server: &RedisServer) -> String {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut server.connection()).unwrap();
    let field = if info.contains("role:slave") { "slave_repl_offset:" } else { "master_repl_offset:" };
    info.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned()
}
