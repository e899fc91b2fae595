//! Sends the sink what is in the spool, in order, as fast as it has room.
//!
//! It is the probe as well: the first records wait at the sink for as long as it is away, and what it says of them ends the outage.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::flights::Flight;
use crate::log::{Entry, Log, LogError, LogReader, LogRecord, Mark, Reclaimed};
use crate::metrics as names;
use crate::sink::{Lane, SinkClosed, Verdict};

/// Bytes of copies that may be on their way from the spool to the sink; beyond it the drain waits.
pub(super) const DRAIN_BYTES_MAX: usize = 8 << 20;
/// Sent off at once, at most: in bytes, unless one record is larger, and in records.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_RECORDS_MAX: u32 = 2_000;
/// Wait before frames that the sink gave back are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often the mark is made to survive a power cut; the end of the process it survives at once.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// What the drain tells the others.
#[derive(Default)]
pub(super) struct Drained {
    /// Offset behind the last record that was taken from the spool.
    read_to: AtomicU64,
    /// Flights that never reached the spool, each with the offset behind the spool's records that come before it; ascending. They are unsettled at their
    /// links, whose windows bound them.
    memory: Mutex<VecDeque<(u64, Arc<Flight>)>>,
}

impl Drained {
    pub(super) fn starting_at(offset: u64) -> Self {
        Self { read_to: AtomicU64::new(offset), memory: Mutex::default() }
    }

    pub(super) fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Acquire)
    }

    pub(super) fn in_memory(&self) -> u64 {
        self.memory().iter().map(|(_, flight)| u64::from(flight.left())).sum()
    }

    /// A flight goes to the sink, behind those that were put here before and the spool's records below `after`.
    pub(super) fn put(&self, after: u64, flight: Arc<Flight>) {
        self.memory().push_back((after, flight));
    }

    /// The next flight from memory, if it is its turn; else up to which offset the spool's records come first.
    fn turn(&self) -> Result<Arc<Flight>, u64> {
        let mut memory = self.memory();
        let read_to = self.read_to();
        let next = memory.pop_front_if(|(after, _)| *after <= read_to);
        next.map(|(_, flight)| flight).ok_or_else(|| memory.front().map_or(u64::MAX, |&(after, _)| after))
    }

    fn memory(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<Flight>)>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spool as it is read.
pub(super) struct Spooled {
    directory: PathBuf,
    reader: LogReader,
    mark: Mark,
    synced_at: Instant,
    mark_fails: bool,
    /// Records before this offset may have been sent by an earlier process.
    resent_below: u64,
}

impl Spooled {
    pub(super) fn new(directory: PathBuf, mark: Mark, log: &Log) -> Result<Self, LogError> {
        Ok(Self {
            reader: LogReader::open_from(&directory, mark.drained().max(1))?,
            directory,
            synced_at: Instant::now(),
            mark_fails: false,
            resent_below: log.stored(),
            mark,
        })
    }

    /// Offset of the first record that is not drained.
    pub(super) fn drained(&self) -> u64 {
        self.mark.drained().max(1)
    }

    /// Reads what is durable, from `read_to` on and below `limit`: frames, and the offset behind them.
    fn read(
        &mut self,
        shared: &Shared,
        log: &Log,
        limit: u64,
    ) -> Result<Option<(Arc<Flight>, u64)>, LogError> {
        let (from, end) = (shared.drained.read_to(), log.stored().min(limit));
        let mut batch = shared.spare.take();
        let mut next = from;
        while next < end && batch.len() < CHUNK_BYTES_MAX && batch.records() < CHUNK_RECORDS_MAX {
            match self.reader.next_entry()? {
                Some(Entry::Record(record)) => {
                    next = record.offset + 1;
                    batch.push(&LogRecord {
                        resent: record.resent || record.offset < self.resent_below,
                        ..record
                    });
                }
                Some(Entry::Damaged(damage)) => {
                    next = damage.first_missing + damage.missing;
                    // What retention never took and is not there was acknowledged.
                    tracing::error!(?damage, "the spool is damaged: acknowledged frames are lost");
                    metrics::counter!(names::FRAMES_LOST, "reason" => "damaged").increment(damage.missing);
                }
                // Durable and not to be found: its segment is gone.
                None => break,
            }
        }
        if next == from {
            return Ok(None);
        }
        let records = batch.records();
        let lost = move |run: std::ops::Range<u32>, verdict| {
            if let Verdict::Refused(reason_code) = verdict {
                let frames = run.end - run.start;
                tracing::error!(
                    frames,
                    reason_code,
                    "the sink refuses frames for good that were acknowledged from the spool: they are lost"
                );
                metrics::counter!(names::FRAMES_LOST, "reason" => "refused").increment(u64::from(frames));
            }
        };
        Ok(Some((Flight::new(batch, records, None, Box::new(lost)), next)))
    }

    /// What the sink has is drained: it need not be read again, and its segments go.
    fn mark(&mut self, drained: u64, log: &Log) {
        if drained <= self.mark.drained() {
            return;
        }
        let mut written = self.mark.write(drained);
        if self.synced_at.elapsed() >= SYNC_EVERY {
            self.synced_at = Instant::now();
            written = written.and_then(|()| self.mark.sync());
        }
        match written {
            Ok(()) => self.mark_fails = false,
            Err(error) if !self.mark_fails => {
                self.mark_fails = true;
                tracing::error!(directory = %self.directory.display(), %error, "the spool's mark cannot be written: after a crash now, frames are sent to the sink a second time");
            }
            Err(_) => {}
        }
        log.release(drained);
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // At worst frames are sent twice after a power cut.
        let _ = self.mark.sync();
    }
}

/// Runs until the sink is closed.
pub(super) async fn drain(shared: Arc<Shared>, mut spooled: Option<Spooled>) {
    let mut lane = shared.primary.lane();
    while step(&shared, &mut spooled, lane.as_mut()).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// Sends something off, or waits for news.
async fn step(
    shared: &Arc<Shared>,
    spooled: &mut Option<Spooled>,
    lane: &mut dyn Lane,
) -> Result<(), SinkClosed> {
    if let (Some(spooled), Some(log)) = (spooled.as_mut(), &shared.log) {
        spooled.mark(shared.drain.done_to(), log);
    }
    if shared.drain.came_back() {
        return send_again(shared, lane).await;
    }
    let limit = match shared.drained.turn() {
        Ok(flight) => {
            let number = shared.drain.insert(Arc::clone(&flight), 0);
            return send(shared, number, &flight, lane).await;
        }
        Err(limit) => limit,
    };
    let (Some(spooled), Some(log)) = (spooled, &shared.log) else {
        shared.news.for_drain.notified().await;
        return Ok(());
    };
    if shared.drain.bytes() >= DRAIN_BYTES_MAX {
        shared.news.for_drain.notified().await;
        return Ok(());
    }
    match spooled.read(shared, log, limit) {
        Ok(Some((flight, end))) => {
            let number = shared.drain.insert(Arc::clone(&flight), end);
            shared.drained.read_to.store(end, Ordering::Release);
            if flight.left() == 0 {
                // Nothing but damage.
                shared.drain.remove(number);
                return Ok(());
            }
            return send(shared, number, &flight, lane).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, "the spool cannot be read; it is tried again");
            tokio::time::sleep(RETRY_AFTER * 10).await;
            return Ok(());
        }
    }
    if log.is_stalled() && shared.drained.read_to() >= log.stored() {
        // Nothing is left to make room by. What is queued goes to the sink past the spool.
        reclaim(shared, log).await;
        return Ok(());
    }
    // A log that stalls tells nobody.
    let _ = tokio::time::timeout(RETRY_AFTER, shared.news.for_drain.notified()).await;
    Ok(())
}

/// Takes what the stalled spool has queued into memory, from where it goes to the sink.
async fn reclaim(shared: &Shared, log: &Log) {
    let (after, reclaimed) = log.reclaim().await;
    if !reclaimed.is_empty() {
        tracing::debug!(batches = reclaimed.len(), "what waits for the spool goes to the sink past it");
    }
    for Reclaimed { batch, done, room } in reclaimed {
        if let Some(flight) = shared.queued.remove(batch.ticket) {
            flight.disown();
            flight.keep(batch);
            flight.occupy(room);
            shared.drained.put(after, flight);
        }
        drop(done);
    }
}

/// What the sink gave back is sent to it again, in order and before anything else, once it has spoken of all there is.
async fn send_again(shared: &Arc<Shared>, lane: &mut dyn Lane) -> Result<(), SinkClosed> {
    if !shared.drain.is_quiet() {
        shared.news.for_drain.notified().await;
        return Ok(());
    }
    tokio::time::sleep(RETRY_AFTER).await;
    shared.drain.seen_to();
    let flights = shared.drain.all();
    // A sink that lost its way takes nothing until it is told that all was seen.
    shared.primary.withdraw();
    for (number, flight) in flights {
        flight.turn_back();
        shared.drain.reopen(number);
        send(shared, number, &flight, lane).await?;
        if shared.drain.came_back() {
            break;
        }
    }
    Ok(())
}

async fn send(
    shared: &Arc<Shared>,
    number: u64,
    flight: &Arc<Flight>,
    lane: &mut dyn Lane,
) -> Result<(), SinkClosed> {
    let batch = flight.take();
    for frame in batch.iter() {
        lane.push(&frame, false);
    }
    flight.keep(batch);
    let mut reporter = shared.drain.reporter(number, flight);
    lane.send(Box::new(move |run, verdict| reporter.report(run, verdict))).await
}
