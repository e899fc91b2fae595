//! How many opens may be on their way to the store at once. Pure: it knows no connection, and time is an argument.
//!
//! | What an open comes to | What follows |
//! | --- | --- |
//! | answered within [`PROMPT_MS`] while others wait | one more may be on its way: so the window doubles with each round of answers |
//! | answered within [`LATE_MS`] while others wait | one more for each round of answers |
//! | answered, or failed, later than that | half as many, once for each round |
//! | [`FAILED_MAX`] failed, and none was answered between them | the store is away: [`PROBES`], and a rest of [`REST_MS`] after each failure |
//!
//! The time of an answer tells how many questions stand in front of a store, whoever asked them, so shards and gateways that share one find
//! their shares without knowing of each other: what they grow by is the same for all, and what they give up is half of what each has. A failure that
//! comes at once says nothing of that: of a cluster with one primary away two thirds go on at full speed. Where nobody has waited there is nothing to
//! remember: a window begins anew at [`FIRST`].

/// It grows fast as long as answers come within this, in ms. At this pace it overshoots by a factor of two, which is far from [`LATE_MS`].
const PROMPT_MS: u64 = 100;
/// Answers later than this make it smaller, in ms: a fifth of the time after which a store gives a question up, so that one which becomes four
/// times as slow from one moment to the next still answers what it was asked before.
pub(super) const LATE_MS: u64 = 400;
/// It is never smaller: a store that is slow to answer whatever it is asked is asked some more at once. Sixty shards that share one need 500 answers a second.
const FLOOR: u32 = 16;
/// As many are asked at once of a store that counts as away.
const PROBES: u32 = 4;
/// Where it begins.
pub(super) const FIRST: u32 = 32;
/// It is never larger. Beyond the 100 ms that a store in good health has for each, that is 10,000 opens a second of one shard.
const CEILING: u32 = 1_024;
/// Failures in a row after which a store counts as away.
const FAILED_MAX: u32 = 8;
/// After each further one it is left alone for so long, in ms: so soon it is noticed that it is back.
const REST_MS: u64 = 250;

/// One shard's.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    /// Answers since it grew by one, where it grows by one with each round.
    answered: u32,
    in_flight: u32,
    /// The last one that was asked.
    last_asked: u64,
    /// ... when it was made smaller: answers to that one and those before come from a time when it was larger.
    halved: u64,
    /// In a row.
    failed: u32,
    rests_until_ms: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST,
            answered: 0,
            in_flight: 0,
            last_asked: 0,
            halved: 0,
            failed: 0,
            rests_until_ms: 0,
        }
    }
}

impl Window {
    /// How many may be on their way.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Whether one more may be asked now.
    pub(super) fn has_room(&self, now_ms: u64) -> bool {
        self.in_flight < self.size && self.rests_until_ms <= now_ms
    }

    /// When there is room without a further answer; none: it takes one.
    pub(super) fn room_ms(&self) -> Option<u64> {
        (self.in_flight < self.size).then_some(self.rests_until_ms)
    }

    /// Somebody comes and nobody waits: what it was is no measure of what the store answers now, unless it is away.
    pub(super) fn begin(&mut self) {
        if self.in_flight == 0 && self.failed == 0 {
            (self.size, self.answered) = (FIRST, 0);
        }
    }

    /// One is asked, under a number above all before.
    pub(super) fn ask(&mut self, number: u64) {
        self.in_flight += 1;
        self.last_asked = number;
    }

    /// One was answered after so long. `others_wait` for room.
    pub(super) fn handle_answer(&mut self, number: u64, took_ms: u64, others_wait: bool) {
        self.in_flight -= 1;
        (self.failed, self.rests_until_ms) = (0, 0);
        if took_ms > LATE_MS {
            self.halve(number);
        } else if others_wait {
            self.answered += 1;
            if took_ms <= PROMPT_MS || self.answered >= self.size {
                self.answered = 0;
                self.size = (self.size + 1).min(CEILING);
            }
        }
    }

    /// The store could not answer one, after so long.
    pub(super) fn handle_failure(&mut self, number: u64, took_ms: u64, now_ms: u64) {
        self.in_flight -= 1;
        if took_ms > LATE_MS {
            self.halve(number);
        }
        self.failed = (self.failed + 1).min(FAILED_MAX);
        if self.failed == FAILED_MAX {
            (self.size, self.answered) = (PROBES, 0);
            self.rests_until_ms = now_ms + REST_MS;
        }
    }

    fn halve(&mut self, number: u64) {
        if number > self.halved {
            self.size = (self.size / 2).max(FLOOR);
            (self.answered, self.halved) = (0, self.last_asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Windows in front of one store that takes a while for each question and answers in the order they came. All have more to ask at any time.
    struct Crowd {
        windows: Vec<Window>,
        /// Whose, its number and when it was asked.
        asked: VecDeque<(usize, u64, u64)>,
        number: u64,
        answered: Vec<u64>,
        slowest_ms: u64,
    }

    impl Crowd {
        fn new(windows: usize) -> Self {
            Self {
                windows: (0..windows).map(|_| Window::default()).collect(),
                asked: VecDeque::new(),
                number: 0,
                answered: vec![0; windows],
                slowest_ms: 0,
            }
        }

        /// From `from_ms` on, until `until_ms`, the store gives so many answers a second.
        fn runs(&mut self, from_ms: u64, until_ms: u64, per_s: u64) {
            self.slowest_ms = 0;
            for now_ms in from_ms..until_ms {
                for (place, window) in self.windows.iter_mut().enumerate() {
                    while window.has_room(now_ms) {
                        self.number += 1;
                        window.ask(self.number);
                        self.asked.push_back((place, self.number, now_ms));
                    }
                }
                let answers = (now_ms + 1) * per_s / 1_000 - now_ms * per_s / 1_000;
                for _ in 0..answers {
                    let Some((place, number, asked_ms)) = self.asked.pop_front() else { break };
                    let took_ms = now_ms + 1 - asked_ms;
                    self.slowest_ms = self.slowest_ms.max(took_ms);
                    self.windows[place].handle_answer(number, took_ms, true);
                    self.answered[place] += 1;
                }
            }
        }
    }

    #[test]
    fn a_fast_store_is_kept_busy_within_moments() {
        let mut crowd = Crowd::new(1);
        crowd.runs(0, 1_000, 8_000);
        assert!(crowd.answered[0] >= 7_900, "{:?} of 8,000", crowd.answered);
        assert!(crowd.slowest_ms <= 250, "{} ms", crowd.slowest_ms);
    }

    #[test]
    fn no_question_waits_for_long_in_front_of_a_store_however_many_share_it_and_however_slow_it_becomes() {
        for (windows, per_s) in [(1, 300), (4, 1_000), (24, 2_000)] {
            let mut crowd = Crowd::new(windows);
            crowd.runs(0, 10_000, per_s);
            let answered: u64 = crowd.answered.iter().sum();
            assert!(answered >= 10 * per_s * 98 / 100, "{windows} windows: {answered} of {}", 10 * per_s);
            assert!(crowd.slowest_ms <= 900, "{windows} windows: {} ms", crowd.slowest_ms);
            // Four times as slow at once: what stands in front of it by then is late, but is answered within its 2 s.
            crowd.runs(10_000, 20_000, per_s / 4);
            assert!(crowd.slowest_ms <= 2_000, "{windows} windows: {} ms", crowd.slowest_ms);
            crowd.runs(20_000, 25_000, per_s / 4);
            assert!(crowd.slowest_ms <= 900, "{windows} windows: {} ms", crowd.slowest_ms);
        }
    }

    #[test]
    fn who_comes_later_gets_a_share() {
        let mut crowd = Crowd::new(4);
        // They have grown to a multiple of the share of one that begins now.
        crowd.runs(0, 5_000, 4_000);
        crowd.windows.push(Window::default());
        crowd.answered = vec![0; 5];
        crowd.runs(5_000, 25_000, 4_000);
        assert!(crowd.answered[4] >= 20 * 4_000 / 5 / 4, "{:?}", crowd.answered);
    }

    #[test]
    fn one_late_round_halves_it_once_and_not_below_its_floor() {
        let mut window = Window::default();
        (1..=32).for_each(|number| window.ask(number));
        (1..=32).for_each(|number| window.handle_answer(number, 1, true));
        assert_eq!(window.size(), 64);
        (33..=96).for_each(|number| window.ask(number));
        (33..=96).for_each(|number| window.handle_answer(number, LATE_MS + 1, true));
        assert_eq!(window.size(), 32);
        for (number, size) in [(97, 16), (98, FLOOR)] {
            window.ask(number);
            window.handle_answer(number, LATE_MS + 1, true);
            assert_eq!(window.size(), size);
        }
    }

    #[test]
    fn it_does_not_grow_while_nobody_waits_for_room() {
        let mut window = Window::default();
        for number in 1..1_000 {
            window.ask(number);
            window.handle_answer(number, 1, false);
        }
        assert_eq!(window.size(), FIRST);
    }

    #[test]
    fn a_store_that_is_away_is_asked_now_and_then_and_at_full_speed_once_it_is_back() {
        let mut window = Window::default();
        let mut number = 0;
        let mut asked = 0;
        for now_ms in 0..10_000 {
            while window.has_room(now_ms) {
                (number, asked) = (number + 1, asked + 1);
                window.ask(number);
                window.handle_failure(number, 0, now_ms);
            }
        }
        assert!((30..=60).contains(&asked), "{asked} times in 10 s");
        let room_ms = window.room_ms().expect("the rest ends by itself");
        assert!((10_000..10_250).contains(&room_ms));
        // Answers within a millisecond.
        for _ in 0..8 {
            let first = number + 1;
            while window.has_room(room_ms) {
                number += 1;
                window.ask(number);
            }
            (first..=number).for_each(|number| window.handle_answer(number, 1, true));
        }
        assert_eq!(window.size(), CEILING);
    }

    #[test]
    fn failures_among_answers_do_not_make_it_smaller() {
        let mut window = Window::default();
        for number in 1..3_000 {
            window.ask(number);
            if number % 3 == 0 {
                window.handle_failure(number, 0, 0);
            } else {
                window.handle_answer(number, 1, true);
            }
        }
        assert_eq!(window.size(), CEILING);
    }
}
