//! What a frame costs from a shard's link into Kafka and back, beside librdkafka's own producer with the same records at the same rate.
//!
//! `cargo bench -p holdfast-bridge --bench kafka [-- LINGER_MS…]`, with one broker from `e2e/services/kafka.sh` or those of `KAFKA_BROKERS`. CPU is
//! that of all threads but those that play the shard; the broker runs beside, on the same cores. Latency is from the moment a frame leaves the shard
//! (or is handed to librdkafka) to the moment its settlement (or its delivery report) is there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::{Bridge, BridgeConfig};
use holdfast_store::{Bounds, MemoryStore, clock};
use holdfast_wire::ids::{Epoch, NodeId, Owner, ShardId};
use holdfast_wire::link::{Hello, LINK_VERSION, ToBridge, ToGateway, Uplink, next_record};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

const SPAN: Duration = Duration::from_secs(5);
/// Not measured: connections, producer ids, the broker's compiler.
const WARM_UP: Duration = Duration::from_secs(2);
/// Frames that may be unsettled: 5,000 devices with a few each.
const UNSETTLED_MAX: u64 = 16_384;
const DEVICES: u64 = 5_000;
const PAYLOAD: [u8; 128] = [b'x'; 128];
const NOW: u64 = 1_732_150_000_000;

fn main() {
    let lingers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let lingers = if lingers.is_empty() { vec![1] } else { lingers };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| start_kafka(directory.path()));
    println!(
        "{:<44} {:>10} {:>13} {:>9} {:>9} {:>9}",
        "", "frames/s", "CPU us/frame", "p50 us", "p99 us", "p99.9 us"
    );
    for linger in lingers.into_iter().map(Duration::from_millis) {
        for rate in [Some(10_000), Some(30_000), None] {
            // The broker gets warm; whoever comes first must not pay for both.
            let own = own_producer(&brokers, linger, rate);
            let bridge = bridge(&brokers, linger, rate);
            let name = rate.map_or_else(|| "flat out".into(), |rate| format!("{rate}/s"));
            let name = format!("{name}, linger {} ms", linger.as_millis());
            own.print(&format!("{name}: librdkafka's own"));
            bridge.print(&format!("{name}: the bridge"));
            println!(
                "{:<44} {:>10.2} {:>13.2} {:>9} {:>9}",
                "    the bridge against librdkafka's own",
                bridge.rate / own.rate,
                bridge.cpu_us / own.cpu_us,
                format!("{:+}", bridge.percentile(500) - own.percentile(500)),
                format!("{:+}", bridge.percentile(990) - own.percentile(990)),
            );
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/services/kafka.sh");
    let _ = Command::new(script).arg("stop").arg(directory.path()).status();
}

fn start_kafka(directory: &std::path::Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/services/kafka.sh");
    let pid = std::process::id().to_string();
    let output = Command::new(script).args(["start", "--while", &pid]).arg(directory).output();
    let output = String::from_utf8(output.expect("the script runs").stdout).expect("text");
    let brokers = output.lines().find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
    brokers.expect("Kafka starts").to_owned()
}

/// What came of one contender.
struct Row {
    rate: f64,
    cpu_us: f64,
    latencies: Vec<u64>,
}

impl Row {
    fn new(frames: u64, seconds: f64, cpu: Duration, mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        Self { rate: frames as f64 / seconds, cpu_us: cpu.as_secs_f64() * 1e6 / frames as f64, latencies }
    }

    /// In microseconds.
    fn percentile(&self, permille: usize) -> i64 {
        self.latencies.get(self.latencies.len() * permille / 1000).map_or(0, |ns| (ns / 1000).cast_signed())
    }

    fn print(&self, name: &str) {
        let Self { rate, cpu_us, .. } = self;
        let [p50, p99, p999] = [500, 990, 999].map(|permille| self.percentile(permille));
        println!("{name:<44} {rate:>10.0} {cpu_us:>13.3} {p50:>9} {p99:>9} {p999:>9}");
    }
}

fn config(brokers: &str, linger: Duration) -> KafkaConfig {
    let (brokers, topic) = (brokers.to_owned(), "bench.frames".to_owned());
    KafkaConfig {
        brokers,
        topic,
        linger,
        create_topics: true,
        partitions: 12,
        replicas: 1,
        ..KafkaConfig::default()
    }
}

/// How many frames are due, at most so many more than are settled.
fn due(started: Instant, rate: Option<u64>, settled: u64) -> u64 {
    let due = rate.map_or(u64::MAX, |rate| started.elapsed().as_micros() as u64 * rate / 1_000_000);
    due.min(settled + UNSETTLED_MAX)
}

fn idle(rate: Option<u64>) {
    std::thread::sleep(Duration::from_micros(if rate.is_some() { 1_000 } else { 50 }));
}

// ---- librdkafka's own producer ----

struct Reports {
    started: Instant,
    settled: AtomicU64,
    latencies: Mutex<Vec<u64>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        result.as_ref().expect("delivered");
        let latency = self.started.elapsed().as_nanos() as u64 - sent as u64;
        self.latencies.lock().expect("not poisoned").push(latency);
        self.settled.fetch_add(1, Ordering::Release);
    }
}

fn own_producer(brokers: &str, linger: Duration, rate: Option<u64>) -> Row {
    // Makes the topic.
    drop(KafkaSink::start(config(brokers, linger)).expect("Kafka answers"));
    let mut native = ClientConfig::new();
    for (name, value) in [
        ("bootstrap.servers", brokers),
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("message.timeout.ms", "0"),
        ("partitioner", "murmur2_random"),
        ("compression.type", &KafkaConfig::default().compression),
        ("linger.ms", &linger.as_millis().to_string()),
        ("batch.size", &KafkaConfig::default().batch_bytes_max.to_string()),
    ] {
        native.set(name, value);
    }
    let started = Instant::now();
    let reports = Reports { started, settled: AtomicU64::new(0), latencies: Mutex::default() };
    let producer: Arc<BaseProducer<Reports>> =
        Arc::new(native.create_with_context(reports).expect("a producer"));
    let over = Arc::new(AtomicBool::new(false));
    let (polled, stop) = (Arc::clone(&producer), Arc::clone(&over));
    let poller = std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            polled.poll(Duration::from_millis(20));
        }
    });
    let context = Arc::clone(producer.context());
    let settled = || context.settled.load(Ordering::Acquire);
    let mut sent = 0;
    let mut produce_until = |end: Duration| {
        while started.elapsed() < end {
            let due = due(started, rate, settled());
            if sent >= due {
                idle(rate);
            }
            while sent < due.min(sent + 1) {
                sent += 1;
                produce(&producer, sent, started);
            }
        }
        sent
    };
    let warm = produce_until(WARM_UP);
    context.latencies.lock().expect("not poisoned").clear();
    let (cpu, begun) = (cpu_time(), Instant::now());
    let all = produce_until(WARM_UP + SPAN);
    while settled() < all {
        std::thread::sleep(Duration::from_micros(100));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    over.store(true, Ordering::Release);
    poller.join().expect("the poller ends");
    let latencies = std::mem::take(&mut *context.latencies.lock().expect("not poisoned"));
    Row::new(all - warm, seconds, cpu, latencies)
}

fn produce(producer: &BaseProducer<Reports>, sequence: u64, started: Instant) {
    let client = client(sequence);
    let texts = [
        ("topic", "devices/sensor/accel"),
        ("client-id", text(&client)),
        ("qos", "1"),
        ("id", "0000000000000077"),
        ("packet-id", "12345"),
        ("session", "1"),
        ("node", "0000000000000abc"),
        ("received-at", "1732150000123"),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(texts.len());
    for (key, value) in texts {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let record = BaseRecord::with_opaque_to("bench.frames", started.elapsed().as_nanos() as usize)
        .key(&client[..])
        .payload(&PAYLOAD[..])
        .timestamp((NOW + sequence).cast_signed())
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
}

// ---- the bridge ----

fn bridge(brokers: &str, linger: Duration, rate: Option<u64>) -> Row {
    let sink = Arc::new(KafkaSink::start(config(brokers, linger)).expect("Kafka answers"));
    let store = Arc::new(MemoryStore::new(clock::system(), Bounds::default()));
    let bridge = Bridge::start(BridgeConfig::default(), store, sink).expect("starts");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    bridge.accept(theirs);
    let shard = Arc::new(PlayedShard {
        started: Instant::now(),
        settled: AtomicU64::new(0),
        sent_at: (0..rate.map_or(0, |rate| rate * 8)).map(|_| AtomicU64::new(0)).collect(),
        latencies: Mutex::default(),
    });
    let hears = ours.try_clone().expect("a clone");
    let listener = {
        let shard = Arc::clone(&shard);
        let thread = std::thread::Builder::new().name("shard hears".into());
        thread.spawn(move || shard.listen(hears)).expect("a thread")
    };
    // A thread of its own, whose CPU is not counted.
    let speaker = {
        let shard = Arc::clone(&shard);
        let thread = std::thread::Builder::new().name("shard speaks".into());
        thread.spawn(move || shard.speak(ours, rate)).expect("a thread")
    };
    std::thread::sleep(WARM_UP.saturating_sub(shard.started.elapsed()));
    let warm = shard.settled.load(Ordering::Acquire);
    shard.latencies.lock().expect("not poisoned").clear();
    let (cpu, begun) = (cpu_time(), Instant::now());
    let (stream, all) = speaker.join().expect("it speaks");
    while shard.settled.load(Ordering::Acquire) < all {
        std::thread::sleep(Duration::from_micros(100));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    assert!(bridge.shutdown(Duration::from_secs(10)), "the bridge drains");
    drop(stream);
    listener.join().expect("it hears");
    let latencies = std::mem::take(&mut *shard.latencies.lock().expect("not poisoned"));
    Row::new(all - warm, seconds, cpu, latencies)
}

struct PlayedShard {
    started: Instant,
    settled: AtomicU64,
    /// By sequence, in ns since the start; empty when flat out.
    sent_at: Vec<AtomicU64>,
    latencies: Mutex<Vec<u64>>,
}

impl PlayedShard {
    fn speak(&self, mut stream: UnixStream, rate: Option<u64>) -> (UnixStream, u64) {
        let mut bytes = Vec::new();
        let shard = Owner { node: NodeId(1), shard: ShardId(0) };
        ToBridge::Hello(Hello { version: LINK_VERSION, shard, receive_maximum: 32, secret: b"" })
            .encode(&mut bytes);
        let mut sequence = 0;
        while self.started.elapsed() < WARM_UP + SPAN {
            let due = due(self.started, rate, self.settled.load(Ordering::Acquire));
            let now = self.started.elapsed().as_nanos() as u64;
            while sequence < due && bytes.len() < 64 << 10 {
                sequence += 1;
                if let Some(at) = self.sent_at.get(sequence as usize) {
                    at.store(now, Ordering::Release);
                }
                encode(sequence, &mut bytes);
            }
            if bytes.is_empty() {
                idle(rate);
                continue;
            }
            stream.write_all(&bytes).expect("written");
            bytes.clear();
        }
        (stream, sequence)
    }

    fn listen(&self, mut stream: UnixStream) {
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match stream.read(&mut chunk) {
                Ok(length) if length > 0 => bytes.extend_from_slice(&chunk[..length]),
                _ => return,
            }
            let now = self.started.elapsed().as_nanos() as u64;
            let mut rest = &bytes[..];
            let mut count = 0;
            while let Some(raw) = next_record(&mut rest).expect("a record") {
                if let ToGateway::Settled(run) = ToGateway::decode(raw).expect("a record") {
                    assert_eq!(run.reason_code, 0);
                    count += run.last - run.first + 1;
                    let sent_at =
                        self.sent_at.get(run.first as usize..=run.last as usize).unwrap_or_default();
                    let latencies = sent_at.iter().map(|sent| now - sent.load(Ordering::Acquire));
                    self.latencies.lock().expect("not poisoned").extend(latencies);
                }
            }
            let passed = bytes.len() - rest.len();
            bytes.drain(..passed);
            self.settled.fetch_add(count, Ordering::Release);
        }
    }
}

fn encode(sequence: u64, out: &mut Vec<u8>) {
    let client = client(sequence);
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
            publisher: text(&client),
            published_at_ms: NOW + sequence,
            expires_at_ms: 0,
            properties: &[],
            payload: &PAYLOAD,
        },
    };
    ToBridge::Uplink(uplink).encode(out);
}

fn client(sequence: u64) -> [u8; 13] {
    let mut client = *b"sensor-000000";
    let _ = write!(&mut client[7..], "{:06}", sequence % DEVICES);
    client
}

fn text(client: &[u8]) -> &str {
    std::str::from_utf8(client).unwrap_or_default()
}

/// CPU time of this process's threads so far, but for those that play the shard.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed");
    let ns = tasks.flatten().filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let spent = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let spent = spent.split_whitespace().next()?.parse::<u64>().ok()?;
        (!name.starts_with("shard")).then_some(spent)
    });
    Duration::from_nanos(ns.sum())
}
