//! The segmented local log: sink of `dev`, and the spool that bridges an outage of Kafka.
//!
//! A directory of segments named after their first offset, each a header and records with a CRC. One thread appends: it takes every
//! batch that waits, writes them at once, syncs once, and then completes them all, so the more load, the fewer syncs a record costs.
//! Nothing is completed before it would survive a power cut.
//!
//! Knows nothing of links or devices. Start with [`Log`] for writing, [`LogReader`] for reading; `record` and `segment` hold the
//! format, `appender` what happens when the disk is full or failing.

mod appender;
mod files;
mod lock;
mod mark;
mod reader;
mod record;
mod recovery;
mod released;
mod retention;
mod segment;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, TryAcquireError};

pub(crate) use mark::Mark;
pub use reader::{Damage, Entry, LogReader, Verdict, is_log, next_offset, verify};
pub use record::{Batch, LogRecord};
pub use recovery::Recovered;
pub(crate) use released::Reclaimed;

use appender::{Appender, Order, Waiting};
use files::{Files, OsFiles};
use lock::DirectoryLock;
use released::{Keep, Standing};

/// Bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is closed before it grows beyond this many bytes (a single batch may be larger).
    pub segment_bytes_max: u64,
    /// Closed segments go, oldest first, while all together hold more than this many bytes.
    pub retention_bytes_max: u64,
    /// Closed segments go once their last write is older than this.
    pub retention_age_max: Duration,
    /// Bytes of batches that may wait for the disk; when full, [`Log::append`] waits, and so do the devices behind it.
    pub queue_bytes_max: u32,
    /// Least time between two syncs while little waits (64 KiB); a batch that comes sooner waits for company. A sync costs some 150 us of CPU
    /// however little it stores. After a pause a batch is synced at once. Frames with QoS 0 alone, for which nobody waits, are synced every 20 ms
    /// or 256 KiB.
    pub linger: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: 64 << 20,
            retention_bytes_max: 4 << 30,
            retention_age_max: Duration::from_hours(7 * 24),
            queue_bytes_max: 32 << 20,
            linger: Duration::from_millis(1),
        }
    }
}

/// Why a log cannot be opened or read; one line that says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has it open for writing.
    #[error("log directory {0} is in use by another process: stop that one, or name another directory")]
    Locked(PathBuf),
    /// The directory or a file in it does not let us in.
    #[error("log directory {directory} cannot be {wish}: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What was tried, as a participle.
        wish: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A segment was written by another version.
    #[error(
        "{file} has log format {found}, this version reads {known}: use the version that wrote it, or move the file away"
    )]
    Version {
        /// The segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    fn directory(directory: &Path, wish: &'static str, source: io::Error) -> Self {
        Self::Directory { directory: directory.to_owned(), wish, source }
    }
}

/// What became of a batch: its records are durable at consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub first_offset: u64,
}

/// Called on the appender's thread once the batch is durable; dropped uncalled if the log closes before that. Must not block.
pub type OnAppended = Box<dyn FnOnce(Appended) + Send>;

/// A log open for writing. Dropping it stores what is queued and closes it.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    /// Permits are bytes of [`LogConfig::queue_bytes_max`]; a batch holds its own until it is completed.
    room: Arc<Semaphore>,
    /// Whoever waits for room, in order. One that was given its permits may not have run: who comes then would be stored before it.
    line: tokio::sync::Mutex<()>,
    queue_bytes_max: u32,
    orders: mpsc::Sender<Order>,
    spare: Arc<SpareBuffers>,
    standing: Arc<Standing>,
    appender: Option<JoinHandle<()>>,
    _lock: DirectoryLock,
}

impl Log {
    /// Opens `directory`, creating it if need be, and cuts off what a crash left half written.
    pub fn open(directory: &Path, config: LogConfig) -> Result<(Self, Recovered), LogError> {
        Self::open_on(directory, config, Box::new(OsFiles))
    }

    fn open_on(
        directory: &Path,
        config: LogConfig,
        files: Box<dyn Files>,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_keeping(directory, config, Keep::WithinBounds, 0, files)
    }

    fn open_keeping(
        directory: &Path,
        config: LogConfig,
        keep: Keep,
        released: u64,
        mut files: Box<dyn Files>,
    ) -> Result<(Self, Recovered), LogError> {
        std::fs::create_dir_all(directory)
            .map_err(|error| LogError::directory(directory, "created", error))?;
        let lock = DirectoryLock::take(directory)?;
        let (mut tail, mut recovered) = recovery::recover(directory, files.as_mut())?;
        if recovered.next_offset < released {
            // The segments of what was released are gone. Its offsets are not given a second time.
            tail.begin_at(released);
            recovered.next_offset = released;
        }
        if recovered.cut_bytes > 0 {
            tracing::warn!(
                directory = %directory.display(),
                bytes = recovered.cut_bytes,
                "the log ended in a record that was never completed; it was cut off",
            );
        }
        let room = Arc::new(Semaphore::new(config.queue_bytes_max as usize));
        let spare = Arc::new(SpareBuffers::default());
        let standing = Arc::new(Standing::default());
        standing.stored.store(recovered.next_offset, Ordering::Release);
        standing.released.store(released, Ordering::Release);
        let (orders, inbox) = mpsc::channel();
        let appender =
            Appender::new(directory, config, keep, files, tail, Arc::clone(&spare), Arc::clone(&standing));
        let appender = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || appender.run(&inbox))
            .map_err(|error| LogError::directory(directory, "given a thread", error))?;
        let log = Self {
            directory: directory.to_owned(),
            room,
            line: tokio::sync::Mutex::default(),
            queue_bytes_max: config.queue_bytes_max,
            orders,
            spare,
            standing,
            appender: Some(appender),
            _lock: lock,
        };
        Ok((log, recovered))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An empty batch, with a used buffer if one is spare.
    pub fn batch(&self) -> Batch {
        self.spare.take()
    }

    /// Queues a batch; `done` is called once it is durable. Waits while the queue is full: that is the backpressure, so a caller
    /// must not go on gathering meanwhile. Batches are stored in the order in which these futures were
    /// first polled, so one that is no longer polled holds up all that came later.
    pub async fn append(&self, batch: Batch, done: OnAppended) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        let _turn = self.line.lock().await;
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(self.permits(&batch))
            .await
            .map_err(|_| LogError::Closed)?;
        self.orders.send(Order::Append(Waiting::new(batch, done, permit))).map_err(|_| LogError::Closed)
    }

    /// Like [`Log::append`], but gives the batch and its callback back at once if there is no room, or others wait for it.
    pub fn try_append(
        &self,
        batch: Batch,
        done: OnAppended,
    ) -> Result<Result<(), (Batch, OnAppended)>, LogError> {
        if batch.is_empty() {
            return Ok(Ok(()));
        }
        let Ok(_turn) = self.line.try_lock() else { return Ok(Err((batch, done))) };
        match Arc::clone(&self.room).try_acquire_many_owned(self.permits(&batch)) {
            Ok(permit) => {
                let waiting = Waiting::new(batch, done, permit);
                self.orders.send(Order::Append(waiting)).map(Ok).map_err(|_| LogError::Closed)
            }
            Err(TryAcquireError::NoPermits) => Ok(Err((batch, done))),
            Err(TryAcquireError::Closed) => Err(LogError::Closed),
        }
    }

    /// A batch larger than the whole queue takes all of it, rather than waiting for ever.
    fn permits(&self, batch: &Batch) -> u32 {
        (batch.len().min(self.queue_bytes_max as usize)) as u32
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A healthy appender stores all that is queued before it reads this order; a stalled one sees the flag
        // and gives up, leaving its batches uncompleted.
        self.standing.closing.store(true, Ordering::Release);
        let _ = self.orders.send(Order::Close);
        if let Some(appender) = self.appender.take() {
            appender.thread().unpark();
            let _ = appender.join();
        }
    }
}

/// Buffers of stored batches, ready for the next ones. At most [`SpareBuffers::COUNT_MAX`] of at most
/// [`SpareBuffers::BYTES_MAX`] each are kept (16 MiB); what is beyond is freed.
#[derive(Debug, Default)]
pub(crate) struct SpareBuffers(Mutex<Vec<Batch>>);

impl SpareBuffers {
    const COUNT_MAX: usize = 16;
    const BYTES_MAX: usize = 1 << 20;

    pub(crate) fn take(&self) -> Batch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn put(&self, mut batch: Batch) {
        batch.clear();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::COUNT_MAX && batch.capacity() <= Self::BYTES_MAX {
            spare.push(batch);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
