//! When frames go to the sink, when to the spool, and when nowhere for a moment.
//!
//! ```text
//!            no progress, or frames came back                       all came back: Spool
//!   Direct ──────────────────────────────────> Suspect ────────────────────────────────> Spooling
//!    │  ^          (Withdraw)                                                             │    ^
//!    │  │                                                                progress         │    │ no progress
//!    │  │     nothing is behind: Direct                 little is behind: Close           v    │
//!    │  └───────────────────────────── Returning <───────────────────────────────────── Draining
//!    │                                     └──────────── too long: Reopen ────────────────^
//!    └─ no progress, `hold` ─> Held ─ progress ─> Direct
//! ```
//!
//! An attempt to end it, Returning, that took too long is not made again for a while, and for longer after each: devices wait in it.
//!
//! With `hold` there is no spool: what comes back by itself waits in memory until the sink has it, Suspect ─> Returning ─> Direct.
//!
//! Pure. Start with [`Outage::observe`].

use std::time::{Duration, Instant};

/// What becomes of frames while the sink makes no progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// They go to the spool and are acknowledged from there.
    #[default]
    Spool,
    /// They wait; so do the devices.
    Hold,
}

/// Fewer records than this behind are stored by the sink in less time than a device notices; frames are held back for so long.
const LITTLE: u64 = 2_000;

/// What remains behind is stored within this part of `outage_after` with the devices held back, or they are let go on.
const ATTEMPT_PART: u32 = 8;
/// After the first attempt that failed it lets devices go on for `outage_after`, then for twice as long each time, up to so many times that.
const REST_MAX: u32 = 8;

/// Where an outage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Frames go to the sink.
    Direct,
    /// The sink makes no progress, and frames wait for it as they were told to.
    Held,
    /// The sink was asked to give back what it has not stored; frames wait.
    Suspect,
    /// Frames go to the spool; the sink has been sent the first of them and does not answer.
    Spooling,
    /// Frames go to the spool; the sink stores what is in there.
    Draining,
    /// The sink stores the last of what is behind; frames wait, so that an end is possible.
    Returning,
}

impl State {
    /// Its name, and the number that stands for it in metrics.
    pub(super) fn name_and_number(self) -> (&'static str, u8) {
        match self {
            Self::Direct => ("direct", 0),
            Self::Suspect => ("withdrawing", 1),
            Self::Spooling => ("spooling", 2),
            Self::Draining | Self::Returning => ("draining", 3),
            Self::Held => ("held", 4),
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.name_and_number().0
    }

    /// Whether the sink stores nothing.
    pub(super) fn is_away(self) -> bool {
        matches!(self, Self::Held | Self::Suspect | Self::Spooling)
    }
}

/// What is seen of the sink and the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Reports of the sink so far.
    pub(super) reports: u64,
    /// When the oldest frame that the sink has not reported was handed to it; what came back from it to the drain is among these.
    pub(super) oldest: Option<Instant>,
    /// The sink has given frames back that went to it directly.
    pub(super) came_back: bool,
    /// Everything that went to the sink directly was reported.
    pub(super) all_came_back: bool,
    /// Records, in the spool or on their way to it, that the sink has not stored.
    pub(super) behind: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Frames wait; the sink gives back what it has not stored.
    Withdraw,
    /// What came back goes to the spool, and behind it all frames.
    Spool,
    /// What came back goes to the sink again; frames still wait.
    Retry,
    /// Frames wait.
    Close,
    /// Frames go to the spool again.
    Reopen,
    /// Frames go to the sink.
    Direct,
}

/// The state of the sink, as one sees it from outside.
#[derive(Debug)]
pub(super) struct Outage {
    wish: OnOutage,
    /// So long without a report is an outage.
    patience: Duration,
    state: State,
    /// When the state was entered.
    since: Instant,
    reports: u64,
    /// When the sink last reported something; or since when it is waited for.
    progress_at: Instant,
    /// When frames ceased to reach the sink.
    away_since: Option<Instant>,
    /// How long that lasted, the last time.
    lasted: Duration,
    /// When the spool began to drain, if it does.
    drains_since: Option<Instant>,
    /// While anything is behind, no attempt to end it is made before.
    next_attempt: Instant,
    /// How long devices go on after the next one that fails.
    rest: Duration,
}

impl Outage {
    /// With a sink that is thought to be well. `behind` records of an earlier process drain first.
    pub(super) fn new(wish: OnOutage, patience: Duration, behind: u64, now: Instant) -> Self {
        let state = if behind > 0 { State::Draining } else { State::Direct };
        Self {
            wish,
            patience,
            state,
            since: now,
            reports: 0,
            progress_at: now,
            away_since: None,
            lasted: patience,
            drains_since: (behind > 0).then_some(now),
            next_attempt: now,
            rest: patience,
        }
    }

    /// With a sink that is away already, and records of an earlier process to be drained.
    pub(super) fn begun(wish: OnOutage, patience: Duration, now: Instant) -> Self {
        let state = State::Spooling;
        Self { state, away_since: Some(now), drains_since: None, ..Self::new(wish, patience, 0, now) }
    }

    pub(super) fn wish(&self) -> OnOutage {
        self.wish
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// How long the sink has been away; none if it is not.
    pub(super) fn away(&self, now: Instant) -> Option<Duration> {
        self.away_since.map(|since| now.saturating_duration_since(since))
    }

    /// Whether the spool has drained for longer than the outage lasted, and is not empty: frames come as fast as the sink stores them, so they
    /// must come more slowly for it to end.
    pub(super) fn is_overtaken(&self, now: Instant) -> bool {
        let drains = |since| now.saturating_duration_since(since) > self.lasted;
        self.state == State::Draining && self.drains_since.is_some_and(drains)
    }

    /// How often to look while frames are owed.
    pub(super) fn look_every(&self, now: Instant) -> Duration {
        let part = match self.state {
            State::Returning | State::Suspect => 256,
            _ if self.is_overtaken(now) => 64,
            _ => 8,
        };
        (self.patience / part).max(Duration::from_millis(2))
    }

    /// Takes in what is seen and says what is to be done; to be asked again until there is nothing.
    pub(super) fn observe(&mut self, seen: Seen, now: Instant) -> Option<Action> {
        let progress = seen.reports != self.reports;
        if progress {
            self.reports = seen.reports;
            self.progress_at = now;
        }
        let stands_still = self.stands_still(seen, now);
        let in_state = now.saturating_duration_since(self.since);
        let (next, action) = match self.state {
            State::Direct | State::Held if seen.came_back => (State::Suspect, Some(Action::Withdraw)),
            State::Direct if stands_still && self.wish == OnOutage::Spool => {
                (State::Suspect, Some(Action::Withdraw))
            }
            State::Direct if stands_still => (State::Held, None),
            State::Held if !stands_still => (State::Direct, None),
            State::Suspect if seen.all_came_back => match self.wish {
                OnOutage::Spool => (State::Spooling, Some(Action::Spool)),
                OnOutage::Hold => (State::Returning, Some(Action::Retry)),
            },
            State::Spooling if progress || seen.behind == 0 => (State::Draining, None),
            State::Draining if stands_still => (State::Spooling, None),
            State::Draining if seen.behind == 0 || (seen.behind <= LITTLE && now >= self.next_attempt) => {
                (State::Returning, Some(Action::Close))
            }
            State::Returning if seen.behind == 0 => (State::Direct, Some(Action::Direct)),
            State::Returning if self.wish == OnOutage::Spool && in_state > self.patience / ATTEMPT_PART => {
                self.next_attempt = now + self.rest;
                self.rest = (self.rest * 2).min(self.patience * REST_MAX);
                (State::Draining, Some(Action::Reopen))
            }
            _ => return None,
        };
        self.state = next;
        self.since = now;
        if next == State::Direct {
            (self.next_attempt, self.rest) = (now, self.patience);
        }
        match next {
            State::Direct | State::Draining => {
                if let Some(since) = self.away_since.take() {
                    self.lasted = now.saturating_duration_since(since).max(self.patience);
                    self.drains_since = None;
                }
                self.drains_since =
                    if next == State::Draining { self.drains_since.or(Some(now)) } else { None };
            }
            State::Held | State::Suspect | State::Spooling => {
                self.away_since.get_or_insert(now);
            }
            State::Returning => {}
        }
        action
    }

    /// Nothing was reported for `patience` though something is owed; or, where some partitions work and others do not, something
    /// is owed for five times as long.
    fn stands_still(&self, seen: Seen, now: Instant) -> bool {
        let Some(oldest) = seen.oldest else { return false };
        let owed = now.saturating_duration_since(oldest);
        let silent = now.saturating_duration_since(self.progress_at.max(oldest));
        let directly = matches!(self.state, State::Direct | State::Held);
        silent >= self.patience || (directly && owed >= self.patience * 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTAGE_AFTER: Duration = Duration::from_secs(2);

    /// An outage on a clock of its own, with what is seen of it.
    struct Story {
        outage: Outage,
        start: Instant,
        now: Instant,
        seen: Seen,
    }

    impl Story {
        fn begin(on_outage: OnOutage, behind: u64) -> Self {
            let now = Instant::now();
            let seen = Seen { reports: 0, oldest: None, came_back: false, all_came_back: true, behind };
            Self { outage: Outage::new(on_outage, OUTAGE_AFTER, behind, now), start: now, now, seen }
        }

        /// Frames are owed from now on.
        fn owe(&mut self) {
            self.seen.oldest.get_or_insert(self.now);
            self.seen.all_came_back = false;
        }

        /// The sink reports something; what is owed now was handed over now.
        fn report(&mut self) {
            self.seen.reports += 1;
            self.seen.oldest = self.seen.oldest.map(|_| self.now);
        }

        fn all_reported(&mut self) {
            self.seen.oldest = None;
            self.seen.all_came_back = true;
        }

        /// At this many ms, this is done and that is the state.
        #[track_caller]
        fn at(&mut self, ms: u64, action: Option<Action>, state: State) {
            self.now = self.start + Duration::from_millis(ms);
            assert_eq!(self.outage.observe(self.seen, self.now), action, "at {ms} ms");
            assert_eq!(self.outage.state(), state, "at {ms} ms");
        }
    }

    #[test]
    fn a_sink_that_hangs_is_spooled_for_until_it_answers_and_the_spool_is_empty() {
        let mut story = Story::begin(OnOutage::Spool, 0);
        story.owe();
        story.at(1_999, None, State::Direct);
        story.at(2_000, Some(Action::Withdraw), State::Suspect);
        story.at(2_010, None, State::Suspect);
        story.all_reported();
        story.seen.behind = 5_000;
        story.at(2_020, Some(Action::Spool), State::Spooling);
        story.owe();
        story.at(60_000, None, State::Spooling);
        assert_eq!(story.outage.away(story.now), Some(Duration::from_secs(58)));
        story.report();
        story.at(60_001, None, State::Draining);
        assert_eq!(story.outage.away(story.now), None);
        let overtaken = |s| story.outage.is_overtaken(story.start + Duration::from_secs(s));
        assert!(!overtaken(118), "it may take as long as the outage lasted");
        assert!(overtaken(119));
        story.seen.behind = LITTLE;
        story.at(60_500, Some(Action::Close), State::Returning);
        story.seen.behind = 0;
        story.all_reported();
        story.at(60_510, Some(Action::Direct), State::Direct);
    }

    #[test]
    fn a_sink_that_is_away_at_the_start_is_spooled_for_at_once() {
        let mut story = Story::begin(OnOutage::Spool, 3);
        story.outage = Outage::begun(OnOutage::Spool, OUTAGE_AFTER, story.now);
        story.owe();
        story.at(0, None, State::Spooling);
        story.at(60_000, None, State::Spooling);
        assert_eq!(story.outage.away(story.now), Some(Duration::from_mins(1)));
        story.seen.behind = 5_000;
        story.report();
        story.at(60_001, None, State::Draining);
        assert_eq!(story.outage.away(story.now), None);
    }

    #[test]
    fn a_sink_that_nobody_asks_anything_is_not_away() {
        let mut story = Story::begin(OnOutage::Spool, 0);
        story.at(100_000, None, State::Direct);
        story.owe();
        story.at(101_999, None, State::Direct);
    }

    #[test]
    fn a_slow_sink_is_not_away_while_it_makes_progress() {
        let mut story = Story::begin(OnOutage::Spool, 0);
        story.owe();
        for s in 1..100 {
            story.at(s * 1_900, None, State::Direct);
            story.report();
        }
    }

    #[test]
    fn one_partition_without_a_leader_is_an_outage_though_the_others_work() {
        let mut story = Story::begin(OnOutage::Spool, 0);
        story.owe();
        for s in 1..10 {
            story.seen.reports += 1;
            story.at(s * 1_000, None, State::Direct);
        }
        story.seen.reports += 1;
        story.at(10_000, Some(Action::Withdraw), State::Suspect);
    }

    #[test]
    fn frames_that_come_back_unasked_are_spooled_at_once() {
        let mut story = Story::begin(OnOutage::Spool, 0);
        story.owe();
        story.seen.came_back = true;
        story.at(1, Some(Action::Withdraw), State::Suspect);
    }

    #[test]
    fn a_sink_that_dies_again_while_the_spool_drains_is_waited_for_again() {
        let mut story = Story::begin(OnOutage::Spool, 50_000);
        story.owe();
        story.report();
        story.at(500, None, State::Draining);
        story.at(2_600, None, State::Spooling);
        story.report();
        story.at(9_000, None, State::Draining);
        story.seen.behind = 10;
        story.at(9_100, Some(Action::Close), State::Returning);
        story.at(9_350, None, State::Returning);
        story.at(9_351, Some(Action::Reopen), State::Draining);
        story.at(9_351, None, State::Draining);
        story.at(11_200, None, State::Spooling);
    }

    #[test]
    fn an_attempt_to_end_it_that_failed_lets_devices_go_on_for_longer_each_time() {
        let mut story = Story::begin(OnOutage::Spool, 10);
        story.owe();
        let mut ms = 0;
        for rest in [2_000, 4_000, 8_000, 16_000, 16_000] {
            story.at(ms, Some(Action::Close), State::Returning);
            story.report();
            story.at(ms + 250, None, State::Returning);
            ms += 251;
            story.at(ms, Some(Action::Reopen), State::Draining);
            for _ in 0..rest / 1_000 {
                story.at(ms, None, State::Draining);
                story.report();
                ms += 1_000;
            }
            story.at(ms - 1, None, State::Draining);
        }
        // Nothing is behind: nobody would be held back.
        (ms, story.seen.behind) = (ms - 1, 0);
        story.all_reported();
        story.at(ms, Some(Action::Close), State::Returning);
        story.at(ms, Some(Action::Direct), State::Direct);
        // The next outage begins anew.
        story.owe();
        story.at(ms + 2_000, Some(Action::Withdraw), State::Suspect);
        story.at(ms + 2_000, None, State::Suspect);
        story.all_reported();
        story.seen.behind = 10;
        story.at(ms + 2_000, Some(Action::Spool), State::Spooling);
        story.owe();
        story.report();
        story.at(ms + 2_100, None, State::Draining);
        story.at(ms + 2_100, Some(Action::Close), State::Returning);
        story.at(ms + 2_351, Some(Action::Reopen), State::Draining);
        story.report();
        story.at(ms + 4_350, None, State::Draining);
        story.at(ms + 4_351, Some(Action::Close), State::Returning);
    }

    #[test]
    fn with_hold_frames_wait_and_what_came_back_is_tried_again() {
        let mut story = Story::begin(OnOutage::Hold, 0);
        story.owe();
        story.at(2_000, None, State::Held);
        story.report();
        story.at(3_000, None, State::Direct);
        story.seen.came_back = true;
        story.at(3_100, Some(Action::Withdraw), State::Suspect);
        story.all_reported();
        (story.seen.came_back, story.seen.behind) = (false, 7);
        story.at(3_200, Some(Action::Retry), State::Returning);
        story.at(90_000, None, State::Returning);
        story.seen.behind = 0;
        story.at(90_001, Some(Action::Direct), State::Direct);
    }
}
