//! How long a device waits before it connects again: doubling, with jitter over the whole span, so that a fleet
//! that lost its gateway in one moment does not come back in one moment.

use std::time::Duration;

use crate::random::Random;

const FIRST: Duration = Duration::from_millis(50);

/// The waits of one device.
#[derive(Debug)]
pub(crate) struct Backoff {
    random: Random,
    span: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(random: Random, most: Duration) -> Self {
        Self { random, span: FIRST.min(most), most }
    }

    /// A connection was admitted: the next wait is short again.
    pub(crate) fn reset(&mut self) {
        self.span = FIRST.min(self.most);
    }

    /// The next wait: random within the span, never below what the gateway asked for. The span doubles.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.span.mul_f64(self.random.fraction());
        self.span = (self.span * 2).min(self.most);
        wait.max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(3);

    #[test]
    fn waits_grow_to_a_bound_and_start_over_after_success() {
        let mut backoff = Backoff::new(Random::new(3), MOST);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next(None)).collect();
        assert!(waits.iter().all(|wait| *wait <= MOST) && waits.iter().any(|wait| *wait > MOST / 2));
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn what_the_gateway_asked_for_is_the_least() {
        let mut backoff = Backoff::new(Random::new(3), MOST);
        assert!(backoff.next(Some(Duration::from_secs(9))) >= Duration::from_secs(9));
    }
}
