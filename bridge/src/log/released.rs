//! A log that keeps its records until they are released: what a spool needs beyond appending.
//!
//! Such a log is bounded by bytes and not by age. At its bound, or on a full disk, it stalls: what is queued waits, and may be taken back with
//! [`Log::reclaim`]. What is released goes with its segment; once everything is, nothing but an empty segment is left, whose name says where to
//! go on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::appender::Order;
use super::files::{Files, OsFiles};
use super::record::Batch;
use super::{Log, LogConfig, LogError, OnAppended, Recovered};

/// When a log lets go of closed segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// By the bounds of size and age of its configuration.
    WithinBounds,
    /// Not before their records are released; at the bound of size it takes nothing more.
    UntilReleased,
}

/// What the handle and the appender know of each other.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) closing: AtomicBool,
    /// The disk refuses, or the log is at its bound.
    pub(super) stalled: AtomicBool,
    /// Offset behind the last durable record.
    pub(super) stored: AtomicU64,
    /// Records below this offset are needed no more.
    pub(super) released: AtomicU64,
    /// Bytes of all segments.
    pub(super) bytes: AtomicU64,
    reclaim: Mutex<Option<Reclaim>>,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing")
            .field("stored", &self.stored)
            .field("released", &self.released)
            .field("stalled", &self.stalled)
            .finish_non_exhaustive()
    }
}

impl Standing {
    /// Whoever wants back what is queued.
    pub(super) fn take_reclaim(&self) -> Option<Reclaim> {
        self.reclaim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where to give back what is queued, with the offset behind what was stored before.
type Reclaim = oneshot::Sender<(u64, Vec<Reclaimed>)>;

/// A batch that the log never stored, with its share of the queue.
pub(crate) struct Reclaimed {
    pub(crate) batch: Batch,
    /// Never called.
    pub(crate) done: OnAppended,
    /// The queue has its room again once this is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Log {
    /// Opens a log that keeps records until they are released and never holds more than [`LogConfig::retention_bytes_max`]. Everything below `released`
    /// is released already; offsets go on from there even if its segments are gone.
    pub(crate) fn open_until_released(
        directory: &Path,
        config: LogConfig,
        released: u64,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_until_released_on(directory, config, released, Box::new(OsFiles))
    }

    pub(super) fn open_until_released_on(
        directory: &Path,
        config: LogConfig,
        released: u64,
        files: Box<dyn Files>,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_keeping(directory, config, Keep::UntilReleased, released, files)
    }

    /// Offset behind the last record that is durable.
    pub(crate) fn stored(&self) -> u64 {
        self.standing.stored.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.standing.bytes.load(Ordering::Relaxed)
    }

    /// Whether it cannot store right now: at its bound, or the disk refuses.
    pub fn is_stalled(&self) -> bool {
        self.standing.stalled.load(Ordering::Acquire)
    }

    /// Records below `before` are needed no more.
    pub(crate) fn release(&self, before: u64) {
        if self.standing.released.fetch_max(before, Ordering::AcqRel) < before {
            self.look();
        }
    }

    /// Takes back, in order, what a stalled log has queued, with the offset behind the records that were stored before; nothing if it is not stalled
    /// (any more).
    pub(crate) async fn reclaim(&self) -> (u64, Vec<Reclaimed>) {
        let (reclaim, reclaimed) = oneshot::channel();
        *self.standing.reclaim.lock().unwrap_or_else(PoisonError::into_inner) = Some(reclaim);
        self.look();
        reclaimed.await.unwrap_or_default()
    }

    /// Has the appender look at what it was told.
    fn look(&self) {
        // One that is gone has nothing to look after.
        let _ = self.orders.send(Order::Look);
        if let Some(appender) = &self.appender {
            appender.thread().unpark();
        }
    }
}
