//! What one frame costs from a shard's link to its settlement, with the durable log behind it.
//!
//! `cargo bench -p holdfast-bridge --bench link [-- DIRECTORY]`. A shard is played over a socket pair: flat out with a full window, then
//! [`PACED_PER_SECOND`] frames a second in turns of 1 ms. CPU is that of the whole process; "the shard alone" is what playing it costs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_bridge::log::{Log, LogConfig};
use holdfast_bridge::sink::LogSink;
use holdfast_bridge::{Bridge, BridgeConfig};
use holdfast_store::{Bounds, MemoryStore, clock};
use holdfast_wire::ids::{Epoch, NodeId, Owner, ShardId};
use holdfast_wire::link::{Hello, LINK_VERSION, ToBridge, ToGateway, Uplink, next_record};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};

const SPAN: Duration = Duration::from_secs(3);
const PACED_PER_SECOND: u64 = 20_000;
/// Frames that may be unsettled: 5,000 devices with a few each.
const UNSETTLED_MAX: u64 = 16_384;
const DEVICES: u64 = 5_000;

fn main() {
    let argument = std::env::args().nth(1).filter(|argument| !argument.starts_with("--"));
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let root = argument.map_or_else(|| temporary.path().to_owned(), Into::into);
    println!("{:<40} {:>12} {:>14} {:>10} {:>10}", "", "frames/s", "CPU us/frame", "p50 us", "p99 us");
    for workers in [1, 2] {
        row(&format!("flat out, {workers} worker(s)"), &root, workers, None, LogConfig::default().linger);
    }
    for linger_us in [0, 1_000, 2_000] {
        let linger = Duration::from_micros(linger_us);
        row(
            &format!("{PACED_PER_SECOND}/s, linger {linger_us} us"),
            &root,
            1,
            Some(PACED_PER_SECOND),
            linger,
        );
    }
    alone();
}

fn row(name: &str, root: &Path, worker_threads: usize, pace: Option<u64>, linger: Duration) {
    let directory = root.join("link");
    let config = LogConfig { retention_bytes_max: 512 << 20, linger, ..LogConfig::default() };
    let (log, _) = Log::open(&directory, config).expect("the log opens");
    let store = Arc::new(MemoryStore::new(clock::system(), Bounds::default()));
    let sink = Arc::new(LogSink::new(Arc::new(log)));
    let bridge = Bridge::start(BridgeConfig { worker_threads, ..BridgeConfig::default() }, store, sink)
        .expect("starts");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    bridge.accept(theirs);
    let mut bytes = Vec::new();
    let shard = Owner { node: NodeId(1), shard: ShardId(0) };
    ToBridge::Hello(Hello { version: LINK_VERSION, shard, receive_maximum: 32, secret: b"" })
        .encode(&mut bytes);
    ours.write_all(&bytes).expect("written");

    let settled = Arc::new(AtomicU64::new(0));
    let hears = ours.try_clone().expect("a clone");
    let counter = Arc::clone(&settled);
    let started = Instant::now();
    let listener = std::thread::spawn(move || listen(hears, &counter, started));
    let cpu = cpu_time();
    let (mut sequence, mut batches) = (0, Vec::new());
    while started.elapsed() < SPAN {
        let due = pace.map_or(u64::MAX, |pace| started.elapsed().as_micros() as u64 * pace / 1_000_000);
        let room = settled.load(Ordering::Acquire) + UNSETTLED_MAX;
        bytes.clear();
        while sequence < due.min(room) && bytes.len() < 64 << 10 {
            sequence += 1;
            encode(sequence, &mut bytes);
        }
        if bytes.is_empty() {
            std::thread::sleep(Duration::from_micros(if pace.is_some() { 1_000 } else { 50 }));
            continue;
        }
        batches.push((sequence, started.elapsed()));
        ours.write_all(&bytes).expect("written");
    }
    while settled.load(Ordering::Acquire) < sequence {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_time().saturating_sub(cpu);
    assert!(bridge.shutdown(Duration::from_secs(10)), "the bridge drains");
    let heard = listener.join().expect("the listener ends");
    let mut latencies: Vec<u128> = batches
        .iter()
        .filter_map(|(last, sent)| {
            let at = heard.partition_point(|(settled, _)| settled < last);
            heard.get(at).map(|(_, when)| when.saturating_sub(*sent).as_micros())
        })
        .collect();
    latencies.sort_unstable();
    let percentile = |p: usize| latencies.get(latencies.len() * p / 100).copied().unwrap_or_default();
    println!(
        "{name:<40} {:>12.0} {:>14.3} {:>10} {:>10}",
        sequence as f64 / seconds,
        cpu.as_secs_f64() * 1e6 / sequence as f64,
        percentile(50),
        percentile(99),
    );
    drop(bridge);
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// How many frames were settled, and when.
fn listen(mut stream: UnixStream, settled: &AtomicU64, started: Instant) -> Vec<(u64, Duration)> {
    let (mut bytes, mut chunk, mut heard) = (Vec::new(), vec![0; 64 << 10], Vec::new());
    let mut count = 0;
    loop {
        match stream.read(&mut chunk) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&chunk[..length]),
            _ => return heard,
        }
        let mut rest = &bytes[..];
        while let Some(raw) = next_record(&mut rest).expect("a record") {
            if let ToGateway::Settled(run) = ToGateway::decode(raw).expect("a record") {
                count += run.last - run.first + 1;
            }
        }
        let passed = bytes.len() - rest.len();
        bytes.drain(..passed);
        heard.push((count, started.elapsed()));
        settled.store(count, Ordering::Release);
    }
}

fn encode(sequence: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let mut client = *b"sensor-000000";
    let _ = write!(&mut client[7..], "{:06}", sequence % DEVICES);
    let uplink = Uplink {
        sequence,
        epoch: Epoch(1),
        packet_id: PacketId::new((sequence / DEVICES) as u16 | 1),
        dup: false,
        resent: false,
        wants_receipt: false,
        event_time_ms: 0,
        message: Message {
            id: 0,
            topic: "devices/sensor/accel",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: std::str::from_utf8(&client).unwrap_or_default(),
            published_at_ms: 1_732_150_000_000 + sequence,
            expires_at_ms: 0,
            properties: &[],
            payload: &[b'x'; 128],
        },
    };
    ToBridge::Uplink(uplink).encode(out);
}

/// The part of the rows above that is not the bridge's.
fn alone() {
    const FRAMES: u64 = 5_000_000;
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    let reader = std::thread::spawn(move || {
        let mut chunk = vec![0; 256 << 10];
        while theirs.read(&mut chunk).is_ok_and(|length| length > 0) {}
    });
    let (cpu, mut bytes) = (cpu_time(), Vec::new());
    for sequence in 1..=FRAMES {
        encode(sequence, &mut bytes);
        if bytes.len() > 64 << 10 {
            ours.write_all(&bytes).expect("written");
            bytes.clear();
        }
    }
    drop(ours);
    reader.join().expect("the reader ends");
    let cpu = cpu_time().saturating_sub(cpu).as_secs_f64() * 1e6 / FRAMES as f64;
    println!("{:<40} {:>12} {cpu:>14.3}", "the shard alone, and the socket pair", "");
}

/// CPU time of this process so far, user and system, in clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
