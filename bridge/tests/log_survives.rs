//! The log against a real kernel: a writer killed at random moments, and a file system that is really full.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_bridge::log::{Entry, Log, LogConfig, LogReader, LogRecord, verify};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::QoS;

const CHILD_DIRECTORY: &str = "HOLDFAST_TEST_LOG_DIRECTORY";
const CHILD_FIRST: &str = "HOLDFAST_TEST_LOG_FIRST";
const DEADLINE: Duration = Duration::from_secs(30);

fn record(payload: &[u8]) -> LogRecord<'_> {
    LogRecord {
        offset: 0,
        node: NodeId(1),
        epoch: Epoch(1),
        packet_id: None,
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: 1,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "d",
            published_at_ms: 1,
            expires_at_ms: 0,
            properties: &[],
            payload,
        },
    }
}

fn config() -> LogConfig {
    // Small segments, so that kills fall on rotations too.
    LogConfig { segment_bytes_max: 20_000, ..LogConfig::default() }
}

fn submit(log: &Log, numbers: std::ops::Range<u64>) -> mpsc::Receiver<u64> {
    let mut batch = log.batch();
    for number in numbers.clone() {
        batch.push(&record(&number.to_le_bytes()));
    }
    let (done, completed) = mpsc::channel();
    let on_appended = Box::new(move |_| {
        let _ = done.send(numbers.end);
    });
    assert!(log.try_append(batch, on_appended).unwrap().is_ok(), "the queue has room");
    completed
}

fn numbers(directory: &Path) -> Vec<u64> {
    let mut reader = LogReader::open(directory).unwrap();
    let mut numbers = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let Entry::Record(record) = entry else { panic!("{entry:?}") };
        numbers.push(u64::from_le_bytes(record.message.payload.try_into().unwrap()));
    }
    numbers
}

/// Not a test of its own: the process that is killed. Prints each number once it is completed.
#[test]
fn the_writer_that_will_be_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let mut number: u64 = std::env::var(CHILD_FIRST).unwrap().parse().unwrap();
    let (log, _) = Log::open(Path::new(&directory), config()).unwrap();
    let mut out = std::io::stdout();
    loop {
        let (first, second) = (submit(&log, number..number + 3), submit(&log, number + 3..number + 40));
        for completed in [first, second] {
            let end = completed.recv().unwrap();
            writeln!(out, "completed {end}").unwrap();
        }
        number += 40;
    }
}

#[test]
fn whatever_was_completed_before_a_kill_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut completed = 0;
    let mut seed = 0x9e37_79b9_u64;
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writer_that_will_be_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .env(CHILD_FIRST, completed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let lines_wanted = 1 + (seed >> 33) % 40;
        let mut lines = 0;
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in &mut out {
            let line = line.unwrap();
            let Some((_, end)) = line.split_once("completed ") else { continue };
            completed = end.parse().unwrap();
            lines += 1;
            if lines == lines_wanted {
                child.kill().unwrap();
                break;
            }
        }
        assert_eq!(lines, lines_wanted, "the writer ended by itself in round {round}");
        // What it said before the kill arrived counts as well.
        for line in out.map_while(Result::ok) {
            if let Some(end) = line.split_once("completed ").and_then(|(_, end)| end.parse().ok()) {
                completed = end;
            }
        }
        child.wait().unwrap();
        let found: HashSet<u64> = numbers(directory.path()).into_iter().collect();
        let lost: Vec<u64> = (0..completed).filter(|number| !found.contains(number)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} were completed and are gone");
        assert!(verify(directory.path()).unwrap().damage.is_empty());
    }
}

/// A file system of 1 MiB; unmounted when dropped. None where the test may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_file_system_holds_the_writer_back_until_there_is_room() {
    // Where it may not mount, `failing_disk` in the crate tells the same story on an injected disk.
    let Some(disk) = SmallDisk::mount() else { return };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 700 << 10]).unwrap();
    let directory = disk.0.path().join("log");
    let (log, _) = Log::open(&directory, config()).unwrap();
    let mut number = 0;
    let deadline = Instant::now() + DEADLINE;
    let stalled = loop {
        assert!(Instant::now() < deadline, "the disk never filled");
        let completed = submit(&log, number..number + 100);
        number += 100;
        // Only the full disk makes it so late; were it the machine, the rest of the story holds all the same.
        match completed.recv_timeout(Duration::from_millis(500)) {
            Ok(_) => {}
            Err(_) => break completed,
        }
    };
    assert_eq!(numbers(&directory).into_iter().take(100).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(stalled.recv_timeout(DEADLINE), Ok(number));
    drop(log);
    assert_eq!(numbers(&directory), (0..number).collect::<Vec<_>>());
}
