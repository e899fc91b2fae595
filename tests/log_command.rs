//! `holdfast log` over a log that was written as a bridge writes it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use holdfast_bridge::log::{Log, LogConfig, LogRecord};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};
use serde_json::Value;

/// Appends one frame for each payload and waits until all are durable.
fn append(directory: &Path, payloads: &[&[u8]]) {
    let (log, _) = Log::open(directory, LogConfig::default()).unwrap();
    let mut batch = log.batch();
    for payload in payloads {
        batch.push(&LogRecord {
            offset: 0,
            node: NodeId(0xabc),
            epoch: Epoch(7),
            packet_id: PacketId::new(9),
            dup: false,
            resent: false,
            event_time_ms: 0,
            message: Message {
                id: 1,
                topic: "plant/7",
                qos: QoS::AtLeastOnce,
                retain: false,
                publisher: "sensor-7",
                published_at_ms: 1_732_150_000_123,
                expires_at_ms: 0,
                properties: &[],
                payload,
            },
        });
    }
    let (done, durable) = mpsc::sync_channel(1);
    let queued = log.try_append(batch, Box::new(move |_| done.send(()).unwrap())).unwrap();
    assert!(queued.is_ok(), "an empty queue has room");
    durable.recv().unwrap();
}

fn log(arguments: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.arg("log").args(arguments).arg(directory);
    command.output().expect("the binary can be started")
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn cat_prints_every_record_for_people_and_for_machines() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), &[b"21.5", b"\x1b[2J\xff", b"22"]);
    let for_people = lines(&log(&["cat"], folder.path()));
    assert_eq!(for_people.len(), 3);
    assert!(for_people[0].ends_with("1  1732150000123  sensor-7  plant/7  qos 1  21.5"), "{for_people:?}");
    assert!(for_people[1].ends_with("(5 bytes)"), "{for_people:?}");

    let for_machines: Vec<Value> = lines(&log(&["cat", "--json"], folder.path()))
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(for_machines[0]["client_id"], "sensor-7");
    assert_eq!(for_machines[2]["offset"], 3);
    assert_eq!(for_machines[2]["payload_base64"], "MjI=");
    assert_eq!(lines(&log(&["cat", "--from", "3"], folder.path())).len(), 1);
}

#[test]
fn a_data_directory_stands_for_the_log_in_it() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("log"), &[b"1"]);
    assert_eq!(lines(&log(&["cat"], folder.path())).len(), 1);
}

#[test]
fn control_characters_of_a_device_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), &[b"\x1b[2J"]);
    assert!(!log(&["cat"], folder.path()).stdout.contains(&0x1b));
}

#[test]
fn tail_begins_with_the_last_records_and_goes_on_with_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), &[b"one", b"two", b"three"]);
    let mut tail = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["log", "tail", "-n", "1"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(printed.next().unwrap().unwrap().ends_with("three"));
    append(folder.path(), &[b"four"]);
    assert!(printed.next().unwrap().unwrap().ends_with("four"));
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn verify_finds_a_flipped_byte_and_exits_with_one() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), &[b"one", b"two", b"three"]);
    assert_eq!(lines(&log(&["verify"], folder.path())), ["3 records, offsets 1 to 3, 0 missing"]);

    let segment = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let position = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[position] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let verdict = log(&["verify", "--json"], folder.path());
    assert_eq!(verdict.status.code(), Some(1));
    let verdict: Value = serde_json::from_slice(&verdict.stdout).unwrap();
    assert_eq!((&verdict["records"], &verdict["missing"]), (&Value::from(2), &Value::from(1)));
    let cat = log(&["cat"], folder.path());
    assert_eq!(cat.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&cat.stderr).contains("1 records from offset 2 on are missing"));
}
