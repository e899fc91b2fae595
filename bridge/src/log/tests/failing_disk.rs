//! A disk that is full, or fails: nothing is completed that is not stored, and work goes on once it can.

use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::log::files::SegmentFile;

/// What is wrong with the disk right now.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Bytes that still fit.
    pub(crate) room: AtomicU64,
    pub(crate) syncs_fail: AtomicBool,
    pub(crate) truncates_fail: AtomicBool,
}

struct FaultyFiles(Arc<Disk>);

struct FaultyFile {
    disk: Arc<Disk>,
    file: Box<dyn SegmentFile>,
}

impl Files for FaultyFiles {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), file: OsFiles.create(path)? }))
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), file: OsFiles.open(path)? }))
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        OsFiles.sync_directory(directory)
    }
}

impl SegmentFile for FaultyFile {
    fn append(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = self.disk.room.load(Ordering::SeqCst) as usize;
        let some = &slices[0][..slices[0].len().min(room)];
        if some.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.append(&[IoSlice::new(some)])?;
        self.disk.room.fetch_sub(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.disk.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is failing"));
        }
        self.file.sync()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        if self.disk.truncates_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is failing"));
        }
        self.file.truncate(length)
    }
}

fn open_faulty(directory: &Path, room: u64) -> (Log, Arc<Disk>) {
    let disk = Arc::new(Disk { room: room.into(), ..Disk::default() });
    let (log, _) =
        Log::open_on(directory, LogConfig::default(), Box::new(FaultyFiles(Arc::clone(&disk)))).unwrap();
    (log, disk)
}

/// One that keeps its records until they are released.
pub(crate) fn open_faulty_until_released(directory: &Path, disk: &Arc<Disk>) -> Log {
    let files = Box::new(FaultyFiles(Arc::clone(disk)));
    Log::open_until_released_on(directory, LogConfig::default(), 0, files).unwrap().0
}

/// Whether a batch stays uncompleted while the appender has had several tries.
fn stays_open(completed: &mpsc::Receiver<Appended>) -> bool {
    completed.recv_timeout(Duration::from_millis(150)).is_err()
}

#[test]
fn a_full_disk_completes_nothing_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (log, disk) = open_faulty(directory.path(), 1_000);
    store(&log, 0..5);
    let completed = submit(&log, batch(&log, 5..50));
    assert!(stays_open(&completed));
    assert_eq!(contents(directory.path()).0.first(), Some(&0), "readers are not disturbed");
    disk.room.store(1 << 20, Ordering::SeqCst);
    assert_eq!(completed.recv_timeout(DEADLINE).unwrap().first_offset, 6);
    store(&log, 50..60);
    drop(log);
    assert_eq!(contents(directory.path()), ((0..60).collect(), vec![]));
}

#[test]
fn a_part_that_cannot_be_cut_off_is_left_behind_in_its_segment() {
    let directory = tempfile::tempdir().unwrap();
    let (log, disk) = open_faulty(directory.path(), 1_000);
    store(&log, 0..5);
    disk.truncates_fail.store(true, Ordering::SeqCst);
    let completed = submit(&log, batch(&log, 5..50));
    assert!(stays_open(&completed));
    disk.room.store(1 << 20, Ordering::SeqCst);
    completed.recv_timeout(DEADLINE).unwrap();
    drop(log);
    assert_eq!(contents(directory.path()), ((0..50).collect(), vec![]));
}

#[test]
fn after_a_failed_sync_the_batch_stands_in_a_new_segment() {
    let directory = tempfile::tempdir().unwrap();
    let (log, disk) = open_faulty(directory.path(), 1 << 20);
    store(&log, 0..5);
    disk.syncs_fail.store(true, Ordering::SeqCst);
    let completed = submit(&log, batch(&log, 5..8));
    assert!(stays_open(&completed));
    disk.syncs_fail.store(false, Ordering::SeqCst);
    completed.recv_timeout(DEADLINE).unwrap();
    drop(log);
    assert_eq!(segment::list(directory.path()).unwrap(), [1, 6]);
    assert_eq!(contents(directory.path()), ((0..8).collect(), vec![]));
}

#[test]
fn a_sync_that_fails_in_the_first_segment_is_survived_too() {
    let directory = tempfile::tempdir().unwrap();
    let (log, disk) = open_faulty(directory.path(), 1 << 20);
    disk.syncs_fail.store(true, Ordering::SeqCst);
    let completed = submit(&log, batch(&log, 0..3));
    assert!(stays_open(&completed));
    disk.syncs_fail.store(false, Ordering::SeqCst);
    completed.recv_timeout(DEADLINE).unwrap();
    drop(log);
    assert_eq!(contents(directory.path()), ((0..3).collect(), vec![]));
}

#[test]
fn a_stalled_log_holds_its_callers_back_and_still_closes() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _disk) = open_faulty(directory.path(), 0);
    let big = |log: &Log| {
        let mut batch = log.batch();
        push(&mut batch, &vec![b'1'; LogConfig::default().queue_bytes_max as usize]);
        batch
    };
    let first = submit(&log, big(&log));
    assert!(log.try_append(big(&log), Box::new(|_| {})).unwrap().is_err(), "the queue is full");
    drop(log);
    assert!(first.recv().is_err(), "a batch that is not stored is never completed");
}

/// A task that was told and has not run.
#[derive(Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_comes_as_there_is_room_goes_behind_who_was_told_and_has_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let config = LogConfig { queue_bytes_max: 1_000, ..LogConfig::default() };
    let (log, _) = Log::open_on(directory.path(), config, Box::new(FaultyFiles(Arc::clone(&disk)))).unwrap();
    // Larger than the queue: it has all of it.
    let full = submit(&log, batch(&log, 0..50));
    let told = [(); 2].map(|()| Arc::new(Told::default()));
    let wakers = told.clone().map(Waker::from);
    let [mut one, mut two] = wakers.each_ref().map(Context::from_waker);
    let mut first = pin!(log.append(batch(&log, 50..51), Box::new(|_| {})));
    let mut second = pin!(log.append(batch(&log, 51..52), Box::new(|_| {})));
    assert!(first.as_mut().poll(&mut one).is_pending());
    disk.room.store(1 << 20, Ordering::SeqCst);
    full.recv_timeout(DEADLINE).unwrap();
    wait_until(|| told[0].0.load(Ordering::SeqCst));

    assert!(second.as_mut().poll(&mut two).is_pending());
    let third = log.try_append(batch(&log, 52..53), Box::new(|_| {}));
    assert!(third.unwrap().is_err(), "others wait");
    assert!(matches!(first.as_mut().poll(&mut one), Poll::Ready(Ok(()))));
    assert!(told[1].0.load(Ordering::SeqCst));
    assert!(matches!(second.as_mut().poll(&mut two), Poll::Ready(Ok(()))));
    store(&log, 53..54);
    assert_eq!(contents(directory.path()).0, [(0..52).collect(), vec![53]].concat());
}
