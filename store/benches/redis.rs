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
use holdfast_wire::session_record::{StreamKey, SubscriptionRecord};
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
    measure(&server, "lookup", 1_000, SESSIONS, &store, |number| Request::Lookup { client: client(number) });
    measure(&server, "append 128 B to one filter", 1_000, SESSIONS, &store, |_| append());
    measure(&server, "append 128 B to one filter", 1, 2_000, &store, |_| append());
    measure(&server, "close, resting", 1_000, SESSIONS, &store, |number| Request::Close {
        client: client(number),
        epoch: epochs[number],
        expiry_s: 3_600,
        progress: Progress::default(),
    });
    let rested = server.used_memory();
    println!("at rest, above connected (queue of 100,000 included): {:>5.0} bytes", each(common, rested));
    measure(&server, "open, clean, new", 1_000, SESSIONS, &store, |number| open(SESSIONS + number, 0));
    println!(
        "a clean session, connected:                         {:>7.0} bytes",
        each(rested, server.used_memory())
    );
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
    let (start, ours, theirs) = (Instant::now(), cpu_us("self"), cpu_us(&server.child.id().to_string()));
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
        each(cpu_us(&server.child.id().to_string()) - theirs),
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
    let message = SharedMessage::new(&Message {
        id: 1,
        topic: "alerts/fire",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "bench",
        published_at_ms: clock::system()(),
        expires_at_ms: 0,
        properties: &[],
        payload: &[7; 128],
    });
    Request::Append { streams: vec![StreamKey::Filter("alerts/#".into())], message, collapse_key: None }
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

    fn used_memory(&self) -> u64 {
        let mut connection = self.connection().expect("it serves");
        let info: String = redis::cmd("INFO").arg("memory").query(&mut connection).expect("it answers");
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
