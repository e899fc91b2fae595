//! When a device's frames are due: an open loop, blind to how the gateway fares.
//!
//! A closed loop slows down with what it measures and so hides the delay it came to find. Here the n-th frame has
//! its time before the run begins; whoever is late, lateness counts. Pure arithmetic, times are ns from the start
//! of the run.

use std::sync::Arc;

const NS_PER_S: f64 = 1e9;

/// The rate of one device over the run, in pieces; shared by all devices of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct RateCurve {
    pieces: Arc<[Piece]>,
}

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    start_ns: u64,
    frames_per_s: f64,
    /// Frames due before this piece begins; not a whole number.
    frames_before: f64,
}

/// A stretch of the run during which the rate is multiplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surge {
    /// Start, ns from the start of the run.
    pub start_ns: u64,
    /// Length in ns.
    pub length_ns: u64,
    /// What the base rate is multiplied with; 0 makes a pause.
    pub factor: f64,
}

impl RateCurve {
    /// A curve of `frames_per_s` with surges. Where surges overlap their factors multiply.
    pub fn new(frames_per_s: f64, surges: &[Surge]) -> Self {
        let mut edges: Vec<u64> = surges
            .iter()
            .flat_map(|surge| [surge.start_ns, surge.start_ns.saturating_add(surge.length_ns)])
            .chain([0])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let mut pieces: Vec<Piece> = Vec::with_capacity(edges.len());
        for start_ns in edges {
            let frames_before =
                pieces.last().map_or(0.0, |last| last.frames_before + last.frames_until(start_ns));
            let factor: f64 =
                surges.iter().filter(|surge| surge.covers(start_ns)).map(|surge| surge.factor).product();
            pieces.push(Piece { start_ns, frames_per_s: frames_per_s * factor, frames_before });
        }
        Self { pieces: pieces.into() }
    }

    /// When the curve has made `frames` frames due; `None` if it never does.
    fn time_of(&self, frames: f64) -> Option<u64> {
        let index = self.pieces.partition_point(|piece| piece.frames_before <= frames).saturating_sub(1);
        let piece = &self.pieces[index];
        (piece.frames_per_s > 0.0).then(|| {
            let within_s = (frames - piece.frames_before) / piece.frames_per_s;
            piece.start_ns.saturating_add(whole(within_s * NS_PER_S))
        })
    }
}

impl Piece {
    fn frames_until(&self, end_ns: u64) -> f64 {
        end_ns.saturating_sub(self.start_ns) as f64 / NS_PER_S * self.frames_per_s
    }
}

impl Surge {
    fn covers(&self, at_ns: u64) -> bool {
        at_ns >= self.start_ns && at_ns - self.start_ns < self.length_ns
    }
}

/// The frames of one device, one after the other.
#[derive(Debug, Clone)]
pub struct Schedule {
    curve: RateCurve,
    phase: f64,
    next: u64,
    end_ns: u64,
}

impl Schedule {
    /// `phase` in 0..1 spreads devices of equal rate over the time between two frames; nothing is due from
    /// `end_ns` on.
    pub fn new(curve: RateCurve, phase: f64, end_ns: u64) -> Self {
        Self { curve, phase: phase.clamp(0.0, 1.0), next: 0, end_ns }
    }

    /// When the next frame is due, ns from the start; `None` when there is none before the end.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.curve.time_of(self.next as f64 + self.phase).filter(|due| *due < self.end_ns)
    }

    /// Takes the next frame: its sequence number and the time it was due.
    pub fn take(&mut self) -> Option<(u64, u64)> {
        let due = self.next_due_ns()?;
        let sequence = self.next;
        self.next += 1;
        Some((sequence, due))
    }

    /// Nothing is due from `end_ns` on, if that is earlier than what was said before.
    pub fn end_at(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }
}

/// The whole part; 0 for what is negative or not a number, the largest number for what is larger.
#[expect(clippy::cast_sign_loss, reason = "the cast saturates, and that is what is wanted")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn times(mut schedule: Schedule) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take().map(|(_, due)| due / 1_000_000)).collect()
    }

    #[test]
    fn frames_are_due_at_even_distances_from_the_phase_on() {
        let curve = RateCurve::new(2.0, &[]);
        assert_eq!(times(Schedule::new(curve, 0.5, 2 * S)), [250, 750, 1250, 1750]);
    }

    #[test]
    fn a_surge_multiplies_the_rate_while_it_lasts() {
        let surge = Surge { start_ns: S, length_ns: S, factor: 4.0 };
        let curve = RateCurve::new(1.0, &[surge]);
        assert_eq!(times(Schedule::new(curve, 0.0, 4 * S)), [0, 1000, 1250, 1500, 1750, 2000, 3000]);
    }

    #[test]
    fn a_pause_only_delays_what_comes_after_it() {
        let surge = Surge { start_ns: S, length_ns: 5 * S, factor: 0.0 };
        let curve = RateCurve::new(1.0, &[surge]);
        assert_eq!(times(Schedule::new(curve, 0.5, 8 * S)), [500, 6500, 7500]);
    }

    #[test]
    fn a_rate_of_zero_makes_nothing_due() {
        assert_eq!(times(Schedule::new(RateCurve::new(0.0, &[]), 0.0, 9 * S)), [0_u64; 0]);
    }

    #[test]
    fn what_was_late_keeps_the_time_it_was_due() {
        let mut schedule = Schedule::new(RateCurve::new(10.0, &[]), 0.0, 10 * S);
        assert_eq!(schedule.take(), Some((0, 0)));
        // Nobody took the second frame for a while; its time does not move.
        assert_eq!(schedule.take(), Some((1, S / 10)));
    }

    #[test]
    fn an_earlier_end_cuts_the_rest_and_a_later_one_does_not_bring_it_back() {
        let mut schedule = Schedule::new(RateCurve::new(1.0, &[]), 0.0, 10 * S);
        schedule.end_at(2 * S);
        schedule.end_at(5 * S);
        assert_eq!(times(schedule), [0, 1000]);
    }
}
