//! Opening again after whatever happened to the files.

use std::fs;

use super::*;
use crate::log::segment::{self, HEADER_BYTES};

#[test]
fn a_log_goes_on_where_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (log, recovered) = open(directory.path());
    assert_eq!(recovered, Recovered { next_offset: 1, ..Recovered::default() });
    assert_eq!(store(&log, 0..3).first_offset, 1);
    drop(log);

    let (log, recovered) = open(directory.path());
    assert_eq!((recovered.records, recovered.next_offset, recovered.segments), (3, 4, 1));
    assert_eq!(store(&log, 3..5).first_offset, 4);
    drop(log);
    assert_eq!(contents(directory.path()), ((0..5).collect(), vec![]));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_nothing_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    store(&log, 0..2);
    let file = segment::path(directory.path(), 1);
    let kept = fs::metadata(&file).unwrap().len();
    store(&log, 2..3);
    drop(log);
    let whole = fs::read(&file).unwrap();

    for length in kept as usize..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(contents(directory.path()), (vec![0, 1], vec![]), "a reader of {length} bytes");
        let (log, recovered) = open(directory.path());
        assert_eq!(recovered.cut_bytes, length as u64 - kept);
        assert_eq!(recovered.next_offset, 3);
        assert_eq!(store(&log, 7..8).first_offset, 3);
        drop(log);
        assert_eq!(contents(directory.path()), (vec![0, 1, 7], vec![]), "a log torn at {length} bytes");
    }
}

#[test]
fn a_segment_torn_inside_its_header_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    store(&log, 0..2);
    drop(log);
    for length in 0..=HEADER_BYTES as usize {
        fs::write(segment::path(directory.path(), 3), &segment::header(3)[..length]).unwrap();
        let (log, recovered) = open(directory.path());
        assert_eq!(recovered.next_offset, 3, "a header of {length} bytes");
        drop(log);
        assert_eq!(contents(directory.path()), (vec![0, 1], vec![]));
    }
}

#[test]
fn a_bit_flipped_anywhere_loses_at_most_its_own_record() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    store(&log, 0..3);
    drop(log);
    let file = segment::path(directory.path(), 1);
    let whole = fs::read(&file).unwrap();

    for byte in HEADER_BYTES as usize..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(&file, &damaged).unwrap();
        let (log, recovered) = open(directory.path());
        store(&log, 3..4);
        drop(log);
        let (numbers, damage) = contents(directory.path());
        assert_eq!(numbers.last(), Some(&3), "a flip in byte {byte}");
        assert_eq!(numbers.len(), 3, "a flip in byte {byte} leaves {numbers:?}");
        // A damaged last record looks like a torn one.
        assert_eq!(
            damage.len(),
            usize::from(recovered.cut_bytes == 0),
            "a flip in byte {byte}: {recovered:?}"
        );
        assert_eq!(recovered.damaged_bytes > 0, recovered.cut_bytes == 0);
        fs::remove_file(&file).unwrap();
        let _ = fs::remove_file(segment::path(directory.path(), 4));
    }
}

#[test]
fn a_damaged_header_does_not_cost_the_records_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    store(&log, 0..3);
    drop(log);
    let file = segment::path(directory.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[0] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (log, _) = open(directory.path());
    store(&log, 3..4);
    drop(log);
    assert_eq!(contents(directory.path()), ((0..4).collect(), vec![]));
}

#[test]
fn a_log_of_another_version_is_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    store(&log, 0..1);
    drop(log);
    let file = segment::path(directory.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    fs::write(&file, &bytes).unwrap();
    let error = Log::open(directory.path(), LogConfig::default()).unwrap_err().to_string();
    assert!(error.contains("has log format 9, this version reads 1"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_second_writer_is_told_who_is_to_blame() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    let error = Log::open(directory.path(), LogConfig::default()).unwrap_err();
    assert!(matches!(error, LogError::Locked(_)));
    assert!(error.to_string().contains(&directory.path().display().to_string()));
    drop(log);
    open(directory.path());
}

#[test]
fn a_directory_that_cannot_be_made_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Log::open(&file.join("log"), LogConfig::default()).unwrap_err().to_string();
    assert!(error.contains("cannot be created") && !error.contains('\n'), "{error}");
}

#[test]
fn segments_rotate_by_size_and_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes_max: 1_000, retention_bytes_max: 5_000, ..LogConfig::default() };
    let (log, _) = Log::open(directory.path(), config).unwrap();
    for number in 0..200 {
        store(&log, number..number + 1);
    }
    drop(log);
    let firsts = segment::list(directory.path()).unwrap();
    let total: u64 =
        firsts.iter().map(|&first| fs::metadata(segment::path(directory.path(), first)).unwrap().len()).sum();
    assert!(total <= 6_000, "{total} bytes are kept");
    assert!(firsts.len() >= 4, "{firsts:?}");
    let (numbers, damage) = contents(directory.path());
    assert_eq!(numbers, (firsts[0] - 1..200).collect::<Vec<_>>());
    assert!(damage.is_empty(), "what retention took is not damage");
    let (_, recovered) = Log::open(directory.path(), config).unwrap();
    assert_eq!((recovered.next_offset, recovered.segments), (201, firsts.len()));
}

#[test]
fn a_batch_larger_than_the_queue_and_a_segment_still_passes() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes_max: 1_000, queue_bytes_max: 100, ..LogConfig::default() };
    let (log, _) = Log::open(directory.path(), config).unwrap();
    store(&log, 0..500);
    drop(log);
    assert_eq!(contents(directory.path()).0.len(), 500);
}
