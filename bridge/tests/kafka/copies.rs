//! A frame that is there twice is recognised by what docs/records.md says, and nothing else is.

use std::io::Write;
use std::process::{Command, Stdio};

use holdfast_bridge::kafka::KafkaSink;
use holdfast_bridge::log::LogRecord;
use holdfast_wire::mqtt::PacketId;
use serde_json::json;

use crate::rig::{NOW, Record, Way, config, frame, name, read, shared};

const PAGE: &str = include_str!("../../../docs/records.md");

/// Stands before what the page says, where no table of records is at hand.
const INTO_A_TABLE: &str = r#"
import json, sqlite3, sys
table = sqlite3.connect(":memory:")
names = "client_id id topic packet_id received_at session dup resent payload kafka_partition kafka_offset".split()
table.execute(f"CREATE TABLE records ({','.join(names)})")
for line in sys.stdin:
    record = json.loads(line)
    headers = dict(zip(record["headers"][::2], record["headers"][1::2]))
    of = lambda name: headers.get(name.replace("_", "-"))
    row = [of(name) for name in names[:8]] + [record["payload"], record["partition"], record["offset"]]
    row[4] = int(row[4])
    table.execute(f"INSERT INTO records VALUES ({','.join('?' * len(row))})", row)
query = table.execute(sys.argv[1])
columns = [column[0] for column in query.description]
for row in query:
    row = dict(zip(columns, row))
    print(json.dumps({"key": row["client_id"], "payload": row["payload"]}))
"#;

#[test]
fn copies_are_recognised_by_the_page_and_nothing_else_is_taken_for_one() {
    let topic = name("copies");
    let sink = KafkaSink::start(config(shared(), &topic)).unwrap();
    let mut way = Way::into(&sink);
    let mut next_id = 0;
    let mut push = |client, packet_id, value: &str, again: bool, id: Option<u64>, after_ms| {
        next_id += 1;
        let mut record = LogRecord {
            packet_id: PacketId::new(packet_id),
            resent: again,
            ..frame(client, "t", value.as_bytes())
        };
        record.message.id = id.unwrap_or(next_id);
        record.message.published_at_ms = NOW + after_ms;
        way.push(&record, false);
    };
    push("d", 1, "kept 1", false, None, 0);
    push("d", 2, "kept 2", false, None, 0);
    // The bridge died; its gateway sends what was unanswered to another, and a frame that the dead one had not stored.
    push("d", 1, "kept 1", true, None, 5_000);
    push("d", 2, "kept 2", true, None, 5_000);
    push("d", 3, "kept 3", true, None, 5_000);
    // Another device with the same packet id, and the same packet id for something else.
    push("e", 1, "kept 1", true, None, 5_000);
    push("d", 1, "kept 4", true, None, 6_000);
    push("d", 1, "kept 1", true, None, 6_000);
    // The same value again, without a mark, and with one after long.
    push("d", 2, "kept 2", false, None, 7_000);
    push("d", 2, "kept 2", true, None, 7_000 + 600_000);
    // Taken back from Kafka, which had it after all: a frame with QoS 0.
    push("d", 0, "kept 5", false, Some(0xabc), 8_000);
    push("d", 0, "kept 5", true, Some(0xabc), 8_000);
    push("d", 0, "kept 5", true, Some(0xabd), 8_000);
    // A bridge hung and writes what its gateway has sent elsewhere, behind that and behind a later frame with the same packet id.
    push("d", 4, "kept 6", true, None, 9_000);
    push("d", 4, "kept 7", false, None, 9_500);
    push("d", 4, "kept 6", false, None, 9_000);
    // A broker hung and writes what was taken back from it, behind that; another bridge gave the same number to something else.
    push("d", 0, "kept 8", true, Some(0xabe), 9_600);
    push("d", 0, "kept 8", false, Some(0xabe), 9_600);
    push("d", 0, "kept 9", true, Some(0xabe), 9_600);
    way.send();
    way.verdicts();
    let lines: String =
        read(&shared().brokers, &topic, 19).iter().map(|record| as_kcat_prints_it(&topic, record)).collect();
    let kept = [1, 2, 3, 4, 1, 2, 2, 5, 5, 6, 7, 8, 9];
    let mut expected: Vec<_> = kept.iter().map(|value| ("d".to_owned(), format!("kept {value}"))).collect();
    expected.push(("e".to_owned(), "kept 1".to_owned()));
    assert_eq!(values(&python(&[block("python")], &lines)), expected);
    assert_eq!(values(&python(&[INTO_A_TABLE, block("sql")], &lines)), expected);
}

#[test]
fn the_page_names_every_header() {
    let topic = name("headers");
    let sink = KafkaSink::start(config(shared(), &topic)).unwrap();
    let mut way = Way::into(&sink);
    let mut full = LogRecord { dup: true, resent: true, event_time_ms: u64::MAX, ..frame("d", "t", b"x") };
    full.message.retain = true;
    way.push(&full, false);
    way.send();
    way.verdicts();
    for (header, _) in &read(&shared().brokers, &topic, 1)[0].headers {
        assert!(PAGE.contains(&format!("| `{header}` |")), "docs/records.md does not name {header}");
    }
}

/// The page's only block in this language.
fn block(language: &str) -> &'static str {
    let (_, behind) = PAGE.split_once(&format!("```{language}\n")).unwrap();
    behind.split_once("```").unwrap().0
}

fn python(arguments: &[&str], input: &str) -> String {
    let mut python = Command::new("python3")
        .arg("-c")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn as_kcat_prints_it(topic: &str, record: &Record) -> String {
    let headers: Vec<_> = record.headers.iter().flat_map(|(name, value)| [name, value]).collect();
    let line = json!({
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "tstype": "create",
        "ts": record.timestamp,
        "broker": 1,
        "headers": headers,
        "key": record.key,
        "payload": record.text(),
    });
    format!("{line}\n")
}

/// Devices and values, by device and in their order.
fn values(lines: &str) -> Vec<(String, String)> {
    let text = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut values: Vec<_> = lines.map(|line| (text(&line, "key"), text(&line, "payload"))).collect();
    values.sort_by(|(a, _), (b, _)| a.cmp(b));
    values
}
