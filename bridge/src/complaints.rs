//! A limit on the lines that strangers can make the bridge write to its log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line of each kind a minute. A gateway with a wrong secret tries again every few seconds, from every shard; a port scan never ends.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    said_at: Instant,
    suppressed: u64,
}

const EVERY: Duration = Duration::from_mins(1);

impl Complaints {
    /// Whether a line of this kind, one of few, may be written now; then how many were left out since the last one.
    pub(crate) fn admit(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(kind) {
            Some(known) if now.duration_since(known.said_at) < EVERY => {
                known.suppressed += 1;
                None
            }
            Some(known) => {
                known.said_at = now;
                Some(std::mem::take(&mut known.suppressed))
            }
            None => {
                kinds.insert(kind, Kind { said_at: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_a_minute_says_how_many_were_left_out() {
        let complaints = Complaints::default();
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        assert_eq!(complaints.admit("garbage", at(0)), Some(0));
        assert_eq!(complaints.admit("refused", at(1)), Some(0));
        assert!((1..60).all(|second| complaints.admit("garbage", at(second)).is_none()));
        assert_eq!(complaints.admit("garbage", at(60)), Some(59));
    }
}
