//! When to let a little more come before looking.
//!
//! A thread that is woken for each single packet pays more for waking than for the packet: the sleep, the switch, the write to its link and
//! the bridge's own waking. A shard that has been woken often for little therefore rests for a moment before it looks
//! again, and finds several packets. One that is woken seldom never rests, so that a lone packet is answered at once; neither does one
//! whose turns bring much anyway.

use std::time::Duration;

/// Turns in one window from which on resting pays: 2,000 a second.
const BUSY_TURNS: u32 = 20;
/// Events per turn from which on there is nothing to gain.
const FULL_TURN_EVENTS: u32 = 16;
/// Length of a window, in ms.
const WINDOW_MS: u64 = 10;

/// Decides from the last window whether turns of this one rest first.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    rest: Duration,
    window_ends_ms: u64,
    turns: u32,
    events: u32,
    rests: bool,
}

impl Pace {
    /// A pace whose rests last this long; zero never rests.
    pub(crate) fn new(rest: Duration) -> Self {
        Self { rest, ..Self::default() }
    }

    /// A turn began with so many events.
    pub(crate) fn note_turn(&mut self, events: usize, now_ms: u64) {
        if now_ms >= self.window_ends_ms {
            // Resting itself makes turns fewer: while it does, half as many keep it up.
            let busy = if self.rests { BUSY_TURNS / 2 } else { BUSY_TURNS };
            let is_recent = now_ms < self.window_ends_ms + WINDOW_MS;
            self.rests = is_recent && self.turns >= busy && self.events < self.turns * FULL_TURN_EVENTS;
            (self.turns, self.events) = (0, 0);
            self.window_ends_ms = now_ms + WINDOW_MS;
        }
        self.turns += 1;
        self.events += events as u32;
    }

    /// How long to rest before looking again.
    pub(crate) fn rest(&self) -> Option<Duration> {
        (self.rests && !self.rest.is_zero()).then_some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of so many events, one every `every_us`, for 100 ms; whether the last one rests.
    fn rests_after(events: usize, every_us: u64) -> bool {
        let mut pace = Pace::new(Duration::from_micros(200));
        for at_us in (0..100_000).step_by(every_us as usize) {
            pace.note_turn(events, at_us / 1_000);
        }
        pace.rest().is_some()
    }

    #[test]
    fn only_a_shard_that_is_woken_often_for_little_rests() {
        assert!(rests_after(1, 100));
        assert!(!rests_after(1, 1_000), "woken seldom");
        assert!(!rests_after(50, 100), "turns that bring much");
    }

    #[test]
    fn a_lone_packet_after_a_busy_time_is_answered_at_once() {
        let mut pace = Pace::new(Duration::from_micros(200));
        (0..200).for_each(|turn| pace.note_turn(1, turn / 10));
        assert!(pace.rest().is_some());
        pace.note_turn(1, 5_000);
        assert!(pace.rest().is_none());
    }
}
