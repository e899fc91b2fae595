//! Deliveries whose session has left with them, until somebody else holds them for good: the store, or the next owner that has saved what was handed over.
//!
//! Their publisher may be acknowledged by what is reported here (promise P1). So "kept" is not said while this process alone has a message, which may die.
//!
//! ```text
//!   connection ends ── the store has taken the close ────────────────────────────────> Kept
//!        └─ another owner asks ── it is told ── it has saved the session and says so ──^
//!                                    └─ it had gone on without, or nobody says anything within [`KEPT_WITHIN_MS`] ──> ConnectionLost: who sent it sends it
//!                                                                                                                   again, perhaps for a second time
//! ```
//! What stands in one of the session's streams is not here: it is found there.

use std::collections::BTreeMap;

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::link::{HandoverSettled, Outcome, ToBridge};

use crate::connection::deliver;
use crate::input::{ConnectionId, LinkIndex, Now};
use crate::remembered::Remembered;
use crate::shared::Shared;
use crate::uplink::ReportTo;

/// How long it may take, in ms: a session stays open for its client's last frames for two seconds at most, and the store has one for its answer.
const KEPT_WITHIN_MS: u64 = 5_000;
/// So many sessions. Beyond it the oldest counts as lost. What waits is also bounded by the deliveries whose reports bridges await.
const SESSIONS_MAX: usize = 10_000;

/// Reports that wait, and those that others wait for.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// By client, and our epoch or, once its next owner has been told, that one's.
    waiting: Remembered<Waiting>,
    /// Whom to tell once a connection's session is saved, which was handed over to us. At most one for each connection.
    confirmations: BTreeMap<ConnectionId, HandedOverBy>,
}

#[derive(Debug)]
struct Waiting {
    until_ms: u64,
    reports: Vec<ReportTo>,
}

/// Who handed over a session.
#[derive(Debug)]
pub(crate) struct HandedOverBy {
    pub(crate) client: ClientId,
    /// The one that was named when the session was asked for.
    pub(crate) epoch: Epoch,
    pub(crate) former: Owner,
    /// The bridge that passed it on.
    pub(crate) through: LinkIndex,
}

impl Keeping {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.waiting.oldest().map(|waiting| waiting.until_ms)
    }

    /// The connection has ended: what it has not saved yet nobody is told.
    pub(crate) fn forget_confirmation(&mut self, id: ConnectionId) {
        self.confirmations.remove(&id);
    }
}

impl Shared {
    /// Reports what an ended session had on its way once it is known what becomes of it.
    pub(crate) fn report_once_kept(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        reports: Vec<ReportTo>,
        now: Now,
    ) {
        if reports.is_empty() {
            return;
        }
        if self.keeping.waiting.len() >= SESSIONS_MAX
            && let Some(oldest) = self.keeping.waiting.remove_oldest()
        {
            self.report_all(oldest, Outcome::ConnectionLost);
        }
        let waiting = Waiting { until_ms: now.monotonic_ms + KEPT_WITHIN_MS, reports };
        self.keeping.waiting.insert((client.clone(), epoch), waiting);
    }

    /// The store has it or has not, or the session's next owner says so.
    pub(crate) fn report_settled(&mut self, client: &ClientId, epoch: Epoch, is_kept: bool) {
        if let Some(waiting) = self.keeping.waiting.remove(&(client.clone(), epoch)) {
            self.report_all(waiting, if is_kept { Outcome::Kept } else { Outcome::ConnectionLost });
        }
    }

    /// What this session had on its way goes to its next owner, whose word is waited for from now on.
    pub(crate) fn report_once_saved_elsewhere(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        next: Epoch,
        now: Now,
    ) {
        if let Some(waiting) = self.keeping.waiting.remove(&(client.clone(), epoch)) {
            self.report_once_kept(client, next, waiting.reports, now);
        }
    }

    /// Gives up what nobody has said anything of.
    pub(crate) fn report_overdue(&mut self, now: Now) {
        while self.keeping.next_ms().is_some_and(|until_ms| until_ms <= now.monotonic_ms)
            && let Some(overdue) = self.keeping.waiting.remove_oldest()
        {
            self.report_all(overdue, Outcome::ConnectionLost);
        }
    }

    /// A connection's session was handed over to us with messages that only its former owner had: that one hears once they are saved here.
    pub(crate) fn confirm_once_saved(&mut self, id: ConnectionId, handed_over: HandedOverBy) {
        self.keeping.confirmations.insert(id, handed_over);
    }

    /// The store has saved this connection's session.
    pub(crate) fn confirm_saved(&mut self, id: ConnectionId) {
        if let Some(handed_over) = self.keeping.confirmations.remove(&id) {
            self.settle_handover(&handed_over, true);
        }
    }

    /// Tells the former owner, over the bridge that knows it. One that is gone has lost those who wait for its reports.
    pub(crate) fn settle_handover(&mut self, handed_over: &HandedOverBy, is_kept: bool) {
        let HandedOverBy { client, epoch, former, through } = handed_over;
        let record = HandoverSettled { client, epoch: *epoch, former: *former, is_kept };
        self.uplinks.say(*through, &ToBridge::HandoverSettled(record));
    }

    fn report_all(&mut self, waiting: Waiting, outcome: Outcome) {
        for report in waiting.reports {
            deliver::report(self, Some(report), outcome);
        }
    }
}
