//! Deliveries whose session has left with them, until somebody else holds them for good: the store, or the next owner that has saved what was handed over.
//!
//! Their publisher may be acknowledged by what is reported here (promise P1). So "kept" is not said while this process alone has a message, which may die.
//!
//! ```text
//!   connection ends ── the store has taken the close ────────────────────────────────────────> Kept
//!     │  └─ another owner asks ── it is told ── it has saved the session and says so ──────────^     (or hands it on: then its next owner tells it, and it us)
//!     │                             ├─ it had gone on without, or nobody says anything within [`KEPT_WITHIN_MS`] ──> ConnectionLost: who sent it sends it again,
//!     │                             │                                                                                perhaps for a second time
//!     └─ the session has ended, or the store does not know it ──> ConnectionLost; at QoS 2 InDoubt, as the client may have it
//! ```
//! What stands in one of the session's streams is not here: it is found there.

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::link::{HandoverSettled, Outcome, ToBridge};
use holdfast_wire::mqtt::QoS;

use crate::connection::deliver;
use crate::input::{LinkIndex, Now};
use crate::remembered::Remembered;
use crate::shared::Shared;
use crate::uplink::ReportTo;

/// How long it may take, in ms: a session stays open for its client's last frames for two seconds at most, and the store has one for its answer.
const KEPT_WITHIN_MS: u64 = 5_000;
/// So many sessions of either kind. Beyond it the oldest counts as lost, or is not confirmed. What waits is also bounded by the deliveries whose reports bridges
/// await.
const SESSIONS_MAX: usize = 10_000;

/// Reports that wait, and those that others wait for.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// By client, and our epoch or, once its next owner has been told, that one's.
    waiting: Remembered<Waiting>,
    /// Sessions that were handed over to us with messages that nobody else had, until the store has saved them under this epoch of ours.
    unconfirmed: Remembered<HandedOverBy>,
}

#[derive(Debug)]
struct Waiting {
    until_ms: u64,
    reports: Vec<(ReportTo, QoS)>,
    /// Owners before us, who wait for the same word.
    former: Vec<HandedOverBy>,
}

/// Who handed over a session.
#[derive(Debug)]
pub(crate) struct HandedOverBy {
    pub(crate) former: Owner,
    /// The one that was named when the session was asked for.
    pub(crate) epoch: Epoch,
    /// The bridge that passed it on.
    pub(crate) through: LinkIndex,
}

impl Keeping {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.waiting.oldest().map(|waiting| waiting.until_ms)
    }

    /// Whether nobody waits for a report.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.len() == 0
    }

    /// Whether somebody waits for us to save this session.
    pub(crate) fn is_unconfirmed(&self, client: &ClientId, epoch: Epoch) -> bool {
        // Nearly always nobody does.
        self.unconfirmed.len() > 0 && self.unconfirmed.find(&(client.clone(), epoch)).is_some()
    }

    /// Our session has another epoch before it was saved.
    pub(crate) fn confirm_under(&mut self, client: &ClientId, epoch: Epoch, next: Epoch) {
        if let Some(handed_over) = self.unconfirmed.remove(&(client.clone(), epoch)) {
            self.unconfirmed.insert((client.clone(), next), handed_over);
        }
    }

    /// Nobody is told any more whether this session is saved.
    pub(crate) fn forget_unconfirmed(&mut self, client: &ClientId, epoch: Epoch) {
        self.unconfirmed.remove(&(client.clone(), epoch));
    }
}

impl Shared {
    /// Reports what an ended session had on its way, each with the QoS at which it was sent, once it is known what becomes of it.
    pub(crate) fn report_once_kept(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        mut reports: Vec<(ReportTo, QoS)>,
        now: Now,
    ) {
        self.wait_for_word(client, epoch, &mut reports, None, now);
    }

    fn wait_for_word(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        reports: &mut Vec<(ReportTo, QoS)>,
        former: impl IntoIterator<Item = HandedOverBy>,
        now: Now,
    ) {
        let mut former = former.into_iter().peekable();
        if reports.is_empty() && former.peek().is_none() {
            return;
        }
        let session = (client.clone(), epoch);
        if let Some(waiting) = self.keeping.waiting.find_mut(&session) {
            waiting.reports.append(reports);
            waiting.former.extend(former);
            return;
        }
        if self.keeping.waiting.len() >= SESSIONS_MAX
            && let Some((oldest, waiting)) = self.keeping.waiting.remove_oldest()
        {
            self.report_all(&oldest.0, waiting, Outcome::ConnectionLost);
        }
        let until_ms = now.monotonic_ms + KEPT_WITHIN_MS;
        let reports = std::mem::take(reports);
        self.keeping.waiting.insert(session, Waiting { until_ms, reports, former: former.collect() });
    }

    /// The store has it or has not, or the session's next owner says so.
    pub(crate) fn report_settled(&mut self, client: &ClientId, epoch: Epoch, outcome: Outcome) {
        if let Some(waiting) = self.keeping.waiting.remove(&(client.clone(), epoch)) {
            self.report_all(client, waiting, outcome);
        }
    }

    /// What this session had on its way, and what owners before us had, goes to its next owner, whose word is waited for from now on.
    pub(crate) fn report_once_saved_elsewhere(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        next: Epoch,
        now: Now,
    ) {
        let session = (client.clone(), epoch);
        let (mut reports, mut former) = match self.keeping.waiting.remove(&session) {
            Some(waiting) => (waiting.reports, waiting.former),
            None => (Vec::new(), Vec::new()),
        };
        former.extend(self.keeping.unconfirmed.remove(&session));
        self.wait_for_word(client, next, &mut reports, former, now);
    }

    /// Gives up what nobody has said anything of.
    pub(crate) fn report_overdue(&mut self, now: Now) {
        while self.keeping.next_ms().is_some_and(|until_ms| until_ms <= now.monotonic_ms)
            && let Some((session, overdue)) = self.keeping.waiting.remove_oldest()
        {
            self.report_all(&session.0, overdue, Outcome::ConnectionLost);
        }
    }

    /// A session came, under this epoch of ours, with messages that only its former owner had: that one hears once they are saved.
    pub(crate) fn confirm_once_saved(&mut self, client: &ClientId, epoch: Epoch, handed_over: HandedOverBy) {
        if self.keeping.unconfirmed.len() >= SESSIONS_MAX {
            self.keeping.unconfirmed.remove_oldest();
        }
        self.keeping.unconfirmed.insert((client.clone(), epoch), handed_over);
    }

    /// The store has saved what we know of this session.
    pub(crate) fn confirm_saved(&mut self, client: &ClientId, epoch: Epoch) {
        if let Some(handed_over) = self.keeping.unconfirmed.remove(&(client.clone(), epoch)) {
            self.settle_handover(client, &handed_over, Outcome::Kept);
        }
    }

    /// Tells the former owner, over the bridge that has just met it, or the one that serves the client.
    pub(crate) fn settle_handover(
        &mut self,
        client: &ClientId,
        handed_over: &HandedOverBy,
        outcome: Outcome,
    ) {
        let HandedOverBy { former, epoch, through } = *handed_over;
        if let Some(link) = self.uplinks.this_or_chosen(through, client) {
            let record = HandoverSettled { client, epoch, former, outcome };
            self.uplinks.say(link, &ToBridge::HandoverSettled(record));
        }
    }

    fn report_all(&mut self, client: &ClientId, waiting: Waiting, outcome: Outcome) {
        for (report, qos) in waiting.reports {
            deliver::report(self, Some(report), of_quality(outcome, qos));
        }
        for handed_over in waiting.former {
            self.settle_handover(client, &handed_over, outcome);
        }
    }
}

/// Only at QoS 2 is it forbidden to give a message to somebody else because its client may have it (MQTT-4.8.2-5).
pub(crate) fn of_quality(outcome: Outcome, qos: QoS) -> Outcome {
    match outcome {
        Outcome::InDoubt if qos < QoS::ExactlyOnce => Outcome::ConnectionLost,
        outcome => outcome,
    }
}
