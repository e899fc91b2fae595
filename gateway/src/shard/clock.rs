//! The node's clocks. The engine has none: each turn reads them once.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_engine::Now;

/// Monotonic time counted from one moment for all shards of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts counting.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present, by both clocks. A system clock before 1970 counts as 1970.
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic_ms: self.origin.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as u64 }
    }
}
