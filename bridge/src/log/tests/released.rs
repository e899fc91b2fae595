//! A log that keeps its records until they are released.

use std::sync::atomic::{AtomicU64, Ordering};

use super::failing_disk::{Disk, open_faulty_until_released};
use super::*;
use crate::log::segment;

fn open_spool(directory: &Path, bytes_max: u64, released: u64) -> Log {
    let config = LogConfig {
        segment_bytes_max: 1_000,
        retention_bytes_max: bytes_max,
        retention_age_max: Duration::ZERO,
        ..LogConfig::default()
    };
    Log::open_until_released(directory, config, released).unwrap().0
}

#[test]
fn segments_stay_until_they_are_released_and_then_only_an_empty_one_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_spool(directory.path(), 1 << 20, 0);
    for number in 0..30 {
        store(&log, number..number + 1);
    }
    assert_eq!(log.stored(), 31);
    assert_eq!(contents(directory.path()).0.len(), 30, "age and number take nothing away");
    log.release(20);
    wait_until(|| segment::list(directory.path()).unwrap()[0] > 10);
    assert!(contents(directory.path()).0.contains(&19), "record 20 and all behind it are still there");
    log.release(31);
    wait_until(|| segment::list(directory.path()).unwrap() == [31]);
    wait_until(|| log.bytes() == segment::HEADER_BYTES);
    assert_eq!(store(&log, 30..31).first_offset, 31);
    drop(log);
    let log = open_spool(directory.path(), 1 << 20, 31);
    assert_eq!(store(&log, 31..32).first_offset, 32);
}

#[test]
fn offsets_are_not_given_again_when_the_segments_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_spool(directory.path(), 1 << 20, 77);
    assert_eq!(log.stored(), 77);
    assert_eq!(store(&log, 0..1).first_offset, 77);
}

#[test]
fn at_its_bound_it_stalls_until_something_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_spool(directory.path(), 3_000, 0);
    let mut number = 0;
    let stalled = loop {
        let completed = submit(&log, batch(&log, number..number + 5));
        number += 5;
        wait_until(|| log.is_stalled() || log.stored() == number + 1);
        if log.is_stalled() {
            break completed;
        }
    };
    assert!(log.bytes() <= 3_000);
    log.release(11);
    stalled.recv_timeout(DEADLINE).unwrap();
    wait_until(|| !log.is_stalled());
}

#[test]
fn a_stalled_one_gives_back_what_is_queued_in_order_and_takes_more_later() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk { room: AtomicU64::new(500), ..Disk::default() });
    let log = open_faulty_until_released(directory.path(), &disk);
    store(&log, 0..2);
    assert!(reclaim(&log).is_empty(), "a log that stores gives nothing back");
    let completed = submit(&log, batch(&log, 2..40));
    wait_until(|| log.is_stalled());
    let behind = submit(&log, batch(&log, 40..42));
    let records: Vec<u32> = reclaim(&log).iter().map(|reclaimed| reclaimed.batch.records()).collect();
    assert_eq!(records, [38, 2]);
    assert!(completed.recv().is_err() && behind.recv().is_err(), "they were not stored");
    disk.room.store(1 << 20, Ordering::SeqCst);
    assert_eq!(store(&log, 42..43).first_offset, 3);
    drop(log);
    assert_eq!(contents(directory.path()), (vec![0, 1, 42], vec![]));
}

#[test]
fn what_was_given_back_and_could_not_be_cut_off_is_not_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk { room: AtomicU64::new(1 << 20), ..Disk::default() });
    let log = open_faulty_until_released(directory.path(), &disk);
    store(&log, 0..2);
    disk.syncs_fail.store(true, Ordering::SeqCst);
    disk.truncates_fail.store(true, Ordering::SeqCst);
    let _never = submit(&log, batch(&log, 2..12));
    wait_until(|| log.is_stalled());
    assert_eq!(reclaim(&log).len(), 1);
    disk.syncs_fail.store(false, Ordering::SeqCst);
    store(&log, 42..62);
    drop(log);
    assert_eq!(contents(directory.path()), ([0, 1].into_iter().chain(42..62).collect(), vec![]));
}

#[test]
fn a_reader_begins_at_the_mark_of_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_spool(directory.path(), 1 << 20, 0);
    store(&log, 0..8);
    let mut mark = Mark::open(directory.path()).unwrap();
    mark.write(5).unwrap();
    assert_eq!(contents(directory.path()), ((4..8).collect(), vec![]));
}
