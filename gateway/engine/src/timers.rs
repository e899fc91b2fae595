//! One timer for each connection, in a wheel.
//!
//! An entry is not moved when its deadline moves (each packet moves the keep alive): when it comes up, its owner says whether it is due
//! or to be looked at again later. So a packet costs no timer work, and an entry costs eight bytes.

use crate::input::ConnectionId;

/// Width of a slot: how late a timer may come.
pub(crate) const TICK_MS: u64 = 250;
/// Reach of the wheel: 256 s. What lies beyond comes up at its edge and is put in again.
const SLOTS: usize = 1024;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Timers {
    slots: Box<[Vec<ConnectionId>]>,
    /// The first tick that has not come up yet.
    next_tick: u64,
    count: usize,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next_tick: 0, count: 0 }
    }

    /// Looks at `id` again at `at_ms`, or as soon as that is in reach. Returns the tick at which the entry comes up; a connection that is
    /// given another entry remembers the newer tick and passes over the older one.
    #[must_use]
    pub(crate) fn schedule(&mut self, id: ConnectionId, at_ms: u64) -> u32 {
        let tick = at_ms.div_ceil(TICK_MS).clamp(self.next_tick, self.next_tick + SLOTS as u64 - 1);
        self.slots[tick as usize % SLOTS].push(id);
        self.count += 1;
        tick as u32
    }

    /// Takes the entries of the next tick that has come up by `now_ms`; `None` once there are no more.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<(u32, Vec<ConnectionId>)> {
        let last_due_tick = now_ms / TICK_MS;
        if self.count == 0 {
            self.next_tick = self.next_tick.max(last_due_tick + 1);
            return None;
        }
        while self.next_tick <= last_due_tick {
            let tick = self.next_tick;
            let slot = &mut self.slots[tick as usize % SLOTS];
            self.next_tick += 1;
            if !slot.is_empty() {
                self.count -= slot.len();
                return Some((tick as u32, std::mem::take(slot)));
            }
        }
        None
    }

    /// When the next entry comes up.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        (self.next_tick..self.next_tick + SLOTS as u64)
            .find(|tick| !self.slots[*tick as usize % SLOTS].is_empty())
            .map(|tick| tick * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 0 }
    }

    fn due(timers: &mut Timers, now_ms: u64) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some((_, some)) = timers.take_due(now_ms) {
            all.extend(some.iter().map(|id| id.slot));
        }
        all
    }

    #[test]
    fn a_timer_comes_up_never_early_and_at_most_a_tick_late() {
        let mut timers = Timers::new();
        let _ = timers.schedule(id(1), 1_001);
        assert_eq!(timers.next_ms(), Some(1_250));
        assert!(due(&mut timers, 1_249).is_empty());
        assert_eq!(due(&mut timers, 1_250), [1]);
        assert_eq!(timers.next_ms(), None);
    }

    #[test]
    fn what_lies_beyond_the_wheel_comes_up_at_its_edge() {
        let mut timers = Timers::new();
        let _ = timers.schedule(id(1), 10_000_000);
        assert_eq!(timers.next_ms(), Some((SLOTS as u64 - 1) * TICK_MS));
        assert_eq!(due(&mut timers, 300_000), [1]);
    }

    #[test]
    fn a_clock_that_leaps_brings_everything_up_once() {
        let mut timers = Timers::new();
        for slot in 0..100 {
            let _ = timers.schedule(id(slot), u64::from(slot) * 1_000);
        }
        let mut all = due(&mut timers, 10_000_000);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(due(&mut timers, 20_000_000).is_empty());
    }

    #[test]
    fn a_timer_set_in_the_past_comes_up_at_the_next_look() {
        let mut timers = Timers::new();
        assert!(due(&mut timers, 5_000).is_empty());
        let _ = timers.schedule(id(7), 10);
        assert_eq!(due(&mut timers, 5_250), [7]);
    }
}
