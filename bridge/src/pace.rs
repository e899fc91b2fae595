//! When the bridge's thread rests for a moment before it looks again.
//!
//! A frame wakes the thread when its link brings it and again when the sink has it, and on most machines a waking costs more than what is done about
//! the frame. A thread that is woken often for little therefore sleeps before it looks, and finds several frames and several verdicts. One that is
//! woken seldom never rests, so that a lone frame is answered at once; neither does one whose turns bring much anyway. A bridge for
//! whose every four frames there is a delivery does not rest either: each message would wait for it. With fewer deliveries it rests, and they wait up to a
//! rest. A delivery counts when its shard reports it, not when it is sent, so one that nobody reports, such as a push to a topic, does not count;
//! a frame that somebody hears counts when it comes up.
//!
//! Pure but for its counters. Shards rest by a rule of their own, in `pace` of the gateway: what they can count differs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Length of a window.
const WINDOW: Duration = Duration::from_millis(10);
/// Turns in one window from which on resting pays: 2,000 a second.
const BUSY_TURNS: u32 = 20;
/// Frames in one window below which a rest gathers too little: 1,000 a second.
const FRAMES_MIN: u32 = 10;
/// ... from which on turns are full without a rest: 100,000 a second.
const FRAMES_MAX: u32 = 1_000;
/// Frames in one window, 10,000 a second, beyond which rests grow shorter: each gathers as many as at this rate, and those who wait for their
/// acknowledgement wait less.
const FRAMES_GATHERED: u32 = 100;
/// With at least one delivery for so many frames, delivering is what the bridge does.
const FRAMES_PER_DELIVERY: u32 = 4;

/// Decides from the last window whether, and how long, turns of this one rest first.
#[derive(Debug)]
pub(crate) struct Pace {
    batch: Duration,
    frames: AtomicU32,
    deliveries: AtomicU32,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    turns: u32,
    rest: Option<Duration>,
}

impl Pace {
    /// A pace that rests for `batch`; zero never rests.
    pub(crate) fn new(batch: Duration) -> Self {
        Self { batch, frames: AtomicU32::new(0), deliveries: AtomicU32::new(0), window: Mutex::default() }
    }

    /// So many frames came up.
    pub(crate) fn note_frames(&self, frames: u64) {
        self.frames.fetch_add(frames as u32, Ordering::Relaxed);
    }

    /// A shard reported a message that went down, or somebody hears a frame that came up.
    pub(crate) fn note_delivery(&self) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// A turn is over: how long to rest before the next one.
    pub(crate) fn rest(&self, now: Instant) -> Option<Duration> {
        if self.batch.is_zero() {
            return None;
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let age = window.since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        if age >= WINDOW {
            let frames = self.frames.swap(0, Ordering::Relaxed);
            let deliveries = self.deliveries.swap(0, Ordering::Relaxed);
            let is_recent = age < 2 * WINDOW;
            // Resting itself makes turns fewer.
            let is_woken_often = window.rest.is_some() || window.turns >= BUSY_TURNS;
            let delivers = deliveries.saturating_mul(FRAMES_PER_DELIVERY) >= frames;
            let pays = is_recent && is_woken_often && !delivers && (FRAMES_MIN..FRAMES_MAX).contains(&frames);
            window.rest = pays.then(|| self.batch * FRAMES_GATHERED / frames.max(FRAMES_GATHERED));
            window.turns = 0;
            window.since = Some(now);
        }
        window.turns += 1;
        window.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_micros(400);

    /// A turn with so many frames and deliveries every `every_us`, for 100 ms from `from_ms`; the rest after the last one.
    fn rest_after(
        pace: &Pace,
        from_ms: u64,
        every_us: u64,
        frames: u64,
        deliveries: usize,
    ) -> Option<Duration> {
        // So that all calls of a test share one clock.
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let begun = *BEGUN.get_or_init(Instant::now) + Duration::from_millis(from_ms);
        let mut rest = None;
        for at_us in (0..100_000).step_by(every_us as usize) {
            pace.note_frames(frames);
            (0..deliveries).for_each(|_| pace.note_delivery());
            rest = pace.rest(begun + Duration::from_micros(at_us));
        }
        rest
    }

    #[test]
    fn only_a_thread_that_is_woken_often_for_little_rests() {
        let rest = |every_us, frames| rest_after(&Pace::new(REST), 0, every_us, frames, 0);
        assert_eq!(rest(200, 2), Some(REST));
        assert_eq!(rest(2_000, 2), None, "woken seldom");
        assert_eq!(rest(200, 100), None, "turns that bring much");
        assert_eq!(rest(200, 0), None, "woken for something else");
        assert_eq!(rest_after(&Pace::new(Duration::ZERO), 0, 200, 2, 0), None, "not wanted");
    }

    #[test]
    fn a_thread_that_rests_goes_on_while_its_turns_are_few_and_fuller() {
        let pace = Pace::new(REST);
        assert!(rest_after(&pace, 0, 200, 2, 0).is_some());
        assert!(rest_after(&pace, 100, 1_000, 10, 0).is_some());
        assert!(rest_after(&pace, 200, 200, 100, 0).is_none(), "flat out");
    }

    #[test]
    fn the_more_frames_come_the_shorter_it_rests() {
        let rest = |frames| rest_after(&Pace::new(REST), 0, 200, frames, 0);
        assert_eq!(rest(1), Some(REST), "5,000 a second");
        assert_eq!(rest(2), Some(REST), "10,000 a second");
        assert_eq!(rest(8), Some(REST / 4), "40,000 a second");
    }

    #[test]
    fn a_bridge_that_delivers_does_not_rest() {
        assert_eq!(rest_after(&Pace::new(REST), 0, 200, 2, 1), None);
        let pace = Pace::new(REST);
        assert!(rest_after(&pace, 0, 200, 2, 0).is_some());
        assert_eq!(rest_after(&pace, 100, 500, 2, 1), None);
    }

    #[test]
    fn a_lone_frame_after_a_busy_time_is_answered_at_once() {
        let pace = Pace::new(REST);
        assert!(rest_after(&pace, 0, 200, 2, 0).is_some());
        assert_eq!(rest_after(&pace, 5_000, 200_000, 1, 0), None);
    }
}
