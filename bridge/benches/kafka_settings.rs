//! What linger, compression and the size of batches do to frames on their way into Kafka: the reasons for the defaults of `kafka.linger_ms`,
//! `kafka.compression` and `kafka.batch_bytes_max`.
//!
//! `cargo bench -p holdfast-bridge --bench kafka_settings [-- ROUNDS]` starts one broker with `e2e/services/kafka.sh`. Each setting has a topic of its
//! own, and its turn in each round, so that all of them meet the same weather; the medians of the rounds are compared. CPU is that of this
//! process, the thread that pushes included; the broker runs beside, on the same cores. Payloads are readings as a sensor writes them, so that
//! compression has what it would have.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, Sink, Verdict};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};

const SPAN: Duration = Duration::from_secs(2);
/// Frames that may be unsettled: 5,000 devices with a few each.
const UNSETTLED_MAX: u64 = 16_384;
const DEVICES: u64 = 5_000;
/// Frames of one turn of a link, at most.
const TURN: u64 = 64;
const RATES: [Option<u64>; 2] = [Some(10_000), None];

/// A choice: linger in ms, compression, bytes of a batch.
type Choice = (u64, &'static str, u32);

/// The first is the one that the others are compared with.
const CHOICES: [Choice; 9] = [
    (1, "lz4", 512 << 10),
    (0, "lz4", 512 << 10),
    (5, "lz4", 512 << 10),
    (20, "lz4", 512 << 10),
    (1, "none", 512 << 10),
    (1, "snappy", 512 << 10),
    (1, "zstd", 512 << 10),
    (1, "lz4", 64 << 10),
    (1, "lz4", 1_000_000),
];

/// What came of one turn.
#[derive(Clone, Copy, Default)]
struct Outcome {
    rate: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    bytes: f64,
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let brokers = start_kafka(directory.path());
    let sinks: Vec<_> =
        (0..).zip(CHOICES).map(|(number, choice)| (topic(number), sink(&brokers, number, choice))).collect();
    let mut outcomes = vec![[const { Vec::<Outcome>::new() }; RATES.len()]; CHOICES.len()];
    for round in 0..=rounds {
        for ((topic, sink), outcomes) in sinks.iter().zip(&mut outcomes) {
            for (rate, outcomes) in RATES.into_iter().zip(outcomes) {
                let before = stored_bytes(directory.path(), topic);
                let (frames, mut outcome) = push(sink, rate);
                outcome.bytes =
                    stored_bytes(directory.path(), topic).saturating_sub(before) as f64 / frames as f64;
                // In the first round everything gets warm.
                if round > 0 {
                    outcomes.push(outcome);
                }
            }
        }
    }
    for (at, rate) in RATES.into_iter().enumerate() {
        println!("{}", rate.map_or_else(|| "flat out".into(), |rate| format!("{rate} frames/s")));
        println!(
            "{:<28} {:>9} {:>9} {:>9} {:>9} {:>11}",
            "", "frames/s", "CPU", "p50 us", "p99 us", "bytes/frame"
        );
        let base = median(&outcomes[0][at]);
        for ((linger, compression, batch), outcomes) in CHOICES.iter().zip(&outcomes) {
            let median = median(&outcomes[at]);
            println!(
                "{:<28} {:>9.2} {:>9.2} {:>9.0} {:>9.0} {:>11.0}",
                format!("{linger} ms, {compression}, {} KiB", batch >> 10),
                median.rate / base.rate,
                median.cpu_us / base.cpu_us,
                median.p50_us,
                median.p99_us,
                median.bytes,
            );
        }
    }
    drop(sinks);
    let _ = Command::new(SCRIPT).arg("stop").arg(directory.path()).status();
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/services/kafka.sh");

fn start_kafka(directory: &Path) -> String {
    let pid = std::process::id().to_string();
    let output = Command::new(SCRIPT).args(["start", "--while", &pid]).arg(directory).output();
    let output = String::from_utf8(output.expect("the script runs").stdout).expect("text");
    let brokers = output.lines().find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
    brokers.expect("Kafka starts").to_owned()
}

fn topic(number: usize) -> String {
    format!("bench-{number}.frames")
}

fn sink(brokers: &str, number: usize, (linger, compression, batch_bytes_max): Choice) -> KafkaSink {
    let config = KafkaConfig {
        brokers: brokers.to_owned(),
        topic: topic(number),
        linger: Duration::from_millis(linger),
        compression: compression.to_owned(),
        batch_bytes_max,
        create_topics: true,
        partitions: 12,
        replicas: 1,
        ..KafkaConfig::default()
    };
    KafkaSink::start(config).expect("Kafka answers")
}

/// One turn; how many frames, and what came of them.
fn push(sink: &KafkaSink, rate: Option<u64>) -> (u64, Outcome) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut lane = sink.lane();
    let settled = Arc::new(AtomicU64::new(0));
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut sent = 0;
    while begun.elapsed() < SPAN {
        let due = rate.map_or(u64::MAX, |rate| begun.elapsed().as_micros() as u64 * rate / 1_000_000);
        let due = due.min(settled.load(Ordering::Acquire) + UNSETTLED_MAX).min(sent + TURN);
        if sent >= due {
            std::thread::sleep(Duration::from_micros(if rate.is_some() { 1_000 } else { 50 }));
            continue;
        }
        for number in sent..due {
            push_frame(lane.as_mut(), number);
        }
        sent = due;
        let (pushed_at, settled, latencies) = (Instant::now(), Arc::clone(&settled), Arc::clone(&latencies));
        let on_settled = move |frames: std::ops::Range<u32>, verdict| {
            assert_eq!(verdict, Verdict::Stored);
            let frames = u64::from(frames.end - frames.start);
            let latency = pushed_at.elapsed().as_micros() as f64;
            latencies.lock().expect("not poisoned").extend((0..frames).map(|_| latency));
            settled.fetch_add(frames, Ordering::AcqRel);
        };
        runtime.block_on(lane.send(Box::new(on_settled))).expect("the sink is open");
    }
    while settled.load(Ordering::Acquire) < sent {
        std::thread::sleep(Duration::from_micros(100));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    let mut latencies = std::mem::take(&mut *latencies.lock().expect("not poisoned"));
    latencies.sort_unstable_by(f64::total_cmp);
    let percentile =
        |permille: usize| latencies.get(latencies.len() * permille / 1000).copied().unwrap_or(0.0);
    let outcome = Outcome {
        rate: sent as f64 / seconds,
        cpu_us: cpu.as_secs_f64() * 1e6 / sent as f64,
        p50_us: percentile(500),
        p99_us: percentile(990),
        bytes: 0.0,
    };
    (sent, outcome)
}

fn push_frame(lane: &mut dyn Lane, number: u64) {
    let device = number % DEVICES;
    let client = format!("sensor-{device:06}");
    let topic = format!("plant/{}/accel", device % 40);
    // Noise in what a sensor measures, and counters that grow.
    let noise = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 1e4;
    // Of today, or the broker would throw it away.
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let payload = format!(
        "{{\"ts\":{at},\"seq\":{},\"x\":{:.4},\"y\":{:.4},\"z\":{:.4},\"temperature\":21.{},\"battery\":{}}}",
        number / DEVICES,
        noise / 100.0,
        noise / 37.0,
        9.81 + noise / 1e3,
        device % 10,
        100 - device % 60,
    );
    let record = LogRecord {
        offset: 0,
        node: NodeId(0xabc),
        epoch: Epoch(1),
        packet_id: PacketId::new((number / DEVICES) as u16 | 1),
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: (at << 20) + number,
            topic: &topic,
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: &client,
            published_at_ms: at,
            expires_at_ms: 0,
            properties: &[],
            payload: payload.as_bytes(),
        },
    };
    lane.push(&record, false);
}

/// Bytes of a topic's segments.
fn stored_bytes(directory: &Path, topic: &str) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log")
                && path.to_string_lossy().contains(topic)
            {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    bytes
}

fn median(outcomes: &[Outcome]) -> Outcome {
    let of = |value: fn(&Outcome) -> f64| {
        let mut values: Vec<f64> = outcomes.iter().map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    Outcome {
        rate: of(|outcome| outcome.rate),
        cpu_us: of(|outcome| outcome.cpu_us),
        p50_us: of(|outcome| outcome.p50_us),
        p99_us: of(|outcome| outcome.p99_us),
        bytes: of(|outcome| outcome.bytes),
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed");
    let ns = tasks.flatten().filter_map(|task| {
        let spent = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        spent.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}
