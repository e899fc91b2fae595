//! Watches the sink and carries out what [`Outage`] decides, on a thread of its own with the drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::drain::{Spooled, drain};
use super::state::{Action, OnOutage, Outage, Seen, State};
use super::{OutageConfig, Shared, Way};
use crate::metrics as names;

/// How often it looks whether the spool's queue has room.
const ROOM_EVERY: Duration = Duration::from_millis(5);

pub(super) struct Keeper {
    shared: Arc<Shared>,
    outage: Outage,
    outage_after: Duration,
    /// When the sink was last asked to give back what it has.
    asked_at: Instant,
    reports_before: u64,
    /// Offsets stored and drained when it began to pace.
    paced_from: Option<(u64, u64)>,
    told: Told,
}

/// What was published of an outage.
#[derive(Default)]
struct Told {
    state: Option<State>,
    seconds: Option<u64>,
}

/// Nobody waits for a keeper that is gone, however it went.
struct Closes(Arc<Shared>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.set_way(Way::Closed);
    }
}

impl Keeper {
    /// For a spool that has `behind` records of an earlier run; `is_away` if the sink is known to be.
    pub(super) fn new(shared: Arc<Shared>, config: &OutageConfig, behind: u64, is_away: bool) -> Self {
        let now = Instant::now();
        let outage_after = config.outage_after.max(Duration::from_millis(1));
        let outage = if is_away && behind > 0 {
            Outage::begun(config.on_outage, outage_after, now)
        } else {
            Outage::new(config.on_outage, outage_after, behind, now)
        };
        if behind > 0 {
            tracing::info!(directory = %config.directory.display(), records = behind, "the spool drains what an earlier run left in it");
        }
        Self {
            shared,
            outage,
            outage_after,
            asked_at: now,
            reports_before: 0,
            paced_from: None,
            told: Told::default(),
        }
    }

    /// Returns when the sink is to be closed.
    pub(super) fn run(self, spooled: Option<Spooled>) {
        let closes = Closes(Arc::clone(&self.shared));
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the spool cannot run"),
        };
        runtime.block_on(async move {
            // With its end the drain ends, wherever it waits.
            tokio::select! {
                () = drain(Arc::clone(&closes.0), spooled) => {}
                () = self.keep() => {}
            }
        });
    }

    async fn keep(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stopping.load(Ordering::Acquire) {
            while let Some(action) = self.outage.observe(self.seen(), Instant::now()) {
                self.act(action).await;
            }
            self.pace();
            self.publish();
            let news = shared.news.for_keeper.notified();
            let reports = shared.direct.reports();
            // While frames come and go it looks now and then; waking it for each batch would cost more than the batch.
            let idle = std::mem::replace(&mut self.reports_before, reports) == reports;
            if self.outage.state() == State::Direct && idle && shared.direct.is_quiet() {
                shared.parked.store(true, Ordering::SeqCst);
                // A frame that came in between saw nobody sleep.
                if shared.direct.is_quiet() {
                    news.await;
                }
                shared.parked.store(false, Ordering::SeqCst);
            } else {
                let _ = tokio::time::timeout(self.outage.look_every(Instant::now()), news).await;
            }
            if self.outage.state() == State::Suspect && self.asked_at.elapsed() > self.outage_after / 2 {
                self.withdraw();
            }
        }
    }

    fn seen(&self) -> Seen {
        let Shared { direct, drain, .. } = &*self.shared;
        Seen {
            reports: direct.reports() + drain.reports(),
            oldest: direct.oldest().into_iter().chain(drain.oldest_of_all()).min(),
            came_back: direct.came_back(),
            all_came_back: direct.is_quiet(),
            behind: self.shared.behind(),
        }
    }

    async fn act(&mut self, action: Action) {
        let shared = Arc::clone(&self.shared);
        match action {
            Action::Withdraw => {
                shared.direct.attended.store(true, Ordering::Release);
                shared.set_way(Way::Nowhere);
                self.withdraw();
            }
            Action::Spool => {
                shared.direct.seen_to();
                if self.spool_what_came_back().await {
                    shared.set_way(Way::Spool);
                }
            }
            Action::Retry => {
                shared.direct.seen_to();
                for (number, flight) in shared.direct.all() {
                    shared.direct.remove(number);
                    flight.turn_back();
                    shared.drained.put(0, || Some(flight));
                }
            }
            Action::Close => shared.set_way(Way::Nowhere),
            Action::Reopen => shared.set_way(Way::Spool),
            Action::Direct => {
                shared.direct.attended.store(false, Ordering::Release);
                shared.set_way(Way::Sink);
            }
        }
        shared.news.for_drain.notify_one();
    }

    /// Where frames come as fast as they drain, for each two that the sink stores one is taken: then the spool becomes empty in about as long as it would
    /// without them, and devices go on at half the sink's pace until it is.
    fn pace(&mut self) {
        let Some(log) = &self.shared.log else { return };
        // An attempt to end it that failed has won nothing: the next one goes on from here, or each would let in what it had gained.
        if self.outage.state() == State::Returning {
            return;
        }
        if !self.outage.is_overtaken(Instant::now()) {
            self.paced_from = None;
            return self.shared.set_intake(u64::MAX);
        }
        let drained = self.shared.drain.done_to();
        let (stored, before) = *self.paced_from.get_or_insert((log.stored(), drained));
        self.shared.set_intake(stored + drained.saturating_sub(before) / 2);
    }

    /// Enters into the spool's queue all frames that the sink gave back, in the order in which it was given them. While the spool takes nothing they wait,
    /// and the drain has what is before them; `false` if the sink is closed meanwhile.
    async fn spool_what_came_back(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let Some(log) = &shared.log else { return true };
        // What came back for its size can still hear that it is too large, now that this is known.
        let mut sink = shared.primary.lane();
        for (number, flight) in shared.direct.all() {
            shared.direct.remove(number);
            flight.turn_back();
            flight.sift(|frame| sink.refuses(frame));
            if flight.left() == 0 {
                continue;
            }
            let mut waiting = shared.queue(flight.take(), &flight);
            loop {
                waiting = match log.try_append(waiting.0, waiting.1) {
                    Ok(Ok(())) => break,
                    Ok(Err(refused)) => refused,
                    Err(_) => return false,
                };
                self.publish();
                tokio::time::sleep(ROOM_EVERY).await;
                if shared.stopping.load(Ordering::Acquire) {
                    return false;
                }
            }
            shared.news.for_drain.notify_one();
        }
        true
    }

    fn withdraw(&mut self) {
        self.asked_at = Instant::now();
        self.shared.primary.withdraw();
    }

    fn publish(&mut self) {
        let now = Instant::now();
        let state = self.outage.state();
        self.shared.set_state(state);
        metrics::gauge!(names::SPOOL_STATE).set(f64::from(state.name_and_number().1));
        let behind = self.shared.behind();
        if let Some(log) = &self.shared.log {
            metrics::gauge!(names::SPOOL_RECORDS).set(behind as f64);
            metrics::gauge!(names::SPOOL_BYTES).set(log.bytes() as f64);
            let is_stalled = self.shared.is_spool_stalled();
            metrics::gauge!(names::SPOOL_STALLED).set(f64::from(u8::from(is_stalled)));
        }
        let away = self.outage.away(now);
        match (away, self.told.seconds) {
            (Some(away), None) => {
                metrics::counter!(names::OUTAGES).increment(1);
                self.say_away();
                self.told.seconds = Some(0);
                metrics::counter!(names::OUTAGE_SECONDS).increment(away.as_secs());
            }
            (Some(away), Some(told)) => {
                metrics::counter!(names::OUTAGE_SECONDS).increment(away.as_secs().saturating_sub(told));
                self.told.seconds = Some(away.as_secs().max(told));
            }
            (None, Some(_)) => {
                tracing::info!(records = behind, "Kafka stores again");
                self.told.seconds = None;
            }
            (None, None) => {}
        }
        let before = self.told.state.replace(state);
        if state == State::Direct
            && before.is_some_and(|before| before != State::Direct && before != State::Held)
        {
            tracing::info!("the spool is empty; frames go to Kafka again");
        }
    }

    /// What becomes of frames and their devices. A spool stands before nothing but Kafka.
    fn say_away(&self) {
        let seconds = self.outage_after.as_secs_f64();
        match &self.shared.log {
            Some(log) if self.outage.wish() == OnOutage::Spool => tracing::warn!(
                seconds,
                spool = %log.directory().display(),
                "Kafka stores nothing: frames go to the spool and are acknowledged from there, until it does"
            ),
            _ => tracing::warn!(
                seconds,
                "Kafka stores nothing: devices are held back and not acknowledged (on_outage = \"hold\"), until it does"
            ),
        }
    }
}
