//! What pushes cost a real Redis, by what its own monitor shows: nothing but a look where a device is for one that is connected, and one message for a
//! broadcast, however many are away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[allow(dead_code, reason = "the store's own tests use the rest of it")]
#[path = "../../store/tests/contract/redis_server.rs"]
mod redis_server;
mod shard;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::push::{PushOutcome, PushRequest, PushTarget};
use holdfast_store::{RedisOptions, RedisStore, Store};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{InterestKind, Outcome};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{StreamKey, SubscriptionRecord};
use holdfast_wire::store::{Progress, Reply, Request};
use redis_server::RedisServer;
use shard::{DEADLINE, Heard, Rig, Shard, owner};

/// What a bridge asks by itself now and then: for the lock of the reaper, for what has expired, for wills and dead nodes, and whether anything is taken.
const UPKEEP: [&str; 12] = [
    "lock",
    "sweep",
    "done",
    "wills_due",
    "wills",
    "expired",
    "renew",
    "take_expired",
    "heaviest",
    "recount",
    "begin",
    "probe",
];

/// Everything that is asked of a server from now on.
struct Monitor {
    lines: BufReader<TcpStream>,
    server: TcpStream,
}

impl Monitor {
    fn of(server: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "+OK\r\n");
        Self { lines, server: TcpStream::connect(("127.0.0.1", server.port())).unwrap() }
    }

    /// How often each function of ours was called, apart from those for upkeep, and each command from within them.
    fn calls(mut self) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
        self.server.write_all(b"ECHO the-end\r\n").unwrap();
        let (mut functions, mut commands) = (BTreeMap::new(), BTreeMap::new());
        let mut line = Vec::new();
        loop {
            line.clear();
            self.lines.read_until(b'\n', &mut line).unwrap();
            let line = String::from_utf8_lossy(&line);
            if line.contains("\"the-end\"") {
                return (functions, commands);
            }
            // 1732150000.123456 [0 127.0.0.1:4711] "FCALL" "hf_5_lookup" …; and [0 lua] for what a function does.
            let words: Vec<_> = line.split('"').skip(1).step_by(2).collect();
            let (Some(command), function) = (words.first(), words.get(1)) else { continue };
            if line.contains(" lua] ") {
                *commands.entry(command.to_uppercase()).or_insert(0) += 1;
            } else if command.eq_ignore_ascii_case("FCALL")
                && let Some(function) = function
            {
                let name = UPKEEP.iter().find(|name| function.ends_with(&format!("_{name}")));
                if name.is_none() {
                    *functions.entry((*function).to_owned()).or_insert(0) += 1;
                }
            }
        }
    }
}

fn rig(server: &RedisServer) -> Rig {
    // Longer than a busy machine takes.
    let options = RedisOptions { deadline: DEADLINE, ..RedisOptions::default() };
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect(&server.url(), options).unwrap());
    Rig::start_with(BridgeConfig::default(), store)
}

fn push(target: PushTarget, payload: &str) -> PushRequest {
    PushRequest {
        target,
        topic: None,
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        ttl_s: Some(3_600),
        content_type: None,
        collapse_key: None,
        retain: false,
        id: None,
        wait: DEADLINE,
    }
}

/// The one function that was called so often.
fn only(functions: &BTreeMap<String, usize>) -> (&str, usize) {
    let mut all = functions.iter();
    let (Some((name, calls)), None) = (all.next(), all.next()) else { panic!("{functions:?}") };
    (name, *calls)
}

#[test]
fn a_push_to_a_device_that_is_connected_writes_nothing() {
    const PUSHES: usize = 1_000;
    let server = RedisServer::start("");
    let rig = rig(&server);
    let mut shard = rig.shard(1);
    // Persistent, so that there is something that could be written.
    rig.session("d", owner(1), &["devices/d/push"]);
    let monitor = Monitor::of(&server);
    let shards = std::thread::spawn(move || {
        for _ in 0..PUSHES {
            let Heard::Deliver { delivery, .. } = shard.hear() else { panic!("no delivery") };
            shard.report(delivery, Outcome::Delivered);
        }
        shard
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..PUSHES {
        let push = push(PushTarget::Device("d".into()), &number.to_string());
        assert_eq!(runtime.block_on(rig.bridge.push(push)).unwrap().outcome, PushOutcome::Delivered);
    }
    shards.join().unwrap();
    let (functions, _) = monitor.calls();
    let (name, calls) = only(&functions);
    // It is asked where the device is, by a function that may not write.
    assert!(name.ends_with("_lookup"), "{name}");
    assert!(calls >= PUSHES, "{calls}; the bridge looks by itself whether the store answers");
    assert_eq!(rig.stream(StreamKey::Device("d".into())), [""; 0]);
}

/// Asks everything, so many at once as a busy machine answers in time.
fn ask_all(rig: &Rig, requests: impl Iterator<Item = Request>) -> Vec<Reply> {
    const AT_ONCE: usize = 64;
    let requests: Vec<_> = requests.collect();
    let mut replies = Vec::with_capacity(requests.len());
    for some in requests.chunks(AT_ONCE) {
        let asked: Vec<_> = some
            .iter()
            .map(|request| {
                let (answered, answer) = mpsc::channel();
                rig.store.submit(request.clone(), Box::new(move |reply| answered.send(reply).unwrap()));
                answer
            })
            .collect();
        replies.extend(asked.into_iter().map(|answer| answer.recv_timeout(DEADLINE).unwrap().unwrap()));
    }
    replies
}

/// Sessions at rest that hold a filter.
fn rest_many(rig: &Rig, sessions: usize, filter: &str) {
    let client = |number: usize| ClientId::new(&format!("device-{number}"));
    let open = |number| Request::Open {
        client: client(number),
        owner: owner(1),
        clean_start: false,
        expiry_s: 3_600,
        will: None,
    };
    let epochs: Vec<_> = ask_all(rig, (0..sessions).map(open))
        .into_iter()
        .map(|reply| match reply {
            Reply::Opened(opened) => opened.epoch,
            other => panic!("{other:?}"),
        })
        .collect();
    let subscription = SubscriptionRecord {
        filter: filter.into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    };
    let each = epochs.iter().copied().enumerate();
    let subscribe = each.clone().map(|(number, epoch)| Request::Subscribe {
        client: client(number),
        epoch,
        subscriptions: vec![subscription.clone()],
    });
    ask_all(rig, subscribe);
    let close = each.map(|(number, epoch)| Request::Close {
        client: client(number),
        epoch,
        expiry_s: 3_600,
        progress: Progress::default(),
        will: None,
    });
    ask_all(rig, close);
}

#[test]
fn a_broadcast_to_thousands_who_are_away_is_written_once() {
    // As many as a busy machine opens, subscribes and closes in a few seconds; `SESSIONS` in the environment says otherwise.
    let sessions = std::env::var("SESSIONS").map_or(5_000, |number| number.parse().unwrap());
    let server = RedisServer::start("");
    let rig = rig(&server);
    rest_many(&rig, sessions, "scores/#");
    let mut shard: Shard = rig.shard(1);
    shard.announce(InterestKind::Filter, "scores/#", true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let monitor = Monitor::of(&server);
    let push = push(PushTarget::Topic("scores/final".into()), "2:1");
    let outcome = runtime.block_on(rig.bridge.push(push)).unwrap().outcome;
    assert_eq!(outcome, PushOutcome::Accepted { shards: 1, streams: 1, streams_full: 0 });
    let (functions, commands) = monitor.calls();
    let (name, calls) = only(&functions);
    assert!(name.ends_with("_append") && calls == 1, "{functions:?}");
    assert_eq!(commands.get("RPUSH"), Some(&1), "one message is written: {commands:?}");
    assert_eq!(rig.stream(StreamKey::Filter("scores/#".into())), ["2:1"]);
    // Each of them has it.
    for number in [0, sessions / 2, sessions - 1] {
        let client = ClientId::new(&format!("device-{number}"));
        let open = Request::Open { client, owner: owner(1), clean_start: false, expiry_s: 3_600, will: None };
        let Ok(Reply::Opened(opened)) = rig.ask(open) else { panic!("it opens") };
        let cursors = opened.session.unwrap().cursors;
        let filter = StreamKey::Filter("scores/#".into());
        let stands = cursors.iter().find(|cursor| cursor.stream == filter).unwrap();
        let read = Request::Read { stream: filter, after: stands.acked, messages_max: 2, bytes_max: 1_000 };
        let Ok(Reply::Messages { messages, .. }) = rig.ask(read) else { panic!("it is read") };
        assert_eq!(messages.len(), 1, "it stands before the message");
    }
}
