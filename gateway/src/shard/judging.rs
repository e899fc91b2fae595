//! When silence may be judged: not while what would break it may still lie in the kernel.
//!
//! A poll reports so many events at once and no more. After a pause of the process, or in a burst, more links and devices have spoken than one poll tells of,
//! and timers that judged in between would take those for silent that were not heard yet.

/// Whether those who are silent may be judged in a turn. Everything else that is due runs in each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judging {
    /// Since when polls have come back full, in ms.
    full_since_ms: Option<u64>,
}

/// A shard under a load that fills every poll judges all the same, this late at most, in ms.
const LATE_MS_MAX: u64 = 1_000;

impl Judging {
    /// `more` says that the kernel may hold events which the poll of this turn did not report.
    pub(super) fn may_judge(&mut self, more: bool, now_ms: u64) -> bool {
        if !more {
            self.full_since_ms = None;
            return true;
        }
        let since_ms = *self.full_since_ms.get_or_insert(now_ms);
        let is_late = now_ms >= since_ms + LATE_MS_MAX;
        if is_late {
            self.full_since_ms = Some(now_ms);
        }
        is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_judged_before_the_kernel_has_told_everything() {
        let mut judging = Judging::default();
        assert!(judging.may_judge(false, 1_000));
        assert!(!judging.may_judge(true, 20_000));
        assert!(!judging.may_judge(true, 20_300));
        assert!(judging.may_judge(false, 20_400));
        assert!(!judging.may_judge(true, 30_000), "each burst begins anew");
    }

    #[test]
    fn under_a_load_that_never_ends_those_who_are_silent_are_judged_late() {
        let mut judging = Judging::default();
        let judged = (0..10_000).step_by(10).filter(|now_ms| judging.may_judge(true, *now_ms)).count();
        assert_eq!(judged, 9);
    }
}
