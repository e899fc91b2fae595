//! What one frame costs in the log: records a second, CPU and bytes for each, beside redb used as a log.
//!
//! `cargo bench -p holdfast-bridge --bench log [-- DIRECTORY]`. The directory should lie on the disk that counts; a temporary one otherwise.
//! Each row runs for [`SPAN`] with [`IN_FLIGHT`] batches in flight, each durable before it counts.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_bridge::log::{Batch, Log, LogConfig, LogRecord};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};
use redb::{Database, TableDefinition};

const SPAN: Duration = Duration::from_secs(3);
const IN_FLIGHT: usize = 8;
const PAYLOAD: [u8; 128] = [b'x'; 128];

fn main() {
    let argument = std::env::args().nth(1).filter(|argument| !argument.starts_with("--"));
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let root = argument.map_or_else(|| temporary.path().to_owned(), Into::into);
    println!("{:<34} {:>12} {:>14} {:>14}", "", "records/s", "bytes/record", "CPU us/record");
    for records in [1, 16, 256, 2_048] {
        segmented(&root, records);
    }
    for records in [16, 256, 2_048] {
        redb(&root, records);
    }
    encoding();
}

fn record(number: u64) -> LogRecord<'static> {
    LogRecord {
        offset: 0,
        node: NodeId(1),
        epoch: Epoch(1),
        packet_id: PacketId::new(number as u16 | 1),
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: number,
            topic: "devices/sensor-000001/accel",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "sensor-000001",
            published_at_ms: 1_732_150_000_000 + number,
            expires_at_ms: 0,
            properties: &[],
            payload: &PAYLOAD,
        },
    }
}

fn segmented(root: &Path, records: u64) {
    let directory = root.join(format!("segmented-{records}"));
    let config = LogConfig { retention_bytes_max: 512 << 20, linger: Duration::ZERO, ..LogConfig::default() };
    let (log, _) = Log::open(&directory, config).expect("the log opens");
    let (done, completed) = mpsc::channel();
    let (mut stored, mut bytes, mut in_flight) = (0u64, 0u64, 0);
    let mut first_offsets = 0u64;
    let (started, cpu) = (Instant::now(), cpu_time());
    loop {
        while in_flight < IN_FLIGHT && started.elapsed() < SPAN {
            let mut batch = log.batch();
            for number in 0..records {
                batch.push(&record(number));
            }
            bytes += batch.len() as u64;
            let done = done.clone();
            let accepted = log
                .try_append(
                    batch,
                    Box::new(move |appended| {
                        let _ = done.send(appended);
                    }),
                )
                .expect("open");
            assert!(accepted.is_ok(), "the queue has room");
            in_flight += 1;
        }
        if in_flight == 0 {
            break;
        }
        first_offsets ^= completed.recv().expect("a completion").first_offset;
        in_flight -= 1;
        stored += records;
    }
    assert_ne!(first_offsets, u64::MAX);
    row(&format!("segmented log, batches of {records}"), stored, bytes, started, cpu);
    drop(log);
    std::fs::remove_dir_all(&directory).expect("removed");
}

fn redb(root: &Path, records: u64) {
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    let directory = root.join(format!("redb-{records}"));
    std::fs::create_dir_all(&directory).expect("created");
    let file = directory.join("log.redb");
    let database = Database::create(&file).expect("redb opens");
    let mut offset = 0;
    let mut value = Vec::new();
    let (started, cpu) = (Instant::now(), cpu_time());
    while started.elapsed() < SPAN {
        let transaction = database.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(LOG).expect("the table");
            // What our batches of this size come to when eight of them wait: one commit for all.
            for number in 0..records * IN_FLIGHT as u64 {
                value.clear();
                record(number).message.encode(&mut value);
                offset += 1;
                table.insert(offset, value.as_slice()).expect("inserted");
            }
        }
        transaction.commit().expect("committed");
    }
    let bytes = std::fs::metadata(&file).expect("a file").len();
    row(&format!("redb, commits of {}", records * IN_FLIGHT as u64), offset, bytes, started, cpu);
    drop(database);
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// The part of the cost that the link's thread bears.
fn encoding() {
    const ROUNDS: u64 = 2_000;
    let mut spent = Duration::ZERO;
    for _ in 0..ROUNDS {
        let mut batch = Batch::default();
        for number in 0..16 {
            batch.push(&record(number));
        }
        let started = Instant::now();
        for number in 0..240 {
            batch.push(&record(number));
        }
        spent += started.elapsed();
    }
    println!("encoding alone: {:.0} ns a record", spent.as_nanos() as f64 / (ROUNDS * 240) as f64);
}

fn row(name: &str, records: u64, bytes: u64, started: Instant, cpu: Duration) {
    let seconds = started.elapsed().as_secs_f64();
    let cpu = (cpu_time().saturating_sub(cpu)).as_secs_f64() * 1e6 / records as f64;
    println!(
        "{name:<34} {:>12.0} {:>14.1} {cpu:>14.3}",
        records as f64 / seconds,
        bytes as f64 / records as f64
    );
}

/// CPU time of this process so far, user and system, in clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
