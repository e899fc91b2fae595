//! The state with the changes that wait for the disk, under one lock: so they wait in the order in which they happened.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::contract::{Reply, ReplyTo, Request, StoreError};
use crate::state::{Change, State};

/// Changes waiting for the writer, at most: a few turns of a storm of reconnects. When full, what would add to them
/// answers [`StoreError::Unavailable`] at once and has not taken effect.
const WAITING_MAX: usize = 262_144;

/// Bytes of them, at most; with the same consequence. A single request goes beyond by what it brings.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// How long a commit may take before those who wait for it are told that the disk does not answer. Seen with the next
/// request of anyone; a gateway renews its lease each second.
pub(super) const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// What callers and the writer share.
pub(super) struct Shared {
    journal: Mutex<Journal>,
    wake: Condvar,
}

/// The state and what of it is not durable yet.
pub(super) struct Journal {
    state: State,
    changes: Vec<Change>,
    changes_bytes: usize,
    /// Answers that leave once `changes` are durable.
    pending: Vec<Pending>,
    /// Answers that leave once the last member of a group that ended is gone. Its members go slice by slice, one with each commit, so that nobody
    /// waits for all of them.
    ending: Vec<(Box<str>, Pending)>,
    committing: Option<Committing>,
    /// Why nothing durable is taken at the moment.
    refusing: Option<StoreError>,
    stopping: bool,
    commit_deadline: Duration,
}

/// An answer that waits for the disk.
pub(super) struct Pending {
    pub(super) answer: Result<Reply, StoreError>,
    pub(super) reply: ReplyTo,
}

struct Committing {
    since: Instant,
    pending: Vec<Pending>,
}

/// What the writer finds when it wakes.
pub(super) enum Work {
    /// These changes are to be made durable, in order.
    Commit(Vec<Change>),
    /// The store was dropped and everything is written.
    Stop,
}

impl Shared {
    pub(super) fn new(state: State, commit_deadline: Duration) -> Self {
        let journal = Journal {
            state,
            changes: Vec::new(),
            changes_bytes: 0,
            pending: Vec::new(),
            ending: Vec::new(),
            committing: None,
            refusing: None,
            stopping: false,
            commit_deadline,
        };
        Self { journal: Mutex::new(journal), wake: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake_writer(&self) {
        self.wake.notify_one();
    }

    /// Waits for changes and takes all of them.
    pub(super) fn next_work(&self) -> Work {
        let idle = |journal: &mut Journal| !journal.holds_changes() && !journal.stopping;
        let mut journal = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        journal.end_groups();
        if journal.changes.is_empty() {
            return Work::Stop;
        }
        let pending = std::mem::take(&mut journal.pending);
        journal.committing = Some(Committing { since: Instant::now(), pending });
        Work::Commit(journal.take_changes())
    }

    /// Waits before a further attempt; false if the store was dropped meanwhile.
    pub(super) fn wait_for_retry(&self, pause: Duration) -> bool {
        let waiting = |journal: &mut Journal| !journal.stopping;
        let (journal, _) =
            self.wake.wait_timeout_while(self.lock(), pause, waiting).unwrap_or_else(PoisonError::into_inner);
        !journal.stopping
    }
}

impl Journal {
    /// Why `request` cannot be taken now, if so. Nothing of it has taken effect.
    pub(super) fn refusal(&self, request: &Request) -> Option<StoreError> {
        if !self.takes_changes() && self.state.is_durable(request) {
            return Some(self.refusing.clone().unwrap_or_else(|| {
                StoreError::Unavailable(format!("{} changes wait for the disk", self.changes.len()))
            }));
        }
        None
    }

    /// Carries out a request. Gives back the answer if it need not wait for the disk.
    pub(super) fn carry_out(
        &mut self,
        request: Request,
        now_ms: u64,
        reply: ReplyTo,
    ) -> Option<(Result<Reply, StoreError>, ReplyTo)> {
        let mut changes = Vec::new();
        if self.takes_changes() {
            self.state.sweep(now_ms, &mut changes);
        }
        let swept = changes.len();
        let ended = if let Request::DropGroup { group } = &request { Some(group.clone()) } else { None };
        let answer = self.state.apply(request, now_ms, &mut changes);
        let waits = changes.len() > swept;
        self.changes_bytes += changes.iter().map(Change::bytes).sum::<usize>();
        self.changes.append(&mut changes);
        if let Some(group) = ended.filter(|group| self.state.is_ending(group)) {
            self.ending.push((group, Pending { answer, reply }));
            return None;
        }
        if waits {
            self.pending.push(Pending { answer, reply });
            return None;
        }
        Some((answer, reply))
    }

    /// Everyone who waits for a commit that is past its deadline; from now on, until it ends, nothing durable is taken.
    pub(super) fn take_overdue(&mut self) -> Vec<Pending> {
        let overdue = self
            .committing
            .as_ref()
            .is_some_and(|committing| committing.since.elapsed() > self.commit_deadline);
        if !overdue {
            return Vec::new();
        }
        self.refusing = Some(deadline_passed());
        self.take_pending()
    }

    /// The disk refused: so does the store. Gives those who waited, and what else is to be written.
    pub(super) fn refuse(&mut self, why: StoreError) -> (Vec<Pending>, Vec<Change>) {
        self.refusing = Some(why);
        (self.take_pending(), self.take_changes())
    }

    /// A commit ended well. Gives those who waited for it, and whether the store refused meanwhile.
    pub(super) fn committed(&mut self) -> (Vec<Pending>, bool) {
        let pending = self.committing.take().map(|committing| committing.pending).unwrap_or_default();
        (pending, self.refusing.take().is_some())
    }

    /// Whether the writer has something to do. Waking it costs a system call, so it is asked first.
    pub(super) fn holds_changes(&self) -> bool {
        !self.changes.is_empty() || self.state.ends_groups()
    }

    /// Adds a slice of a group that ended to what is written next, and its answers to the last one.
    fn end_groups(&mut self) {
        if !self.state.ends_groups() {
            return;
        }
        let mut changes = Vec::new();
        self.state.end_groups(&mut changes);
        self.changes_bytes += changes.iter().map(Change::bytes).sum::<usize>();
        self.changes.append(&mut changes);
        let (ending, ended) = std::mem::take(&mut self.ending)
            .into_iter()
            .partition::<Vec<_>, _>(|(group, _)| self.state.is_ending(group));
        self.ending = ending;
        self.pending.extend(ended.into_iter().map(|(_, pending)| pending));
    }

    /// Whether the disk has refused, or not answered in time, and nothing was written since.
    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.is_some()
    }

    /// The store is being dropped.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    fn takes_changes(&self) -> bool {
        self.refusing.is_none() && self.changes.len() < WAITING_MAX && self.changes_bytes < WAITING_BYTES_MAX
    }

    fn take_changes(&mut self) -> Vec<Change> {
        self.changes_bytes = 0;
        std::mem::take(&mut self.changes)
    }

    fn take_pending(&mut self) -> Vec<Pending> {
        let mut pending = self.committing.take().map(|committing| committing.pending).unwrap_or_default();
        pending.append(&mut self.pending);
        pending.extend(self.ending.drain(..).map(|(_, pending)| pending));
        pending
    }
}

/// The answer to those who waited too long.
pub(super) fn deadline_passed() -> StoreError {
    StoreError::Unavailable("the disk does not answer".to_owned())
}
