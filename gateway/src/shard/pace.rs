//! When to let a little more come before looking.
//!
//! A thread that is woken for each single packet pays more for waking than for the packet: the sleep, the switch, the write to its link and
//! the bridge's own waking. A shard that has been woken often for little therefore rests for a moment before it looks
//! again, and finds several packets. One that is woken seldom never rests, so that a lone packet is answered at once; neither does one
//! whose turns bring much anyway.
//!
//! A rest is no gift either: on a virtual machine the timer that ends it costs as much as three wakings by a socket. So it is as long as
//! those who wait can bear: longest while all that comes is QoS 0 on its way to the sink, for which nobody waits, shorter while frames
//! wait for their acknowledgement. A shard whose work is to deliver does not rest at all: each message would wait twice, at its publisher's shard
//! and at its own, and too few come meanwhile to pay for the timers.

use std::time::Duration;

use holdfast_engine::Stats;

/// Turns in one window from which on resting pays: 2,000 a second. Of a shard that rests, events.
const BUSY_TURNS: u32 = 20;
/// Events per turn from which on there is nothing to gain.
const FULL_TURN_EVENTS: u32 = 16;
/// Events per window from which on turns are full without a rest: 50,000 a second.
const FULL_WINDOW_EVENTS: u32 = 500;
/// Length of a window, in ms.
const WINDOW_MS: u64 = 10;

/// Events per window, 7,500 a second, beyond which rests of a shard whose frames are awaited grow shorter: each gathers as many as at this rate.
const EVENTS_GATHERED: u32 = 75;
/// While nobody waits for anything, rests are so much longer than while frames wait for their acknowledgement.
const UNAWAITED_TIMES: u32 = 5;
/// With at least one delivery for so many events, delivering is what the shard does.
const EVENTS_PER_DELIVERY: u64 = 4;

/// Decides from the last window whether, and how long, turns of this one rest first.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    batch: Duration,
    rest: Option<Duration>,
    window_ends_ms: u64,
    turns: u32,
    events: u32,
    traffic: Traffic,
}

/// What came and went, since the start or since another moment.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    awaited: u64,
    delivered: u64,
}

impl Traffic {
    fn of(stats: &Stats) -> Self {
        Self { awaited: stats.received[1] + stats.received[2], delivered: stats.sent.iter().sum() }
    }
}

impl Pace {
    /// A pace that rests for `batch` while frames wait for their acknowledgement; zero never rests.
    pub(crate) fn new(batch: Duration) -> Self {
        Self { batch, ..Self::default() }
    }

    /// A turn began with so many events; `stats` are the engine's until then.
    pub(crate) fn note_turn(&mut self, events: usize, stats: &Stats, now_ms: u64) {
        if now_ms >= self.window_ends_ms {
            let traffic = Traffic::of(stats);
            let is_recent = now_ms < self.window_ends_ms + WINDOW_MS;
            let pays = match self.rest {
                None => self.turns >= BUSY_TURNS && self.events < self.turns * FULL_TURN_EVENTS,
                // Resting itself makes turns fewer, and fuller.
                Some(_) => (BUSY_TURNS..FULL_WINDOW_EVENTS).contains(&self.events),
            };
            self.rest = if is_recent && pays { self.bearable(traffic) } else { None };
            self.traffic = traffic;
            (self.turns, self.events) = (0, 0);
            self.window_ends_ms = now_ms + WINDOW_MS;
        }
        self.turns += 1;
        self.events += events as u32;
    }

    /// How long to rest before looking again.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.rest
    }

    fn bearable(&self, traffic: Traffic) -> Option<Duration> {
        let delivered = traffic.delivered - self.traffic.delivered;
        let is_awaited = traffic.awaited > self.traffic.awaited;
        let rest = match delivered {
            0 if !is_awaited => UNAWAITED_TIMES * self.batch,
            few if few * EVENTS_PER_DELIVERY < u64::from(self.events) => {
                self.batch * EVENTS_GATHERED / self.events.max(EVENTS_GATHERED)
            }
            _ => return None,
        };
        (!rest.is_zero()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_micros(200);

    /// Turns of so many events, one every `every_us`, for 100 ms, each with the traffic that `note` adds; the rest before the next one.
    fn rest_after(events: usize, every_us: u64, mut note: impl FnMut(&mut Stats)) -> Option<Duration> {
        let mut pace = Pace::new(REST);
        let mut stats = Stats::default();
        for at_us in (0..100_000).step_by(every_us as usize) {
            note(&mut stats);
            pace.note_turn(events, &stats, at_us / 1_000);
        }
        pace.rest()
    }

    #[test]
    fn only_a_shard_that_is_woken_often_for_little_rests() {
        let unawaited = |stats: &mut Stats| stats.received[0] += 1;
        assert!(rest_after(1, 100, unawaited).is_some());
        assert!(rest_after(1, 1_000, unawaited).is_none(), "woken seldom");
        assert!(rest_after(50, 100, unawaited).is_none(), "turns that bring much");
    }

    #[test]
    fn the_less_is_waited_for_the_longer_it_rests() {
        let rest = |note: fn(&mut Stats)| rest_after(1, 200, note);
        assert_eq!(rest(|stats| stats.received[0] += 1), Some(UNAWAITED_TIMES * REST));
        assert_eq!(rest(|stats| stats.received[1] += 1), Some(REST));
        assert_eq!(rest(|stats| stats.received[2] += 1), Some(REST));
        assert_eq!(rest(|stats| stats.sent[0] += 1), None);
    }

    #[test]
    fn the_more_comes_the_shorter_those_who_wait_let_it_rest() {
        let rest = |events, qos: usize| rest_after(events, 400, |stats| stats.received[qos] += events as u64);
        assert_eq!(rest(3, 1), Some(REST), "7,500 a second");
        assert_eq!(rest(12, 1), Some(REST / 4), "30,000 a second");
        assert_eq!(rest(12, 0), Some(UNAWAITED_TIMES * REST), "nobody waits");
    }

    #[test]
    fn a_delivery_now_and_then_shortens_rests_and_does_not_end_them() {
        let mut turns = 0;
        let seldom = |stats: &mut Stats| {
            turns += 1;
            stats.received[0] += 1;
            stats.sent[1] += u64::from(turns % 20 == 0);
        };
        assert_eq!(rest_after(1, 200, seldom), Some(REST));
    }

    #[test]
    fn a_shard_that_rests_goes_on_while_its_turns_are_few_and_fuller_but_not_flat_out() {
        let mut pace = Pace::new(REST);
        let stats = Stats::default();
        (0..200).for_each(|turn| pace.note_turn(1, &stats, turn / 10));
        assert!(pace.rest().is_some());
        (10..50).for_each(|turn| pace.note_turn(20, &stats, turn * 2));
        assert!(pace.rest().is_some(), "10,000 events a second in turns of 20");
        (50..100).for_each(|turn| pace.note_turn(200, &stats, turn * 2));
        assert!(pace.rest().is_none(), "100,000 events a second");
    }

    #[test]
    fn a_lone_packet_after_a_busy_time_is_answered_at_once() {
        let mut pace = Pace::new(REST);
        let stats = Stats::default();
        (0..200).for_each(|turn| pace.note_turn(1, &stats, turn / 10));
        assert!(pace.rest().is_some());
        pace.note_turn(1, &stats, 5_000);
        assert!(pace.rest().is_none());
    }
}
