//! The one thread that writes: gathers what waits, writes it at once, syncs once, completes all.
//!
//! ```text
//!            write fails                 truncate to the synced length, wait, try again
//!   Store ──────────────────> Stalled ─────────────────────────────────────────────────┐
//!     │      sync fails                  new segment, wait, try again                   │
//!     └── synced ─> complete  <────────────────────────────────────────────────────────┘
//! ```
//!
//! While it is stalled nothing is completed, the queue fills, and callers wait: the devices are held back by TCP.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedSemaphorePermit;

use super::files::{Files, SegmentFile};
use super::record::Batch;
use super::recovery::{Active, Tail};
use super::released::{Keep, Reclaimed, Standing};
use super::retention::{Closed, expire, release};
use super::segment::{self, HEADER_BYTES};
use super::{Appended, LogConfig, OnAppended, SpareBuffers};
use crate::metrics as names;

/// Most bytes written and synced at once. More would delay the first record's completion for the sake of the last.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most batches in one vectored write (the kernel takes 1,024 pieces).
const GROUP_BATCHES_MAX: usize = 512;
/// Less than this waits for company, see [`LogConfig::linger`].
const LITTLE_BYTES: usize = 64 << 10;
/// How long at least it waits before it looks whether enough has come meanwhile.
const LINGER_SLICE: Duration = Duration::from_micros(250);
/// The same three for frames that nobody waits for (QoS 0): they cost no sync of their own where there are others, and few where there are none.
/// A quarter of the least window of a link and of the least queue, so that neither runs full for it.
const UNAWAITED_BYTES: usize = 256 << 10;
const UNAWAITED_LINGER: Duration = Duration::from_millis(20);
const UNAWAITED_SLICE: Duration = Duration::from_millis(1);
/// Bounds of the wait between two tries on a full or failing disk.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How often an idle log looks for segments beyond their age.
const RETENTION_EVERY: Duration = Duration::from_secs(30);

/// What the log's handle tells its thread.
pub(super) enum Order {
    Append(Waiting),
    /// Something was released, or what is queued is wanted back.
    Look,
    Close,
}

impl Order {
    fn batch(self) -> Option<Waiting> {
        match self {
            Self::Append(waiting) => Some(waiting),
            // What is closed says so itself, too; and who looks has been seen.
            Self::Look | Self::Close => None,
        }
    }
}

/// A batch in the queue, with its share of the queue's bytes.
pub(super) struct Waiting {
    batch: Batch,
    done: OnAppended,
    room: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) fn new(batch: Batch, done: OnAppended, room: OwnedSemaphorePermit) -> Self {
        Self { batch, done, room }
    }

    fn reclaim(self) -> Reclaimed {
        Reclaimed { batch: self.batch, done: self.done, room: self.room }
    }
}

pub(super) struct Appender {
    directory: PathBuf,
    config: LogConfig,
    keep: Keep,
    files: Box<dyn Files>,
    active: Option<Active>,
    /// A sync of the active segment failed, or a cut of it: nothing may be appended to it.
    suspect: bool,
    next_offset: u64,
    closed: VecDeque<Closed>,
    spare: Arc<SpareBuffers>,
    standing: Arc<Standing>,
}

impl Appender {
    pub(super) fn new(
        directory: &Path,
        config: LogConfig,
        keep: Keep,
        files: Box<dyn Files>,
        tail: Tail,
        spare: Arc<SpareBuffers>,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            config,
            keep,
            files,
            active: tail.active,
            suspect: false,
            next_offset: tail.next_offset,
            closed: tail.closed.into(),
            spare,
            standing,
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Order>) {
        self.drop_expired();
        let mut group = Group::default();
        let mut last_stored = Instant::now();
        loop {
            match inbox.recv_timeout(RETENTION_EVERY) {
                Ok(Order::Append(waiting)) => group.add(waiting),
                Ok(Order::Look) => self.look(),
                Ok(Order::Close) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.drop_expired(),
            }
            let mut close = gather(inbox, &mut group);
            while !close && let Some(wait) = group.wait(self.config.linger, last_stored.elapsed()) {
                // In slices rather than on the queue, where each batch would wake the thread for nothing.
                std::thread::sleep(wait);
                close = gather(inbox, &mut group);
            }
            if !group.batches.is_empty() && !self.store(&mut group.batches, inbox) {
                return;
            }
            group.clear();
            self.look();
            last_stored = Instant::now();
            if close {
                return;
            }
        }
    }

    /// Sees to what was released or wanted back meanwhile; a log that stores has nothing to give back.
    fn look(&mut self) {
        if self.keep == Keep::UntilReleased {
            drop(self.standing.take_reclaim());
            self.drop_expired();
        }
    }

    /// Stores a group and completes it, however long that takes, or gives it back if it is wanted; `false` if the log closed while the disk refused.
    fn store(&mut self, group: &mut Vec<Waiting>, inbox: &Receiver<Order>) -> bool {
        let first_offset = self.next_offset;
        let mut offset = first_offset;
        for waiting in &mut *group {
            waiting.batch.seal(offset);
            offset += u64::from(waiting.batch.records());
        }
        let mut stalled_since = None;
        let mut retry_after = RETRY_MIN;
        while let Err(error) = self.try_store(group) {
            let since = *stalled_since.get_or_insert_with(|| {
                tracing::error!(directory = %self.directory.display(), %error, "{}", self.stalls());
                self.set_stalled(true);
                Instant::now()
            });
            if self.standing.closing.load(Ordering::Acquire) {
                tracing::error!(
                    stalled_ms = since.elapsed().as_millis() as u64,
                    "the log closes without having stored its last records"
                );
                return false;
            }
            if let Some(reclaim) = self.standing.take_reclaim() {
                self.forget_unsynced();
                let queued = std::iter::from_fn(|| inbox.try_recv().ok()).filter_map(Order::batch);
                let reclaimed: Vec<Reclaimed> = group.drain(..).chain(queued).map(Waiting::reclaim).collect();
                self.set_stalled(false);
                // Nobody waits for them any more if the handle is gone.
                let _ = reclaim.send((first_offset, reclaimed));
                return !self.standing.closing.load(Ordering::Acquire);
            }
            self.drop_expired();
            std::thread::park_timeout(retry_after);
            retry_after = (retry_after * 2).min(RETRY_MAX);
        }
        if let Some(since) = stalled_since {
            tracing::info!(directory = %self.directory.display(), stalled_ms = since.elapsed().as_millis() as u64, "the log stores again");
            self.set_stalled(false);
        }
        self.next_offset = offset;
        self.standing.stored.store(offset, Ordering::Release);
        metrics::counter!(names::LOG_RECORDS).increment(offset - first_offset);
        let mut offset = first_offset;
        for Waiting { batch, done, room: _room } in group.drain(..) {
            done(Appended { first_offset: offset });
            offset += u64::from(batch.records());
            self.spare.put(batch);
        }
        true
    }

    fn try_store(&mut self, group: &[Waiting]) -> io::Result<()> {
        let bytes: usize = group.iter().map(|waiting| waiting.batch.len()).sum();
        if self.keep == Keep::UntilReleased {
            let held = self.held_bytes();
            // An empty log takes any group: one that never fits would never be stored.
            if held > HEADER_BYTES && held + bytes as u64 > self.config.retention_bytes_max {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!("it holds {held} of at most {} bytes", self.config.retention_bytes_max),
                ));
            }
        }
        let full = self.active.as_ref().is_some_and(|active| {
            active.bytes > HEADER_BYTES && active.bytes + bytes as u64 > self.config.segment_bytes_max
        });
        if self.suspect || full || self.active.is_none() {
            self.begin_segment()?;
        }
        let Some(active) = &mut self.active else { return Err(io::Error::other("no segment")) };
        if let Err(error) = append_all(active.file.as_mut(), group) {
            // Part of the group may stand there. If it cannot be cut off, a later append would leave it in the middle.
            self.suspect = active.file.truncate(active.bytes).is_err();
            return Err(error);
        }
        let started = Instant::now();
        if let Err(error) = active.file.sync() {
            // After a failed sync the kernel may hold pages as clean that never reached the disk, and a second sync would
            // report success for them. Only bytes written anew, to another file, can be trusted.
            self.suspect = true;
            return Err(error);
        }
        metrics::histogram!(names::LOG_FSYNC_SECONDS).record(started.elapsed().as_secs_f64());
        metrics::counter!(names::LOG_BYTES).increment(bytes as u64);
        active.bytes += bytes as u64;
        self.standing.bytes.store(self.held_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Leaves the active segment and begins one at the next offset.
    fn begin_segment(&mut self) -> io::Result<()> {
        if self.suspect
            && let Some(active) = &mut self.active
        {
            // What lies behind the last good sync will stand in the new segment. Best effort: a reader takes
            // offsets from the newer segment in any case.
            let _ = active.file.truncate(active.bytes);
        }
        let path = segment::path(&self.directory, self.next_offset);
        if self.active.as_ref().is_some_and(|active| active.first_offset == self.next_offset) {
            self.active = None;
        }
        // A file of this name holds nothing that was completed: it is the suspect segment, or an earlier try cut short.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.files.create(&path)?;
        let header = segment::header(self.next_offset);
        if let Err(error) = append_slices(file.as_mut(), &mut [IoSlice::new(&header)])
            .and_then(|()| self.files.sync_directory(&self.directory))
        {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let begun = Active { file, first_offset: self.next_offset, bytes: HEADER_BYTES };
        if let Some(left) = self.active.replace(begun) {
            self.closed.push_back(Closed {
                first_offset: left.first_offset,
                bytes: left.bytes,
                written_at: SystemTime::now(),
            });
        }
        self.suspect = false;
        self.drop_expired();
        Ok(())
    }

    /// Cuts off what a refused write left, so that it is not found as records later. Where that fails too, a segment begins anew.
    fn forget_unsynced(&mut self) {
        if let Some(active) = &mut self.active {
            self.suspect |= active.file.truncate(active.bytes).is_err();
        }
    }

    fn drop_expired(&mut self) {
        let gone = match self.keep {
            Keep::WithinBounds => {
                let active_bytes = self.active.as_ref().map_or(0, |active| active.bytes);
                expire(&mut self.closed, active_bytes, &self.config, SystemTime::now())
            }
            Keep::UntilReleased => {
                let released = self.standing.released.load(Ordering::Acquire);
                let held = self.active.as_ref().is_some_and(|active| active.bytes > HEADER_BYTES);
                if held && released == self.next_offset {
                    // An empty segment takes the place of all there are. Where there is no room for it yet, the next try will find some.
                    let _ = self.begin_segment();
                }
                let active = self.active.as_ref().map_or(self.next_offset, |active| active.first_offset);
                release(&mut self.closed, active, released)
            }
        };
        for segment in gone {
            // A file that cannot be removed now is found again when the log is opened next.
            if let Err(error) = std::fs::remove_file(segment::path(&self.directory, segment.first_offset)) {
                tracing::warn!(segment = segment.first_offset, %error, "an old segment cannot be removed");
            }
        }
        self.standing.bytes.store(self.held_bytes(), Ordering::Relaxed);
    }

    fn held_bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, |active| active.bytes);
        active + self.closed.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    fn set_stalled(&self, stalled: bool) {
        self.standing.stalled.store(stalled, Ordering::Release);
        // Of a spool its keeper tells, who knows more.
        if self.keep == Keep::WithinBounds {
            metrics::gauge!(names::LOG_STALLED).set(f64::from(u8::from(stalled)));
        }
    }

    fn stalls(&self) -> &'static str {
        match self.keep {
            Keep::WithinBounds => "the log cannot store; nothing is acknowledged until it can",
            Keep::UntilReleased => {
                "the spool is full or its disk refuses; devices are held back until there is room or the sink answers again"
            }
        }
    }
}

/// What is written and synced at once.
#[derive(Default)]
struct Group {
    batches: Vec<Waiting>,
    bytes: usize,
    /// Somebody waits for one of them.
    awaited: bool,
}

impl Group {
    fn add(&mut self, waiting: Waiting) {
        self.bytes += waiting.batch.len();
        self.awaited |= waiting.batch.is_awaited();
        self.batches.push(waiting);
    }

    /// How long to wait before looking for company again; none if it is to be stored now.
    fn wait(&self, linger: Duration, since_stored: Duration) -> Option<Duration> {
        let (enough, linger) = if self.awaited {
            (LITTLE_BYTES, linger)
        } else {
            (UNAWAITED_BYTES, linger.max(UNAWAITED_LINGER))
        };
        let early = linger.saturating_sub(since_stored);
        if !(1..enough).contains(&self.bytes) || early.is_zero() {
            return None;
        }
        let look_in = if self.awaited {
            // Each look costs a timer, so the next one is when there may be enough, going by what came so far.
            let (missing, came) = ((enough - self.bytes) as u32, self.bytes as u32);
            (since_stored * missing / came).max(LINGER_SLICE)
        } else {
            // Somebody may begin to wait.
            UNAWAITED_SLICE
        };
        Some(early.min(look_in))
    }

    /// Its batches have been completed.
    fn clear(&mut self) {
        debug_assert!(self.batches.is_empty());
        (self.bytes, self.awaited) = (0, false);
    }
}

/// Takes along what already waits, up to the bounds of a group; says whether the log is to close behind it.
fn gather(inbox: &Receiver<Order>, group: &mut Group) -> bool {
    while group.bytes < GROUP_BYTES_MAX && group.batches.len() < GROUP_BATCHES_MAX {
        match inbox.try_recv() {
            Ok(Order::Append(waiting)) => group.add(waiting),
            // Seen when the group is stored.
            Ok(Order::Look) => {}
            Ok(Order::Close) => return true,
            Err(_) => return false,
        }
    }
    false
}

fn append_all(file: &mut dyn SegmentFile, group: &[Waiting]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        group.iter().map(|waiting| IoSlice::new(waiting.batch.as_bytes())).collect();
    append_slices(file, &mut slices)
}

fn append_slices(file: &mut dyn SegmentFile, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.append(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_waits_longer_for_company_until_somebody_does() {
        let ms = Duration::from_millis;
        let mut group = Group { bytes: 1_000, ..Group::default() };
        assert_eq!(group.wait(ms(1), ms(3)), Some(UNAWAITED_SLICE));
        assert_eq!(group.wait(ms(1), ms(20)), None, "after a pause, and then once in a while");
        group.bytes = UNAWAITED_BYTES;
        assert_eq!(group.wait(ms(1), ms(3)), None);
        group = Group { bytes: 1_000, awaited: true, ..Group::default() };
        assert_eq!(group.wait(ms(1), ms(3)), None);
        let us = Duration::from_micros;
        assert_eq!(group.wait(ms(1), us(900)), Some(us(100)));
        assert_eq!(group.wait(ms(1), us(100)), Some(us(900)), "little comes: one look");
        group.bytes = LITTLE_BYTES / 2;
        assert_eq!(group.wait(ms(1), us(400)), Some(us(400)), "much comes");
        assert_eq!(group.wait(ms(1), us(10)), Some(LINGER_SLICE));
    }
}
