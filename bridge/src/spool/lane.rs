//! One link's way through: to the sink, to the spool, or waiting until it is known which.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use holdfast_wire::mqtt::QoS;

use super::flights::Flight;
use super::{Shared, Way};
use crate::log::{Batch, Log, LogRecord, OnAppended};
use crate::metrics as names;
use crate::room::Place;
use crate::sink::{Lane, OnSettled, Sent, SinkClosed, Verdict};

/// Gathers frames in a batch of the spool's format: the copy that an outage needs, and what a spool stores, without encoding anything twice.
pub(super) struct OutageLane {
    shared: Arc<Shared>,
    direct: Box<dyn Lane>,
    batch: Batch,
    /// Frames of the batch that want a receipt, by number, ascending.
    receipts: Vec<u32>,
}

/// Where a batch has gone.
enum Handed<'a> {
    Sent(Result<(), SinkClosed>),
    /// The sink has no room for all of it yet.
    Sending(Sent<'a>),
    Queued(Batch, OnAppended),
    /// Nowhere yet.
    Waits(Batch, OnSettled),
    Closed,
}

impl OutageLane {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { direct: shared.primary.lane(), batch: shared.spare.take(), receipts: Vec::new(), shared }
    }

    /// Nobody changes the way meanwhile: what is handed to the sink is there before it is asked to give everything back.
    fn hand_over(&mut self, batch: Batch, mut settled: OnSettled, waker: &Waker) -> Handed<'_> {
        let shared = &self.shared;
        let way = shared.way();
        match *way {
            Way::Sink => {
                for (number, frame) in (0..).zip(batch.iter()) {
                    self.direct.push(&frame, self.receipts.binary_search(&number).is_ok());
                }
                let records = batch.records();
                let flight = Flight::new(batch, records, None, settled);
                flight.want_receipts(std::mem::take(&mut self.receipts));
                let number = shared.direct.insert(Arc::clone(&flight), 0);
                if shared.parked.load(Ordering::Acquire) {
                    shared.news.for_keeper.notify_one();
                }
                let mut reporter = shared.direct.reporter(number, &flight);
                let mut sent = self.direct.send(Box::new(move |run, verdict| reporter.report(run, verdict)));
                match sent.as_mut().poll(&mut Context::from_waker(waker)) {
                    Poll::Ready(result) => Handed::Sent(result),
                    Poll::Pending => Handed::Sending(sent),
                }
            }
            Way::Spool if !shared.takes_more() => Handed::Waits(batch, settled),
            Way::Spool => {
                self.receipts.clear();
                let (batch, numbers) = sift(shared, self.direct.as_mut(), batch, &mut settled);
                if batch.is_empty() {
                    return Handed::Sent(Ok(()));
                }
                let flight = Flight::new(Batch::default(), batch.records(), numbers, settled);
                let (batch, done) = shared.queue(batch, &flight);
                Handed::Queued(batch, done)
            }
            Way::Nowhere => Handed::Waits(batch, settled),
            Way::Closed => Handed::Closed,
        }
    }
}

impl Lane for OutageLane {
    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        if wants_receipt {
            self.receipts.push(self.batch.records());
        }
        self.batch.push(frame);
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        let mut batch = std::mem::replace(&mut self.batch, self.shared.spare.take());
        let mut settled = settled;
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(());
            }
            let shared = Arc::clone(&self.shared);
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            // While it waits for the way to open.
            let mut place: Option<Place> = None;
            loop {
                let mut news = pin!(shared.room.news.notified());
                // Registered before looking, so that an opening in between is not missed.
                news.as_mut().enable();
                let may_try = place.as_ref().map_or_else(|| !shared.room.is_awaited(), Place::is_first);
                if may_try {
                    match self.hand_over(batch, settled, &waker) {
                        Handed::Sent(result) => return result,
                        Handed::Sending(sent) => {
                            // It stands in the sink's line.
                            drop(place);
                            return sent.await;
                        }
                        Handed::Queued(batch, done) => {
                            let Some(log) = &shared.log else { return Err(SinkClosed) };
                            return append(log, batch, done, place).await;
                        }
                        Handed::Waits(kept, unsettled) => (batch, settled) = (kept, unsettled),
                        Handed::Closed => return Err(SinkClosed),
                    }
                }
                place.get_or_insert_with(|| shared.room.queue());
                news.await;
            }
        })
    }
}

/// Waits for room in the spool's log. From the first poll on it stands in the log's own line, so it gives up its place in ours.
async fn append(
    log: &Log,
    batch: Batch,
    done: OnAppended,
    mut place: Option<Place>,
) -> Result<(), SinkClosed> {
    let mut appended = pin!(log.append(batch, done));
    let result = poll_fn(|context| {
        let appended = appended.as_mut().poll(context);
        drop(place.take());
        appended
    });
    result.await.map_err(|_| SinkClosed)
}

impl Shared {
    /// Enters a flight into the spool's queue; what is to be appended.
    pub(super) fn queue(&self, mut batch: Batch, flight: &Arc<Flight>) -> (Batch, OnAppended) {
        let number = self.queued.insert(Arc::clone(flight), 0);
        let mut reporter = self.queued.reporter(number, flight);
        let records = batch.records();
        batch.ticket = number;
        (batch, Box::new(move |_| reporter.report(0..records, Verdict::Stored)))
    }
}

/// Leaves out what the sink would refuse later, while its device can still hear of it. While the spool takes nothing, frames that nobody waits for go
/// as well: they are dropped and counted, so that they do not fill what room is left for the others. Says what the remaining ones are called if some
/// are missing.
fn sift(
    shared: &Shared,
    sink: &mut dyn Lane,
    batch: Batch,
    settled: &mut OnSettled,
) -> (Batch, Option<Vec<Range<u32>>>) {
    let stalled = shared.log.as_ref().is_some_and(Log::is_stalled);
    let mut kept: Vec<Range<u32>> = Vec::new();
    for (number, frame) in (0..).zip(batch.iter()) {
        if stalled && frame.message.qos == QoS::AtMostOnce {
            metrics::counter!(names::SPOOL_DROPPED).increment(1);
            settled(number..number + 1, Verdict::Dropped);
        } else if let Some(reason_code) = sink.refuses(&frame) {
            settled(number..number + 1, Verdict::Refused(reason_code));
        } else {
            match kept.last_mut() {
                Some(run) if run.end == number => run.end += 1,
                _ => kept.push(number..number + 1),
            }
        }
    }
    if kept.first() == Some(&(0..batch.records())) {
        return (batch, None);
    }
    (batch.select(&kept, false), Some(kept))
}
