//! What the Redis store does in a second, and what a session weighs: `cargo bench -p holdfast-store --bench redis`. Starts a
//! server of its own (`redis-server` must be in the PATH) which syncs each write as operation asks for; `REDIS_FSYNC=no` leaves that out.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore, Store, clock};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, StreamKey, SubscriptionRecord};
use holdfast_wire::store::Progress;

const OWNER: Owner = Owner { node: NodeId(1), shard: ShardId(0) };
const SESSIONS: usize = 100_000;

fn main() {
    let directory = tempfile::tempdir_in(".").expect("a directory beside the sources, so on a real disk");
    let server = Server::start(directory.path());
    let options = RedisOptions { deadline: Duration::from_secs(20), ..RedisOptions::default() };
    let store = RedisStore::connect(&server.url(), options).expect("a fresh server serves");

    let empty = server.used_memory();
    let epochs =
        measure(&server, "open, persistent, new", 1_000, SESSIONS, &store, |number| open(number, 3_600));
    let opened = server.used_memory();
    println!("a persistent session, connected:                    {:>7.0} bytes", each(empty, opened));
    measure(&server, "subscribe, one filter each", 1_000, SESSIONS, &store, |number| {
        subscribe(number, epochs[number], format!("devices/{number:08}/push").into())
    });
    let own = server.used_memory();
    println!("... with a filter of its own, above that:           {:>7.0} bytes", each(opened, own));
    measure(&server, "subscribe, the same filter", 1_000, SESSIONS, &store, |number| {
        subscribe(number, epochs[number], "alerts/#".into())
    });
    let common = server.used_memory();
    println!("... with a filter that all have, above that:        {:>7.0} bytes", each(own, common));
    measure(&server, "open, persistent, resumed", 1_000, SESSIONS, &store, |number| open(number, 3_600));
    let epochs =
        measure(&server, "open, persistent, resumed", 32, SESSIONS, &store, |number| open(number, 3_600));
    let written = server.changes();
    measure(&server, "lookup, as for an online push", 1_000, SESSIONS, &store, |number| Request::Lookup {
        client: client(number),
    });
    println!("... what all of these wrote in the server:          {:>7} changes", server.changes() - written);
    measure(&server, "append 128 B to one filter", 1_000, SESSIONS, &store, |_| append());
    measure(&server, "append 128 B to one filter", 1, 2_000, &store, |_| append());
    divide_among_a_group(&server, &store, &epochs);
    measure(&server, "close, resting", 1_000, SESSIONS, &store, |number| Request::Close {
        client: client(number),
        epoch: epochs[number],
        expiry_s: 3_600,
        progress: Progress::default(),
        will: None,
    });
    let rested = server.used_memory();
    println!("at rest, above connected (queue of 100,000 included): {:>5.0} bytes", each(common, rested));
    broadcast(&server, &store);
    let rested = server.used_memory();
    measure(&server, "open, clean, new", 1_000, SESSIONS, &store, |number| open(SESSIONS + number, 0));
    println!(
        "a clean session, connected:                         {:>7.0} bytes",
        each(rested, server.used_memory())
    );
    list_and_reap(&server, &store);
    fill_a_group(&server, &store);
    for (ms, call) in server.slowest_calls() {
        println!("among the longest calls:                            {ms:>7.1} ms, {call}");
    }
}

/// All sessions rest and hold the filter.
fn broadcast(server: &Server, store: &RedisStore) {
    const BROADCASTS: usize = 1_000;
    let (calls, pushes) = (server.calls("fcall"), server.calls("rpush"));
    let started = Instant::now();
    measure(server, "broadcast to all who rest", 1, BROADCASTS, store, |_| append());
    let sweeps = started.elapsed().as_secs() * 64;
    println!(
        "... {BROADCASTS} to {SESSIONS} sessions: {} messages written, {} calls (some {sweeps} of them sweeps)",
        server.calls("rpush") - pushes,
        server.calls("fcall") - calls,
    );
}

/// A tenth of all sessions share a subscription, each of which claims one message, and some a hundred.
fn divide_among_a_group(server: &Server, store: &RedisStore, epochs: &[Epoch]) {
    const MEMBERS: usize = SESSIONS / 10;
    const GROUP: &str = "$share/g/alerts/#";
    let stream = || StreamKey::Filter(GROUP.into());
    let append = || Request::Append { streams: vec![stream()], message: message(), collapse_key: None };
    let claim = |number: usize, after, messages_max| Request::Claim {
        client: client(number),
        epoch: epochs[number],
        filter: GROUP.into(),
        after,
        messages_max,
        bytes_max: u32::MAX,
    };
    let before = server.used_memory();
    measure(server, "subscribe, as one of a group", 1_000, MEMBERS, store, |number| {
        subscribe(number, epochs[number], GROUP.into())
    });
    let bytes = (server.used_memory() - before) as f64 / MEMBERS as f64;
    println!("... a member that holds nothing:                    {bytes:>7.0} bytes");
    measure(server, "claim, nothing there", 1_000, MEMBERS, store, |number| claim(number, 0, 1));
    measure(server, "append 128 B to the group", 1_000, MEMBERS, store, |_| append());
    let (before, calls) = (server.used_memory(), server.calls("fcall"));
    let started = Instant::now();
    measure(server, "claim one message of 128 B", 1_000, MEMBERS, store, |number| claim(number, 0, 1));
    let calls = (server.calls("fcall") - calls) as f64 / MEMBERS as f64;
    let bytes = (server.used_memory() as f64 - before as f64) / MEMBERS as f64;
    let sweeps = started.elapsed().as_secs() * 64;
    println!(
        "... {calls:.2} calls each ({sweeps} sweeps among all); a member that holds one, above: {bytes:.0} bytes"
    );
    measure(server, "save, which settles it", 1_000, MEMBERS, store, |number| Request::Save {
        client: client(number),
        epoch: epochs[number],
        progress: Progress {
            cursors: vec![Cursor { stream: stream(), acked: 1 << 51 }],
            ..Progress::default()
        },
    });
    measure(server, "append 128 B to the group", 1_000, MEMBERS, store, |_| append());
    measure(server, "claim 100 messages of 128 B", 100, MEMBERS / 100, store, |number| claim(number, 0, 100));
    measure(server, "... asked again, one by one", 1, MEMBERS / 100, store, |number| claim(number, 0, 100));
}

/// A node dies that owns half of all sessions.
fn list_and_reap(server: &Server, store: &RedisStore) {
    let (started, cpu) = (Instant::now(), server.cpu_us());
    let (mut page, mut listed, mut requests) = (None, Vec::new(), 0);
    loop {
        let request = Request::Sessions { owner: Some(OWNER.node), page: page.take(), sessions_max: 256 };
        let Ok(Reply::Sessions { sessions, next }) = ask(store, request) else { panic!("the store lists") };
        listed.extend(sessions);
        requests += 1;
        page = next;
        if page.is_none() {
            break;
        }
    }
    println!(
        "listing {} sessions of one node among {}: {requests} pages, {:.0} ms, CPU {:.0} ms there",
        listed.len(),
        2 * SESSIONS,
        started.elapsed().as_secs_f64() * 1e3,
        (server.cpu_us() - cpu) as f64 / 1e3
    );
    let started = Instant::now();
    assert_eq!(ask(store, Request::Bury { node: OWNER.node }), Ok(Reply::Done));
    println!("a burial: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    measure(server, "reap, of sessions without expiry", 1_000, listed.len(), store, |number| Request::Reap {
        client: listed[number].client.clone(),
        epoch: listed[number].epoch,
    });
}

fn fill_a_group(server: &Server, store: &RedisStore) {
    const MEMBERS: usize = 1_000_000;
    let (before, started, cpu) = (server.used_memory(), Instant::now(), server.cpu_us());
    for batch in 0..MEMBERS / 10_000 {
        let add = (batch * 10_000..(batch + 1) * 10_000).map(client).collect();
        let request = Request::ChangeGroup { group: "everyone".into(), add, remove: Vec::new() };
        assert_eq!(ask(store, request), Ok(Reply::GroupChanged { added: 10_000, removed: 0 }));
    }
    println!(
        "a group of {MEMBERS}, 10,000 a request: {:.1} s, CPU {:.1} us there and {:.0} bytes for each",
        started.elapsed().as_secs_f64(),
        (server.cpu_us() - cpu) as f64 / MEMBERS as f64,
        (server.used_memory() - before) as f64 / MEMBERS as f64
    );
    let (started, cpu) = (Instant::now(), server.cpu_us());
    let (mut page, mut members) = (None, 0);
    loop {
        let request =
            Request::GroupMembers { group: "everyone".into(), page: page.take(), members_max: 1_000 };
        let Ok(Reply::Members { clients, next }) = ask(store, request) else { panic!("the store lists") };
        members += clients.len();
        page = next;
        if page.is_none() {
            break;
        }
    }
    println!(
        "... read 1,000 a page: {members} in {:.1} s, CPU {:.2} us there for each",
        started.elapsed().as_secs_f64(),
        (server.cpu_us() - cpu) as f64 / members as f64
    );
    let started = Instant::now();
    assert_eq!(ask(store, Request::DropGroup { group: "everyone".into() }), Ok(Reply::Done));
    println!("... dropped: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
}

fn ask(store: &RedisStore, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = mpsc::sync_channel(1);
    store.submit(request, Box::new(move |answer| drop(answered.send(answer))));
    answers.recv().expect("an answer always comes")
}

fn each(before: u64, after: u64) -> f64 {
    (after as f64 - before as f64) / SESSIONS as f64
}

/// Submits requests with at most `in_flight` unanswered, prints how many a second and what CPU both sides used, and gives
/// the epochs that were opened.
fn measure(
    server: &Server,
    what: &str,
    in_flight: usize,
    count: usize,
    store: &RedisStore,
    request: impl Fn(usize) -> Request,
) -> Vec<Epoch> {
    let (answered, answers) = mpsc::sync_channel::<(usize, Result<Reply, StoreError>)>(in_flight);
    let mut epochs = vec![Epoch(0); count];
    let mut take = || {
        let (number, answer) = answers.recv().expect("an answer always comes");
        if let Reply::Opened(opened) = answer.expect("the store takes it") {
            epochs[number] = opened.epoch;
        }
    };
    let (start, ours, theirs) = (Instant::now(), cpu_us("self"), server.cpu_us());
    for number in 0..count {
        if number >= in_flight {
            take();
        }
        let answered = answered.clone();
        store.submit(request(number), Box::new(move |answer| drop(answered.send((number, answer)))));
    }
    (0..in_flight.min(count)).for_each(|_| take());
    let each = |us: u64| us as f64 / count as f64;
    println!(
        "{what:<28} {in_flight:>5} in flight: {:>8.0} /s, CPU {:>5.1} us here, {:>5.1} us there",
        count as f64 / start.elapsed().as_secs_f64(),
        each(cpu_us("self") - ours),
        each(server.cpu_us() - theirs),
    );
    epochs
}

/// CPU time that a process has used, in us.
fn cpu_us(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) * 10_000
}

fn client(number: usize) -> ClientId {
    ClientId::new(&format!("device-{number:08}"))
}

fn open(number: usize, expiry_s: u32) -> Request {
    Request::Open { client: client(number), owner: OWNER, clean_start: false, expiry_s, will: None }
}

fn subscribe(number: usize, epoch: Epoch, filter: Box<str>) -> Request {
    let subscription = SubscriptionRecord {
        filter,
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    };
    Request::Subscribe { client: client(number), epoch, subscriptions: vec![subscription] }
}

fn append() -> Request {
    let streams = vec![StreamKey::Filter("alerts/#".into())];
    Request::Append { streams, message: message(), collapse_key: None }
}

fn message() -> SharedMessage {
    SharedMessage::new(&Message {
        id: 1,
        topic: "alerts/fire",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "bench",
        published_at_ms: clock::system()(),
        expires_at_ms: 0,
        properties: &[],
        payload: &[7; 128],
    })
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(directory: &std::path::Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let durable = std::env::var("REDIS_FSYNC").as_deref() != Ok("no");
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendfsync",
                "always",
                "--slowlog-log-slower-than",
                "1000",
                "--port",
                &port.to_string(),
            ])
            .args(["--appendonly", if durable { "yes" } else { "no" }])
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (e2e/services/redis.sh install)");
        let server = Self { child, port };
        let started = Instant::now();
        while server.connection().is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    fn info(&self, section: &str) -> String {
        let mut connection = self.connection().expect("it serves");
        redis::cmd("INFO").arg(section).query(&mut connection).expect("it answers")
    }

    fn cpu_us(&self) -> u64 {
        cpu_us(&self.child.id().to_string())
    }

    /// How often a command was carried out, by functions too.
    fn calls(&self, command: &str) -> u64 {
        let info = self.info("commandstats");
        let calls = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or_default()
    }

    /// How often its data have been changed.
    fn changes(&self) -> u64 {
        let info = self.info("persistence");
        let changes = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        changes.and_then(|changes| changes.trim().parse().ok()).unwrap_or_default()
    }

    /// How long the longest calls took, without what they waited for the disk, and what they were.
    fn slowest_calls(&self) -> Vec<(f64, String)> {
        let mut connection = self.connection().expect("it serves");
        let slow: Vec<(u64, u64, u64, Vec<String>, String, String)> =
            redis::cmd("SLOWLOG").arg("GET").arg(-1).query(&mut connection).expect("it answers");
        let mut calls: Vec<_> = slow
            .into_iter()
            .map(|(_, _, us, words, ..)| (us as f64 / 1e3, words.into_iter().take(2).collect::<Vec<_>>()))
            .map(|(ms, words)| (ms, words.join(" ").chars().take(80).collect()))
            .collect();
        calls.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        calls.truncate(3);
        calls
    }

    fn used_memory(&self) -> u64 {
        let info = self.info("memory");
        // Without the buffers of clients and of the file it appends to.
        let of = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
                .unwrap_or_default()
        };
        of("used_memory_dataset:") + of("used_memory_overhead:")
            - of("mem_clients_normal:")
            - of("mem_aof_buffer:")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
