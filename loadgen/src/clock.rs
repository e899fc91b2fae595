//! The one clock of a run: ns since its start, and the same moment since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Monotonic; the wall clock is read once, so that a step of it does not make latencies negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    origin_unix_ns: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_unix_ns: unix.as_nanos() as u64 }
    }

    /// ns since the start of the run.
    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// When that is for a timer.
    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.origin + Duration::from_nanos(ns)
    }

    /// ns since the Unix epoch.
    pub(crate) fn unix_ns(&self, ns: u64) -> u64 {
        self.origin_unix_ns + ns
    }
}
