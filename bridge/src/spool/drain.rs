//! Sends the sink what is in the spool, in order, as fast as it has room.
//!
//! It is the probe as well: the first records wait at the sink for as long as it is away, and what it says of them ends the outage.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::flights::{Flight, Ledger};
use crate::log::{Entry, Log, LogError, LogReader, LogRecord, Mark, Reclaimed, SpareBuffers};
use crate::metrics as names;
use crate::sink::{Lane, SinkClosed, Verdict};

/// Bytes of copies that may be on their way from the spool to the sink; beyond it the drain waits.
pub(super) const DRAIN_BYTES_MAX: usize = 8 << 20;
/// Sent off at once, at most: in bytes, unless one record is larger, and in records.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_RECORDS_MAX: u32 = 2_000;
/// Wait before frames that the sink gave back are tried again. It doubles as long as the first of them comes back again, because each try costs the
/// sink a beginning; up to `RETRY_MAX`.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
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
    /// A clone goes with each flight that the spool could not take, until the sink has stored it.
    past_spool: Arc<()>,
}

impl Drained {
    pub(super) fn starting_at(offset: u64) -> Self {
        Self { read_to: AtomicU64::new(offset), memory: Mutex::default(), past_spool: Arc::default() }
    }

    pub(super) fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Acquire)
    }

    /// Whether flights that the spool could not take wait for the sink, and their devices with them.
    pub(super) fn is_passing_spool(&self) -> bool {
        Arc::strong_count(&self.past_spool) > 1
    }

    /// Counts while no flight comes from the queue or leaves for the sink. Given are the records that wait here.
    pub(super) fn while_none_moves(&self, count: impl FnOnce(u64) -> u64) -> u64 {
        let memory = self.memory();
        count(memory.iter().map(|(_, flight)| u64::from(flight.left())).sum())
    }

    /// A flight leaves the queue and goes to the sink, behind those that were put here before and the spool's records below `after`.
    pub(super) fn put(&self, after: u64, leave: impl FnOnce() -> Option<Arc<Flight>>) {
        let mut memory = self.memory();
        memory.extend(leave().map(|flight| (after, flight)));
    }

    /// The next flight from memory, if it is its turn, with its number in the drain; else up to which offset the spool's records come first.
    fn turn(&self, drain: &Ledger) -> Result<(u64, Arc<Flight>), u64> {
        let mut memory = self.memory();
        let read_to = self.read_to();
        match memory.pop_front_if(|(after, _)| *after <= read_to) {
            Some((_, flight)) => Ok((drain.insert(Arc::clone(&flight), 0), flight)),
            None => Err(memory.front().map_or(u64::MAX, |&(after, _)| after)),
        }
    }

    fn memory(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<Flight>)>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spool as it is read.
pub(super) struct Spooled {
    directory: PathBuf,
    /// None: it begins anew where the spool was read to.
    reader: Option<LogReader>,
    /// Where this process began. What is missing there was drained by an earlier one, whose mark may not have survived a power cut.
    began_at: u64,
    mark: Mark,
    synced_at: Instant,
    mark_fails: bool,
    /// Records before this offset may have been sent by an earlier process.
    resent_below: u64,
}

impl Spooled {
    pub(super) fn new(directory: PathBuf, mark: Mark, log: &Log) -> Result<Self, LogError> {
        let began_at = mark.drained().max(1);
        Ok(Self {
            reader: Some(LogReader::open_from(&directory, began_at)?),
            began_at,
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

    /// Reads the records of `span`, all of them durable, or the first of them: frames, and the offset behind them.
    fn read(
        &mut self,
        span: Range<u64>,
        spare: &SpareBuffers,
    ) -> Result<Option<(Arc<Flight>, u64)>, LogError> {
        let mut next = span.start;
        if span.is_empty() {
            return Ok(None);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(LogReader::open_from(&self.directory, next)?),
        };
        let mut batch = spare.take();
        while next < span.end && batch.len() < CHUNK_BYTES_MAX && batch.records() < CHUNK_RECORDS_MAX {
            match reader.next_entry() {
                Ok(Some(Entry::Record(record))) => {
                    if record.offset > next && next != self.began_at {
                        missing(record.offset - next, &format_args!("offset {next}"));
                    }
                    next = record.offset + 1;
                    batch.push(&LogRecord {
                        resent: record.resent || record.offset < self.resent_below,
                        ..record
                    });
                }
                Ok(Some(Entry::Damaged(damage))) => {
                    next = damage.first_missing + damage.missing;
                    missing(damage.missing, &damage);
                }
                // Durable and not to be found: its segment is gone.
                Ok(None) => break,
                Err(error) => {
                    // It may have passed what it did not give out.
                    self.reader = None;
                    if next == span.start {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        if next == span.start {
            return Ok(None);
        }
        let lost = move |run: Range<u32>, verdict| {
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
        Ok(Some((Flight::acknowledged(batch, Box::new(lost)), next)))
    }

    /// Forgets what was read ahead: behind the durable records lay some that went to the sink past the spool, and others have their offsets now.
    fn reopen(&mut self) {
        self.reader = None;
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

/// What retention never took and is not there was acknowledged.
fn missing(records: u64, place: &dyn std::fmt::Debug) {
    tracing::error!(records, ?place, "the spool is damaged: acknowledged frames are lost");
    metrics::counter!(names::FRAMES_LOST, "reason" => "damaged").increment(records);
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // At worst frames are sent twice after a power cut.
        let _ = self.mark.sync();
    }
}

/// How patiently frames that came back are tried again.
struct Retries {
    /// Number of the first flight that was tried.
    first: Option<u64>,
    wait: Duration,
}

impl Retries {
    fn new() -> Self {
        Self { first: None, wait: RETRY_AFTER }
    }

    /// How long to wait before the flights from `first` on are tried.
    fn wait(&mut self, first: Option<u64>) -> Duration {
        let again = first.is_some() && self.first == first;
        self.first = first;
        self.wait = if again { (self.wait * 2).min(RETRY_MAX) } else { RETRY_AFTER };
        self.wait
    }
}

/// Runs until the sink is closed.
pub(super) async fn drain(shared: Arc<Shared>, mut spooled: Option<Spooled>) {
    let (mut lane, mut retries) = (shared.primary.lane(), Retries::new());
    while step(&shared, &mut spooled, &mut lane, &mut retries).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// Sends something off, or waits for news.
async fn step(
    shared: &Arc<Shared>,
    spooled: &mut Option<Spooled>,
    lane: &mut Box<dyn Lane>,
    retries: &mut Retries,
) -> Result<(), SinkClosed> {
    if let (Some(spooled), Some(log)) = (spooled.as_mut(), &shared.log) {
        spooled.mark(shared.drain.done_to(), log);
    }
    if shared.drain.came_back() {
        return send_again(shared, lane, retries).await;
    }
    let limit = match shared.drained.turn(&shared.drain) {
        Ok((number, flight)) => return send(shared, number, &flight, lane.as_mut()).await,
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
    let span = shared.drained.read_to()..log.stored().min(limit);
    match spooled.read(span, &shared.spare) {
        Ok(Some((flight, end))) => {
            if end == limit {
                spooled.reopen();
            }
            let number = shared.drain.insert(Arc::clone(&flight), end);
            shared.drained.read_to.store(end, Ordering::Release);
            if flight.left() == 0 {
                // Nothing but damage.
                shared.drain.remove(number);
                return Ok(());
            }
            return send(shared, number, &flight, lane.as_mut()).await;
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
        if reclaim(shared, log).await {
            spooled.reopen();
        }
        return Ok(());
    }
    // A log that stalls tells nobody.
    let _ = tokio::time::timeout(RETRY_AFTER, shared.news.for_drain.notified()).await;
    Ok(())
}

/// Takes what the stalled spool has queued into memory, from where it goes to the sink; says whether that was anything.
async fn reclaim(shared: &Shared, log: &Log) -> bool {
    // Held from here on, so that nobody sees a spool between the two that seems to take something.
    let past = Arc::clone(&shared.drained.past_spool);
    let (after, reclaimed) = log.reclaim().await;
    let some = !reclaimed.is_empty();
    if some {
        tracing::debug!(batches = reclaimed.len(), "what waits for the spool goes to the sink past it");
    }
    for Reclaimed { batch, done, room } in reclaimed {
        shared.drained.put(after, || {
            let flight = shared.queued.remove(batch.ticket)?;
            flight.disown();
            flight.keep(batch);
            flight.occupy(room, Arc::clone(&past));
            Some(flight)
        });
        drop(done);
    }
    some
}

/// What the sink gave back is sent to it again, in order and before anything else, once it has spoken of all there is.
async fn send_again(
    shared: &Arc<Shared>,
    lane: &mut Box<dyn Lane>,
    retries: &mut Retries,
) -> Result<(), SinkClosed> {
    if !shared.drain.is_quiet() {
        shared.news.for_drain.notified().await;
        return Ok(());
    }
    let flights = shared.drain.all();
    let wait = retries.wait(flights.first().map(|&(number, _)| number));
    if wait == RETRY_AFTER * 2 {
        tracing::warn!("the sink gives back the same frames again; they are tried at ever longer intervals");
    }
    tokio::time::sleep(wait).await;
    shared.drain.seen_to();
    // A sink that lost its way takes nothing until it is told that all was seen.
    shared.primary.withdraw();
    // One that was asked too early may remember its answer.
    *lane = shared.primary.lane();
    for (number, flight) in flights {
        flight.turn_back();
        shared.drain.reopen(number);
        send(shared, number, &flight, lane.as_mut()).await?;
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
    lane.carry_acknowledged(flight.is_acknowledged());
    for (number, frame) in (0..).zip(batch.iter()) {
        lane.push(&frame, flight.wants_receipt(number));
    }
    flight.keep(batch);
    let mut reporter = shared.drain.reporter(number, flight);
    lane.send(Box::new(move |run, verdict| reporter.report(run, verdict))).await
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::log::LogConfig;
    use crate::log::tests::failing_disk::{Disk, open_faulty_until_released};
    use crate::log::tests::{batch, reclaim, store, submit, wait_until};

    fn spooled(directory: &Path, log: &Log) -> Spooled {
        Spooled::new(directory.to_owned(), Mark::open(directory).unwrap(), log).unwrap()
    }

    /// What a read gives, as numbers, and the offset behind it.
    fn read(spooled: &mut Spooled, span: Range<u64>) -> Result<(Vec<u64>, u64), LogError> {
        let start = span.start;
        let Some((flight, end)) = spooled.read(span, &SpareBuffers::default())? else {
            return Ok((Vec::new(), start));
        };
        let number = |frame: LogRecord<'_>| {
            std::str::from_utf8(frame.message.payload).unwrap().parse::<u64>().unwrap()
        };
        let numbers = flight.take().iter().map(number).collect();
        Ok((numbers, end))
    }

    #[test]
    fn what_comes_back_time_and_again_is_tried_ever_more_seldom() {
        let mut retries = Retries::new();
        let mut waits = |first: u64| retries.wait(Some(first)).as_millis();
        assert_eq!([7; 8].map(&mut waits), [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!([8, 9, 9].map(waits), [100, 100, 200], "the first was taken meanwhile");
    }

    #[test]
    fn a_spool_that_cannot_be_read_for_a_moment_loses_none_of_its_records() {
        let directory = tempfile::tempdir().unwrap();
        let (here, away) = (directory.path().join("spool"), directory.path().join("away"));
        let config = LogConfig { segment_bytes_max: 1_000, ..LogConfig::default() };
        let (log, _) = Log::open(&here, config).unwrap();
        for number in 0..30 {
            store(&log, number..number + 1);
        }
        let mut spooled = spooled(&here, &log);
        drop(log);
        let (mut numbers, mut next) = read(&mut spooled, 1..2).unwrap();
        // The segment is open; the next one cannot be.
        std::fs::rename(&here, &away).unwrap();
        while let Ok((more, end)) = read(&mut spooled, next..31) {
            assert!(end > next, "what is durable is there");
            numbers.extend(more);
            next = end;
        }
        assert!(next < 31, "there are several segments");
        std::fs::rename(&away, &here).unwrap();
        while next < 31 {
            let (more, end) = read(&mut spooled, next..31).unwrap();
            numbers.extend(more);
            next = end;
        }
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_reclaimed_is_not_read_in_place_of_what_has_its_offsets_now() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk { room: AtomicU64::new(1 << 20), ..Disk::default() });
        let log = open_faulty_until_released(directory.path(), &disk);
        store(&log, 0..2);
        let mut spooled = spooled(directory.path(), &log);
        disk.syncs_fail.store(true, Ordering::SeqCst);
        disk.truncates_fail.store(true, Ordering::SeqCst);
        let _never = submit(&log, batch(&log, 2..12));
        wait_until(|| log.is_stalled());
        assert_eq!(read(&mut spooled, 1..3).unwrap(), (vec![0, 1], 3));
        assert_eq!(reclaim(&log).len(), 1);
        spooled.reopen();
        disk.syncs_fail.store(false, Ordering::SeqCst);
        store(&log, 42..62);
        assert_eq!(read(&mut spooled, 3..log.stored()).unwrap(), ((42..62).collect(), 23));
    }
}
