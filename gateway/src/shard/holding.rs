//! A process that did not run until its lease had run out, and a node that was declared dead.
//!
//! While it was stopped, or its machine slept, others may have declared it dead and taken its sessions. What lies in its sockets and what it was about to
//! say belongs to a past that may not be its own any more, so a shard that comes to itself after so long touches none of it before the store
//! has said what became of the node. A busy loop or a store that is away are no such sleep.

use std::mem;
use std::time::Duration;

use holdfast_engine::{LeaseWord, Now};

use super::{Letter, Phase, Shard, ShardReport};
use crate::lease::{Sleep, Standing};

/// When the thread last ran, and how long it meant to sleep from then on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awake {
    pub(super) at: Now,
    pub(super) sleep_ms: u64,
}

/// How long last words may take to leave once the node was declared dead, in ms.
pub(super) const LAST_WORDS_MS: u64 = 2_000;

/// How often a shard that holds looks into its mailbox.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Awake {
    pub(super) fn starting(now: Now) -> Self {
        Self { at: now, sleep_ms: 0 }
    }

    /// For how long it did not run, in ms, by whichever clock went on: a machine that sleeps may stop the monotonic one. A system clock that is set forward looks
    /// the same, and costs a question to the store.
    pub(super) fn slept_ms(self, now: Now) -> u64 {
        let monotonic_ms = now.monotonic_ms.saturating_sub(self.at.monotonic_ms);
        let unix_ms = now.unix_ms.saturating_sub(self.at.unix_ms);
        monotonic_ms.max(unix_ms).saturating_sub(self.sleep_ms)
    }
}

impl Shard {
    /// The present. Before that, if the process did not run and has no lease left, holds until the store has said whether the node still may own sessions. With a store
    /// that does not answer that takes as long as the store is away: whoever slept for long cannot know that it was away all the while. Where it was away before a
    /// shorter sleep, one answer that does not come is enough.
    pub(super) fn wake(&mut self) -> Now {
        let now = self.clock.now();
        let before = mem::replace(&mut self.awake, Awake::starting(now));
        let slept_ms = before.slept_ms(now);
        if matches!(self.phase, Phase::Buried(_) | Phase::Stopped) {
            return now;
        }
        let sleep = self.lease.judge_sleep(before.at.monotonic_ms, before.sleep_ms, slept_ms);
        if sleep == Sleep::Short {
            return now;
        }
        tracing::warn!(
            slept_ms,
            "the process did not run and its lease has run out; nothing is read or answered before the session store has said whether it still owns its sessions"
        );
        self.stats.holds += 1;
        let since_ms = now.monotonic_ms.max(1);
        loop {
            match self.lease.await_word(since_ms, LOOK_EVERY) {
                // As before the sleep, when the node went on all the same.
                Standing::Unknown if sleep == Sleep::Lapsed && self.lease.has_failed_since(since_ms) => break,
                Standing::Unknown => self.answer_while_held(),
                Standing::Renewed => break,
                Standing::Buried => {
                    self.handle_lease(LeaseWord::Buried, now);
                    break;
                }
            }
            if self.phase == Phase::Stopped {
                // Nobody waits for the word any more: it ends as if it had been declared dead, which whoever reaps will see to.
                self.engine.handle_lease(LeaseWord::Buried, now);
                break;
            }
        }
        let now = self.clock.now();
        self.awake = Awake::starting(now);
        now
    }

    /// What the store said of the node's lease.
    pub(super) fn handle_lease(&mut self, word: LeaseWord, now: Now) {
        if matches!(self.phase, Phase::Buried(_) | Phase::Stopped) {
            return;
        }
        self.engine.handle_lease(word, now);
        if word == LeaseWord::Buried {
            self.phase = Phase::Buried(self.clock.now().monotonic_ms);
            self.listeners.clear();
            // The bridges turn to the sessions' next owners the sooner.
            self.links.clear();
        }
    }

    /// Supervisors hear that the loop turns, and may end it. Everything else waits.
    fn answer_while_held(&mut self) {
        self.mailbox.take(&mut self.letters);
        for letter in mem::take(&mut self.letters) {
            match letter {
                Letter::Report(answer) => {
                    let report =
                        ShardReport { connections: self.engine.connections(), links_up: self.links_up() };
                    let _ = answer.send(report);
                }
                Letter::Stop => self.phase = Phase::Stopped,
                letter => self.letters.push_back(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_that_was_meant_is_none() {
        let at = Now { monotonic_ms: 10_000, unix_ms: 1_000_000 };
        let awake = Awake { at, sleep_ms: 1_000 };
        let later = |monotonic_ms, unix_ms| Now {
            monotonic_ms: at.monotonic_ms + monotonic_ms,
            unix_ms: at.unix_ms + unix_ms,
        };
        assert_eq!(awake.slept_ms(later(400, 400)), 0);
        assert_eq!(awake.slept_ms(later(1_003, 1_003)), 3);
        assert_eq!(awake.slept_ms(later(21_000, 21_000)), 20_000);
        assert_eq!(awake.slept_ms(later(1_000, 61_000)), 60_000, "a machine that slept");
        assert_eq!(awake.slept_ms(Now { monotonic_ms: 10_500, unix_ms: 0 }), 0, "a clock that was set back");
    }
}
