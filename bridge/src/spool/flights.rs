//! What is on its way: batches that were handed over and of which not every frame has been spoken of.
//!
//! A [`Flight`] keeps a copy of its frames, so that those which come back can go elsewhere. It stands in one [`Ledger`] at a time: `direct` (from a
//! lane to the sink), `queued` (from a lane to the spool) or `drain` (from the spool, or from memory, to the sink). What is in there is unsettled at
//! its link or at most [`DRAIN_BYTES_MAX`](super::drain::DRAIN_BYTES_MAX) of the spool, so the links' windows bound it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::log::{Batch, LogRecord, SpareBuffers};
use crate::sink::{OnSettled, Verdict};

/// A batch on its way.
pub(super) struct Flight {
    state: Mutex<Carried>,
    /// Nobody can be told of a refusal any more.
    acknowledged: bool,
}

struct Carried {
    settled: OnSettled,
    batch: Batch,
    /// What the frames of `batch` are called by `settled`; none if as they are counted.
    numbers: Option<Vec<Range<u32>>>,
    /// Frames of `batch` that want a receipt, as they are counted, ascending.
    receipts: Vec<u32>,
    /// Frames that were not spoken of since it was launched.
    left: u32,
    /// Frames that came back.
    withdrawn: Vec<Range<u32>>,
    /// Counts launches: a reporter of an earlier one has no say any more.
    launch: u32,
    /// The place in the spool's queue that it took before it was reclaimed, and word that it goes past the spool.
    room: Option<(OwnedSemaphorePermit, Arc<()>)>,
}

impl Flight {
    /// Frames that `settled` knows by `numbers`. What is launched is in `batch`; of a batch that goes to the spool nothing need be kept.
    pub(super) fn new(
        batch: Batch,
        records: u32,
        numbers: Option<Vec<Range<u32>>>,
        settled: OnSettled,
    ) -> Arc<Self> {
        Self::begin(batch, records, numbers, settled, false)
    }

    /// Frames whose devices believe them stored.
    pub(super) fn acknowledged(batch: Batch, settled: OnSettled) -> Arc<Self> {
        let left = batch.records();
        Self::begin(batch, left, None, settled, true)
    }

    fn begin(
        batch: Batch,
        left: u32,
        numbers: Option<Vec<Range<u32>>>,
        settled: OnSettled,
        acknowledged: bool,
    ) -> Arc<Self> {
        let state = Carried {
            settled,
            batch,
            numbers,
            receipts: Vec::new(),
            left,
            withdrawn: Vec::new(),
            launch: 0,
            room: None,
        };
        Arc::new(Self { state: Mutex::new(state), acknowledged })
    }

    /// These of its frames want a receipt, ascending.
    pub(super) fn want_receipts(&self, receipts: Vec<u32>) {
        self.state().receipts = receipts;
    }

    /// Whether its devices believe its frames stored.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Whether a frame of its copy wants a receipt.
    pub(super) fn wants_receipt(&self, number: u32) -> bool {
        self.state().receipts.binary_search(&number).is_ok()
    }

    /// Takes out its copy, to be put back with [`Flight::keep`].
    pub(super) fn take(&self) -> Batch {
        std::mem::take(&mut self.state().batch)
    }

    /// Keeps a copy.
    pub(super) fn keep(&self, batch: Batch) {
        self.state().batch = batch;
    }

    /// Its frames wait in the spool's queue no longer, and yet occupy it; they go `past` the spool.
    pub(super) fn occupy(&self, room: OwnedSemaphorePermit, past: Arc<()>) {
        self.state().room = Some((room, past));
    }

    /// Whoever was to report of it has no say any more.
    pub(super) fn disown(&self) {
        self.state().launch += 1;
    }

    /// Frames that were not spoken of.
    pub(super) fn left(&self) -> u32 {
        self.state().left
    }

    /// Leaves only what came back, marked as sent again, and says how many frames these are. Whoever reported of it has no say any more: the sink may
    /// let go of its callback later than it said the last word.
    pub(super) fn turn_back(&self) -> u32 {
        let mut state = self.state();
        state.launch += 1;
        let mut withdrawn = std::mem::take(&mut state.withdrawn);
        withdrawn.sort_unstable_by_key(|run| run.start);
        state.batch = state.batch.select(&withdrawn, true);
        state.renumber(&withdrawn);
        state.left = state.batch.records();
        state.left
    }

    /// Leaves out the frames of its copy for which there is a reason to refuse them, and tells so.
    pub(super) fn sift(&self, mut refuses: impl FnMut(&LogRecord<'_>) -> Option<u8>) {
        let mut state = self.state();
        let state = &mut *state;
        let mut kept: Vec<Range<u32>> = Vec::new();
        for (number, frame) in (0..).zip(state.batch.iter()) {
            if let Some(reason_code) = refuses(&frame) {
                for run in named(state.numbers.as_deref(), number..number + 1) {
                    (state.settled)(run, Verdict::Refused(reason_code));
                }
            } else if let Some(run) = kept.last_mut().filter(|run| run.end == number) {
                run.end += 1;
            } else {
                kept.push(number..number + 1);
            }
        }
        if kept.first() == Some(&(0..state.left)) {
            return;
        }
        state.batch = state.batch.select(&kept, false);
        state.renumber(&kept);
        state.left = state.batch.records();
    }

    fn state(&self) -> MutexGuard<'_, Carried> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carried {
    /// Only these of its frames are left: they have other numbers now, and their old names.
    fn renumber(&mut self, kept: &[Range<u32>]) {
        self.receipts = (0..)
            .zip(kept.iter().cloned().flatten())
            .filter(|(_, was)| self.receipts.binary_search(was).is_ok())
            .map(|(number, _)| number)
            .collect();
        self.numbers =
            Some(kept.iter().flat_map(|run| named(self.numbers.as_deref(), run.clone())).collect());
    }
}

/// What a run of a batch's frames is called where some of the original ones were left out.
fn named(numbers: Option<&[Range<u32>]>, run: Range<u32>) -> Vec<Range<u32>> {
    let Some(numbers) = numbers else { return vec![run] };
    let (mut before, mut names) = (0, Vec::new());
    for kept in numbers {
        let length = kept.end - kept.start;
        let (from, to) = (run.start.max(before), run.end.min(before + length));
        if from < to {
            names.push(kept.start + from - before..kept.start + to - before);
        }
        before += length;
    }
    names
}

/// All flights of one kind, in the order in which they were handed over.
pub(super) struct Ledger {
    flights: Mutex<Flights>,
    /// Verdicts of the sink, those of frames that come back left out.
    reports: AtomicU64,
    came_back: AtomicBool,
    /// Offset behind the spool's records that have all been spoken of.
    done_to: AtomicU64,
    /// Whether somebody waits for what becomes of these.
    pub(super) attended: AtomicBool,
    news: Arc<News>,
    spare: Arc<SpareBuffers>,
}

/// Those who are told when there is something to do.
#[derive(Default)]
pub(super) struct News {
    pub(super) for_keeper: Notify,
    pub(super) for_drain: Notify,
}

impl News {
    pub(super) fn tell(&self) {
        self.for_keeper.notify_one();
        self.for_drain.notify_one();
    }
}

#[derive(Default)]
struct Flights {
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u64,
    /// Slots whose flight is on its way.
    open: usize,
    records: u64,
    bytes: usize,
}

struct Slot {
    flight: Option<Arc<Flight>>,
    handed_at: Instant,
    /// Not every frame was spoken of.
    open: bool,
    records: u32,
    bytes: usize,
    /// Offset in the spool behind its last record; 0 for what does not come from there.
    end: u64,
}

impl Ledger {
    /// One whose news are told at the end of each flight if it is `attended`, else only when frames come back.
    pub(super) fn new(attended: bool, news: Arc<News>, spare: Arc<SpareBuffers>) -> Arc<Self> {
        Arc::new(Self {
            flights: Mutex::default(),
            reports: AtomicU64::new(0),
            came_back: AtomicBool::new(false),
            done_to: AtomicU64::new(0),
            attended: AtomicBool::new(attended),
            news,
            spare,
        })
    }

    /// A flight begins; its number.
    pub(super) fn insert(&self, flight: Arc<Flight>, end: u64) -> u64 {
        let (records, bytes) = {
            let state = flight.state();
            (state.left, state.batch.len())
        };
        let mut flights = self.flights();
        flights.slots.push_back(Slot {
            flight: Some(flight),
            handed_at: Instant::now(),
            open: true,
            records,
            bytes,
            end,
        });
        flights.open += 1;
        flights.records += u64::from(records);
        flights.bytes += bytes;
        flights.first + flights.slots.len() as u64 - 1
    }

    /// Who is to be told of a flight's frames, from this launch on.
    pub(super) fn reporter(self: &Arc<Self>, number: u64, flight: &Arc<Flight>) -> Reporter {
        let launch = {
            let mut state = flight.state();
            state.launch += 1;
            state.launch
        };
        Reporter { ledger: Arc::clone(self), flight: Arc::clone(flight), number, launch }
    }

    /// A flight of which all was spoken is on its way again. It counts as handed over when it first was: a sink that does nothing but give it back
    /// makes no progress.
    pub(super) fn reopen(&self, number: u64) {
        let mut flights = self.flights();
        let Some(at) = number.checked_sub(flights.first) else { return };
        let Some(slot) = flights.slots.get_mut(at as usize) else { return };
        if !slot.open {
            slot.open = true;
            flights.open += 1;
        }
    }

    /// The flight of this number, taken out.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<Flight>> {
        let mut flights = self.flights();
        let at = number.checked_sub(flights.first)? as usize;
        let slot = flights.slots.get_mut(at)?;
        let flight = slot.flight.take();
        let (was_open, records, bytes) = (slot.open && flight.is_some(), slot.records, slot.bytes);
        if flight.is_some() {
            flights.open -= usize::from(was_open);
            flights.records -= u64::from(records);
            flights.bytes -= bytes;
        }
        while let Some(slot) = flights.slots.pop_front_if(|slot| slot.flight.is_none()) {
            flights.first += 1;
            self.done_to.fetch_max(slot.end, Ordering::AcqRel);
        }
        flight
    }

    /// All flights, in order, with their numbers.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Flight>)> {
        let flights = self.flights();
        let numbered = (flights.first..).zip(&flights.slots);
        numbered.filter_map(|(number, slot)| Some((number, Arc::clone(slot.flight.as_ref()?)))).collect()
    }

    /// When the oldest of those that are on their way was handed over.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.flights().slots.iter().find(|slot| slot.flight.is_some() && slot.open).map(|slot| slot.handed_at)
    }

    /// When the oldest of all was handed over, those that came back included.
    pub(super) fn oldest_of_all(&self) -> Option<Instant> {
        self.flights().slots.iter().find(|slot| slot.flight.is_some()).map(|slot| slot.handed_at)
    }

    /// Whether all frames of all flights were spoken of.
    pub(super) fn is_quiet(&self) -> bool {
        self.flights().open == 0
    }

    /// Records of all flights.
    pub(super) fn records(&self) -> u64 {
        self.flights().records
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> usize {
        self.flights().bytes
    }

    pub(super) fn reports(&self) -> u64 {
        self.reports.load(Ordering::Acquire)
    }

    /// Nothing below this offset is on its way.
    pub(super) fn begin_at(&self, offset: u64) {
        self.done_to.fetch_max(offset, Ordering::AcqRel);
    }

    pub(super) fn done_to(&self) -> u64 {
        self.done_to.load(Ordering::Acquire)
    }

    /// Whether frames came back since this was last said to be seen to.
    pub(super) fn came_back(&self) -> bool {
        self.came_back.load(Ordering::Acquire)
    }

    pub(super) fn seen_to(&self) {
        self.came_back.store(false, Ordering::Release);
    }

    fn tell(&self) {
        self.news.tell();
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in what becomes of one flight's frames. Dropped, it gives up those that nobody spoke of: their link is gone, or the sink is closed.
pub(super) struct Reporter {
    ledger: Arc<Ledger>,
    flight: Arc<Flight>,
    number: u64,
    launch: u32,
}

impl Reporter {
    pub(super) fn report(&mut self, run: Range<u32>, verdict: Verdict) {
        if self.take_in(run, verdict) {
            self.end();
        }
    }

    /// Whether nothing more is to come.
    fn take_in(&self, run: Range<u32>, verdict: Verdict) -> bool {
        let mut state = self.flight.state();
        let state = &mut *state;
        if state.launch != self.launch {
            return false;
        }
        state.left = state.left.saturating_sub(run.end - run.start);
        if verdict == Verdict::Withdrawn {
            state.withdrawn.push(run);
            if !self.ledger.came_back.swap(true, Ordering::AcqRel) {
                self.ledger.tell();
            }
        } else {
            match &state.numbers {
                None => (state.settled)(run, verdict),
                Some(numbers) => {
                    for run in named(Some(numbers), run) {
                        (state.settled)(run, verdict.clone());
                    }
                }
            }
            self.ledger.reports.fetch_add(1, Ordering::AcqRel);
        }
        state.left == 0
    }

    /// Nothing more will be said of it. What came back stays until somebody sees to it.
    fn end(&self) {
        let mut state = self.flight.state();
        if state.withdrawn.is_empty() {
            self.ledger.spare.put(std::mem::take(&mut state.batch));
            drop(state);
            self.ledger.remove(self.number);
        } else {
            drop(state);
            let mut flights = self.ledger.flights();
            let at = self.number.checked_sub(flights.first);
            if let Some(slot) = at.and_then(|at| flights.slots.get_mut(at as usize))
                && slot.open
            {
                slot.open = false;
                flights.open -= 1;
            }
        }
        if self.ledger.attended.load(Ordering::Acquire) || self.ledger.came_back() {
            self.ledger.tell();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let mut state = self.flight.state();
        if state.launch == self.launch && state.left > 0 {
            state.left = 0;
            drop(state);
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_still_wants_its_receipts() {
        let mut batch = Batch::default();
        (0..8).for_each(|_| batch.push(&crate::log::tests::frame()));
        let flight = Flight::new(batch, 8, None, Box::new(|_, _| {}));
        flight.want_receipts(vec![1, 4, 6]);
        flight.state().withdrawn = vec![4..7, 1..2];
        assert_eq!(flight.turn_back(), 4);
        assert_eq!([0, 1, 2, 3].map(|number| flight.wants_receipt(number)), [true, true, false, true]);
    }

    #[test]
    fn what_is_left_of_a_sifted_batch_still_wants_its_receipts() {
        let mut batch = Batch::default();
        (0..4).for_each(|id| {
            let mut frame = crate::log::tests::frame();
            frame.message.id = id;
            batch.push(&frame);
        });
        let flight = Flight::new(batch, 4, None, Box::new(|_, _| {}));
        flight.want_receipts(vec![0, 2]);
        flight.sift(|frame| (frame.message.id == 1).then_some(0x97));
        assert_eq!([0, 1, 2].map(|number| flight.wants_receipt(number)), [true, true, false]);
    }

    #[test]
    fn a_callback_that_is_let_go_late_takes_nothing_from_what_was_turned_back() {
        let mut batch = Batch::default();
        (0..3).for_each(|_| batch.push(&crate::log::tests::frame()));
        let ledger = Ledger::new(true, Arc::default(), Arc::default());
        let flight = Flight::acknowledged(batch, Box::new(|_, _| ()));
        let number = ledger.insert(Arc::clone(&flight), 4);
        let mut reporter = ledger.reporter(number, &flight);
        reporter.report(0..3, Verdict::Withdrawn);
        assert!(ledger.is_quiet());
        assert_eq!(flight.turn_back(), 3);
        drop(reporter);
        assert_eq!((flight.left(), flight.take().records()), (3, 3));
        assert_eq!(ledger.done_to(), 0, "they are not drained");
    }

    #[test]
    fn what_is_left_out_hears_so_by_its_own_name() {
        let mut batch = Batch::default();
        (0..8).for_each(|id| {
            let mut frame = crate::log::tests::frame();
            frame.message.id = id;
            batch.push(&frame);
        });
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let settled: OnSettled = Box::new(move |run, verdict| heard.lock().unwrap().push((run, verdict)));
        let flight = Flight::new(batch, 8, None, settled);
        flight.state().withdrawn = vec![2..3, 3..6];
        flight.turn_back();
        flight.sift(|frame| (frame.message.id == 3).then_some(0x97));
        assert_eq!(*told.lock().unwrap(), [(3..4, Verdict::Refused(0x97))]);
        assert_eq!(flight.left(), 3);
        assert_eq!(flight.state().numbers, Some(vec![2..3, 4..6]));
        assert_eq!(flight.take().iter().map(|frame| frame.message.id).collect::<Vec<_>>(), [2, 4, 5]);
    }

    #[test]
    fn frames_keep_their_names_when_others_are_left_out() {
        assert_eq!(named(None, 2..5), vec![2..5]);
        let kept = [1..3, 7..8, 10..14];
        assert_eq!(named(Some(&kept), 0..7), kept);
        assert_eq!(named(Some(&kept), 1..5), [2..3, 7..8, 10..12]);
        assert_eq!(named(Some(&kept), 6..7), vec![13..14]);
    }
}
