//! The batches that Kafka has not settled: whose frames a delivery report speaks of.
//!
//! Pure but for its locks. A record carries its batch's place and its own number through librdkafka as one word, so nothing is
//! allocated for it. Bounded by the links' windows: whatever is in here is an unsettled uplink of some link.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Histogram;

use crate::metrics as names;
use crate::sink::{OnSettled, Verdict};

/// Which frame of which batch; travels as the opaque word of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) batch: u32,
    /// Below 2^29, which no window of a link comes near.
    pub(super) frame: u32,
    pub(super) wants_receipt: bool,
    /// It was refused by its own topic and is on its way to the dead letter topic.
    pub(super) dead_letter: bool,
    /// Its device believes it stored.
    pub(super) acknowledged: bool,
}

const WANTS_RECEIPT: usize = 1 << 31;
const DEAD_LETTER: usize = 1 << 30;
const ACKNOWLEDGED: usize = 1 << 29;
const FRAME: usize = ACKNOWLEDGED - 1;

impl From<Ticket> for usize {
    fn from(ticket: Ticket) -> Self {
        let flag = |set: bool, bit: usize| if set { bit } else { 0 };
        (ticket.batch as usize) << 32
            | flag(ticket.wants_receipt, WANTS_RECEIPT)
            | flag(ticket.dead_letter, DEAD_LETTER)
            | flag(ticket.acknowledged, ACKNOWLEDGED)
            | (ticket.frame as usize & FRAME)
    }
}

impl From<usize> for Ticket {
    fn from(word: usize) -> Self {
        Self {
            batch: (word >> 32) as u32,
            frame: (word & FRAME) as u32,
            wants_receipt: word & WANTS_RECEIPT != 0,
            dead_letter: word & DEAD_LETTER != 0,
            acknowledged: word & ACKNOWLEDGED != 0,
        }
    }
}

/// All batches of a sink.
pub(super) struct Pending {
    batches: Mutex<Batches>,
    seconds: Histogram,
}

#[derive(Default)]
struct Batches {
    places: Vec<Option<Place>>,
    free: Vec<u32>,
}

struct Place {
    since: Instant,
    batch: Arc<Mutex<Batch>>,
}

#[derive(Default)]
struct Batch {
    /// None until the batch is sent off.
    settled: Option<OnSettled>,
    /// Verdicts that came before that.
    early: Vec<(Range<u32>, Verdict)>,
    /// Frames without a verdict, once it is sent off; before, the negative number of those that have one.
    left: i64,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { batches: Mutex::default(), seconds: metrics::histogram!(names::KAFKA_SECONDS) }
    }

    /// A batch begins; gives its place.
    pub(super) fn open(&self) -> u32 {
        let batch = Some(Place { since: Instant::now(), batch: Arc::default() });
        let mut batches = self.batches();
        if let Some(place) = batches.free.pop() {
            batches.places[place as usize] = batch;
            place
        } else {
            batches.places.push(batch);
            (batches.places.len() - 1) as u32
        }
    }

    /// The batch has all its frames; what was reported already is passed on from here.
    pub(super) fn close(&self, place: u32, frames: u32, mut settled: OnSettled) {
        let Some(batch) = self.batches().at(place) else { return };
        let mut batch = lock(&batch);
        batch.left += i64::from(frames);
        let early = std::mem::take(&mut batch.early);
        for (frames, verdict) in early {
            settled(frames, verdict);
        }
        batch.settled = Some(settled);
        let is_over = batch.left == 0;
        drop(batch);
        if is_over {
            self.end(place);
        }
    }

    /// The verdict of one frame.
    pub(super) fn report(&self, ticket: Ticket, verdict: Verdict) {
        self.report_run(ticket.batch, ticket.frame..ticket.frame + 1, verdict);
    }

    /// These frames, in any order, are stored: each batch hears of runs that are as long as can be.
    pub(super) fn stored(&self, words: &mut Vec<usize>) {
        words.sort_unstable();
        let mut tickets = words.drain(..).map(Ticket::from);
        let Some(first) = tickets.next() else { return };
        let (mut batch, mut run) = (first.batch, first.frame..first.frame + 1);
        for ticket in tickets {
            if (ticket.batch, ticket.frame) != (batch, run.end) {
                self.report_run(batch, run, Verdict::Stored);
                (batch, run) = (ticket.batch, ticket.frame..ticket.frame);
            }
            run.end += 1;
        }
        self.report_run(batch, run, Verdict::Stored);
    }

    fn report_run(&self, place: u32, frames: Range<u32>, verdict: Verdict) {
        let Some(batch) = self.batches().at(place) else { return };
        let mut batch = lock(&batch);
        batch.left -= i64::from(frames.end - frames.start);
        let Some(settled) = &mut batch.settled else {
            batch.early.push((frames, verdict));
            return;
        };
        settled(frames, verdict);
        let is_over = batch.left == 0;
        drop(batch);
        if is_over {
            self.end(place);
        }
    }

    /// For how long a frame that has no verdict has waited.
    pub(super) fn waited(&self, ticket: Ticket, now: Instant) -> Duration {
        let batches = self.batches();
        let place = batches.places.get(ticket.batch as usize).and_then(Option::as_ref);
        place.map_or(Duration::ZERO, |place| now.saturating_duration_since(place.since))
    }

    /// A batch has all its verdicts; its place is free.
    fn end(&self, place: u32) {
        let mut batches = self.batches();
        let done = batches.places[place as usize].take();
        batches.free.push(place);
        drop(batches);
        if let Some(done) = done {
            self.seconds.record(done.since.elapsed());
        }
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batches {
    fn at(&self, place: u32) -> Option<Arc<Mutex<Batch>>> {
        self.places.get(place as usize)?.as_ref().map(|place| Arc::clone(&place.batch))
    }
}

fn lock(batch: &Mutex<Batch>) -> MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = Arc<Mutex<Vec<(u32, Verdict)>>>;

    fn on_settled(told: &Told) -> OnSettled {
        let told = Arc::clone(told);
        Box::new(move |frames, verdict| told.lock().unwrap().push((frames.start, verdict)))
    }

    fn ticket(batch: u32, frame: u32) -> Ticket {
        Ticket { batch, frame, wants_receipt: false, dead_letter: false, acknowledged: false }
    }

    #[test]
    fn a_ticket_survives_its_way_through_librdkafka() {
        for (batch, frame) in [(0, 0), (u32::MAX, FRAME as u32), (7, 9)] {
            for flags in 0..8 {
                let [wants_receipt, dead_letter, acknowledged] = [1, 2, 4].map(|flag| flags & flag != 0);
                let ticket = Ticket { batch, frame, wants_receipt, dead_letter, acknowledged };
                assert_eq!(Ticket::from(usize::from(ticket)), ticket);
            }
        }
    }

    #[test]
    fn a_report_before_the_batch_is_sent_off_is_told_then() {
        let (pending, told) = (Pending::new(), Told::default());
        let place = pending.open();
        pending.report(ticket(place, 1), Verdict::Stored);
        assert!(told.lock().unwrap().is_empty());
        pending.close(place, 2, on_settled(&told));
        assert_eq!(*told.lock().unwrap(), [(1, Verdict::Stored)]);
        pending.report(ticket(place, 0), Verdict::Withdrawn);
        assert_eq!(told.lock().unwrap()[1], (0, Verdict::Withdrawn));
        assert_eq!(pending.open(), place, "its place is free again");
    }

    #[test]
    fn reports_in_any_order_become_runs_of_their_batches() {
        let pending = Pending::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let places = [pending.open(), pending.open()];
        for place in places {
            let told = Arc::clone(&told);
            pending.close(place, 5, Box::new(move |frames, _| told.lock().unwrap().push((place, frames))));
        }
        let [first, second] = places;
        let reports = [(second, 3), (first, 2), (first, 0), (second, 4), (first, 1), (first, 4)];
        let mut words = reports.map(|(place, frame)| usize::from(ticket(place, frame))).to_vec();
        pending.stored(&mut words);
        assert_eq!(*told.lock().unwrap(), [(first, 0..3), (first, 4..5), (second, 3..5)]);
    }

    #[test]
    fn a_frame_waits_until_its_batch_has_its_verdicts() {
        let (pending, told) = (Pending::new(), Told::default());
        let place = pending.open();
        pending.close(place, 1, on_settled(&told));
        let later = Instant::now() + Duration::from_mins(1);
        assert!(pending.waited(ticket(place, 0), later) >= Duration::from_mins(1));
        pending.report(ticket(place, 0), Verdict::Stored);
        assert_eq!(pending.waited(ticket(place, 0), later), Duration::ZERO);
    }
}
