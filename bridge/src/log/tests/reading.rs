//! Readers beside a writer, and readers of damaged logs.

use std::fs;

use super::*;
use crate::log::segment::{self, HEADER_BYTES};

#[test]
fn a_reader_follows_the_writer_across_segments() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes_max: 2_000, ..LogConfig::default() };
    let (log, _) = Log::open(directory.path(), config).unwrap();
    let path = directory.path().to_owned();
    let follower = std::thread::spawn(move || {
        let mut reader = LogReader::open(&path).unwrap();
        let deadline = std::time::Instant::now() + DEADLINE;
        let mut expected = 0;
        while expected < 2_000 {
            assert!(std::time::Instant::now() < deadline, "the follower stands at {expected}");
            match reader.next_entry().unwrap() {
                Some(Entry::Record(record)) => {
                    assert_eq!(record.message.payload, expected.to_string().as_bytes());
                    expected += 1;
                }
                Some(Entry::Damaged(damage)) => panic!("{damage:?}"),
                None => std::thread::yield_now(),
            }
        }
    });
    for number in 0..200 {
        store(&log, number * 10..number * 10 + 10);
    }
    follower.join().unwrap();
    assert!(segment::list(directory.path()).unwrap().len() > 10);
}

#[test]
fn a_reader_starts_at_any_offset() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes_max: 1_000, ..LogConfig::default() };
    let (log, _) = Log::open(directory.path(), config).unwrap();
    for number in 0..50 {
        store(&log, number..number + 1);
    }
    for offset in 1..=50 {
        let mut reader = LogReader::open_from(directory.path(), offset).unwrap();
        let Some(Entry::Record(record)) = reader.next_entry().unwrap() else { panic!("no record {offset}") };
        assert_eq!(record.offset, offset);
    }
    assert_eq!(next_offset(directory.path()).unwrap(), 51);
    let mut reader = LogReader::open_from(directory.path(), 51).unwrap();
    assert_eq!(reader.next_entry().unwrap(), None);
    store(&log, 50..51);
    assert!(matches!(reader.next_entry().unwrap(), Some(Entry::Record(record)) if record.offset == 51));
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(verify(directory.path()).unwrap(), Verdict::default());
    assert_eq!(next_offset(directory.path()).unwrap(), 1);
}

#[test]
fn damage_in_an_old_segment_is_named_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes_max: 400, ..LogConfig::default() };
    let (log, _) = Log::open(directory.path(), config).unwrap();
    for number in 0..12 {
        store(&log, number..number + 1);
    }
    drop(log);
    let firsts = segment::list(directory.path()).unwrap();
    let (second, third) = (firsts[1], firsts[2]);
    // From the middle of the first record on, nothing of the second segment is left.
    let file = segment::path(directory.path(), second);
    let mut bytes = fs::read(&file).unwrap();
    let length = bytes.len();
    bytes[HEADER_BYTES as usize + 20..].fill(0xff);
    fs::write(&file, bytes).unwrap();

    let verdict = verify(directory.path()).unwrap();
    assert_eq!(
        verdict.damage,
        [Damage {
            segment: second,
            position: HEADER_BYTES,
            bytes: length as u64 - HEADER_BYTES,
            first_missing: second,
            missing: third - second,
        }],
    );
    assert_eq!(verdict.records, 12 - (third - second));
    assert_eq!((verdict.first_offset, verdict.last_offset), (1, 12));

    fs::remove_file(&file).unwrap();
    let verdict = verify(directory.path()).unwrap();
    assert_eq!(verdict.damage.len(), 1, "a segment that is gone is missed");
    assert_eq!(verdict.damage[0].missing, third - second);
}
