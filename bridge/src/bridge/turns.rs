//! The turns of a bridge that has one thread.
//!
//! ```text
//!   tasks ──(nothing to do)──> rest, if that pays ──> verdicts of the sink ──> what links brought
//!     ^                                                                              │
//!     └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//! What came during a rest, from links and from the sink, is seen to in one turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::pace::Pace;
use crate::sink::Sink;

/// So long a verdict may lie with the sink while turns rest: when no link brings anything, nothing else ends the thread's sleep.
const TURN_MAX: Duration = Duration::from_millis(1);

pub(super) struct Turns {
    pace: Arc<Pace>,
    sink: Arc<dyn Sink>,
    /// Turns rest, and the sink keeps its verdicts for them.
    rests: AtomicBool,
    begun: Notify,
}

impl Turns {
    pub(super) fn new(pace: Arc<Pace>, sink: Arc<dyn Sink>) -> Self {
        Self { pace, sink, rests: AtomicBool::new(false), begun: Notify::new() }
    }

    /// The thread has nothing to do at `now`. Blocks it for as long as it rests.
    pub(super) fn end(&self, now: Instant) {
        let rest = self.pace.rest(now);
        let rested = self.rests.swap(rest.is_some(), Ordering::AcqRel);
        match rest {
            Some(rest) => {
                if !rested {
                    self.begun.notify_one();
                }
                std::thread::sleep(rest);
                self.sink.take_verdicts();
            }
            None if rested => self.sink.leave_verdicts(),
            None => {}
        }
    }

    /// Bounds the turns while they rest, those that sleep and those that have so much to do that they never end.
    pub(super) async fn bound(self: Arc<Self>) {
        loop {
            self.begun.notified().await;
            while self.rests.load(Ordering::Acquire) {
                sleep(TURN_MAX).await;
                // The thread that would leave them is this one.
                if self.rests.load(Ordering::Acquire) {
                    self.sink.take_verdicts();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sink::{Lane, SinkHealth};

    /// Notes what it is told.
    #[derive(Default)]
    struct Noting(Mutex<Vec<&'static str>>);

    impl Noting {
        fn told(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Sink for Noting {
        fn lane(&self) -> Box<dyn Lane> {
            unreachable!("no frame comes")
        }

        fn health(&self) -> SinkHealth {
            SinkHealth { kind: "noting", stores: true, spool: None }
        }

        fn take_verdicts(&self) {
            self.0.lock().unwrap().push("taken");
        }

        fn leave_verdicts(&self) {
            self.0.lock().unwrap().push("left");
        }
    }

    #[test]
    fn verdicts_are_taken_while_turns_rest_and_left_to_the_sink_when_they_do_not() {
        let sink = Arc::new(Noting::default());
        let pace = Arc::new(Pace::new(Duration::from_micros(1)));
        let turns = Turns::new(Arc::clone(&pace), Arc::clone(&sink) as Arc<dyn Sink>);
        let begun = Instant::now();
        let at = |us| begun + Duration::from_micros(us);
        for turn in 0..100 {
            pace.note_frames(2);
            turns.end(at(turn * 200));
        }
        let told = sink.told();
        assert!(told.len() > 10 && told.iter().all(|told| *told == "taken"), "{told:?}");
        turns.end(at(1_000_000));
        assert_eq!(sink.told(), ["left"]);
        turns.end(at(1_000_100));
        assert!(sink.told().is_empty());
    }
}
