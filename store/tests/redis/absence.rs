//! A server that goes away, in each way it can, is answered for in time, and used again once it is back.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore, Store};
use holdfast_wire::ids::ClientId;
use holdfast_wire::store::Progress;

use crate::proxy::Proxy;
use crate::redis_server::RedisServer;
use crate::world::{ALICE, Bench, text_of};

const DEADLINE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(server: &RedisServer, requests_max: usize) -> RedisStore {
    connect_to(&server.url(), requests_max)
}

fn connect_to(url: &str, requests_max: usize) -> RedisStore {
    let options = RedisOptions { deadline: DEADLINE, requests_max, ..RedisOptions::default() };
    RedisStore::connect(url, options).unwrap()
}

fn open(client: &str) -> Request {
    Request::Open {
        client: ClientId::new(client),
        owner: ALICE,
        clean_start: false,
        expiry_s: 60,
        will: None,
    }
}

/// Asks, and says how long the answer took.
fn ask(store: &RedisStore, request: Request) -> (Result<Reply, StoreError>, Duration) {
    let (answered, answers) = mpsc::sync_channel(1);
    let asked = Instant::now();
    store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    (answers.recv_timeout(PATIENCE).expect("an answer always comes"), asked.elapsed())
}

fn until_answered(store: &RedisStore) -> Reply {
    let started = Instant::now();
    loop {
        match ask(store, open("d")).0 {
            Ok(reply) => return reply,
            Err(error) => assert!(started.elapsed() < PATIENCE, "still: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn until_refused_at_once(store: &RedisStore) {
    let started = Instant::now();
    loop {
        let (answer, took) = ask(store, open("d"));
        if matches!(answer, Err(StoreError::Unavailable(_))) && took < DEADLINE / 2 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "still: {answer:?} after {took:?}");
    }
}

#[test]
fn a_stopped_server_is_an_absent_one_until_it_goes_on() {
    let server = RedisServer::start("");
    let store = connect(&server, 1_000);
    until_answered(&store);
    server.signal("STOP");
    let (answer, took) = ask(&store, open("d"));
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(took >= DEADLINE / 2 && took < DEADLINE * 6, "{took:?}");
    until_refused_at_once(&store);
    server.signal("CONT");
    until_answered(&store);
}

#[test]
fn a_store_that_waits_for_a_stopped_server_does_not_turn_in_circles() {
    let server = RedisServer::start("");
    let store = connect(&server, 1_000);
    server.signal("STOP");
    until_refused_at_once(&store);
    let (before, started) = (used_by_store_threads(), Instant::now());
    // The time is what is measured here: what the store's threads use of it, in hundredths of a second.
    while started.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // Thread by thread: stores of other tests come, work and go meanwhile, but none of them is busy all the time.
    for (thread, ticks) in used_by_store_threads() {
        let used = ticks.saturating_sub(*before.get(&thread).unwrap_or(&ticks));
        assert!(used < 100, "thread {thread} used {used} hundredths of two seconds");
    }
    drop(store);
}

/// What each thread of a store in this process has used of the processor so far, in ticks of 10 ms.
fn used_by_store_threads() -> HashMap<String, u64> {
    let mut used = HashMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap();
        // A thread may end between any two of these steps; then it is not counted.
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        if name.trim() == "store" {
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            used.insert(task.file_name().into_string().unwrap(), ticks);
        }
    }
    used
}

#[test]
fn a_killed_server_is_dialled_again_and_given_the_functions() {
    let server = RedisServer::start("");
    let port = server.port();
    let store = connect(&server, 1_000);
    until_answered(&store);
    drop(server);
    until_refused_at_once(&store);
    let _server = RedisServer::start_on(port, "");
    let Reply::Opened(opened) = until_answered(&store) else { panic!("an open is answered with a session") };
    assert_eq!(opened.session, None, "the new one is empty");
}

#[test]
fn functions_that_someone_removed_are_loaded_again() {
    let server = RedisServer::start("");
    let store = connect(&server, 1_000);
    until_answered(&store);
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("FUNCTION").arg("FLUSH").exec(&mut connection).unwrap();
    until_answered(&store);
}

#[test]
fn more_requests_than_may_wait_are_refused_at_once() {
    let server = RedisServer::start("");
    let store = connect(&server, 10);
    until_answered(&store);
    server.signal("STOP");
    let (answered, answers) = mpsc::sync_channel(100);
    for number in 0..100 {
        let answered = answered.clone();
        let reply = Box::new(move |answer: Result<Reply, StoreError>| answered.send(answer).unwrap());
        store.submit(open(&number.to_string()), reply);
    }
    assert!(answers.try_iter().count() >= 90, "all but ten are answered before the last was asked");
    for _ in answers.iter().take(10) {}
    server.signal("CONT");
    until_answered(&store);
}

#[test]
fn dropping_the_store_answers_what_is_still_asked() {
    let server = RedisServer::start("");
    let store = connect(&server, 1_000);
    server.signal("STOP");
    let (answered, answers) = mpsc::sync_channel(1);
    store.submit(open("d"), Box::new(move |answer| answered.send(answer).unwrap()));
    drop(store);
    assert!(matches!(answers.try_recv(), Ok(Err(StoreError::Unavailable(_)))));
}

#[test]
fn sweeping_notices_a_connection_that_is_lost_without_a_word_and_goes_on_over_the_next() {
    let server = RedisServer::start("");
    let proxy = Proxy::before(server.port());
    let store = connect_to(&proxy.url(), 1_000);
    proxy.hold();
    // Nobody asks for anything meanwhile.
    proxy.until_accepted(2);
    let Reply::Opened(opened) = until_answered(&store) else { panic!("an open is answered with a session") };
    let (client, progress) = (ClientId::new("d"), Progress::default());
    ask(&store, Request::Close { client, epoch: opened.epoch, expiry_s: 1, progress, will: None }).0.unwrap();
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let started = Instant::now();
    while !redis::cmd("KEYS").arg("*:s:d").query::<Vec<String>>(&mut connection).unwrap().is_empty() {
        assert!(started.elapsed() < PATIENCE, "nobody sweeps");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_lost_connection_still_asked_does_not_undo_what_the_next_one_did() {
    let server = RedisServer::start("");
    let proxy = Proxy::before(server.port());
    let store = connect_to(&proxy.url(), 1_000);
    let bench = Bench::redis_at(&server.url());
    let retain = |text: &str| Request::Retain { message: bench.message("t", text) };
    proxy.hold();
    let (answer, _) = ask(&store, retain("former"));
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    proxy.until_accepted(2);
    until_answered(&store);
    ask(&store, retain("latter")).0.unwrap();
    proxy.release_until_ended(1);
    let read =
        Request::ReadRetained { filter: "t".into(), after: None, messages_max: 1, bytes_max: u32::MAX };
    let Reply::Retained(messages) = ask(&store, read).0.unwrap() else { panic!("it reads messages") };
    assert_eq!(messages.iter().map(text_of).collect::<Vec<_>>(), ["latter"]);
}
