//! Live numbers for the eyes of whoever waits. The verdict does not use them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One number.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }

    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The numbers of a fleet.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connected: Counter,
    pub(crate) connects_failed: Counter,
    /// Admissions after a loss.
    pub(crate) came_back: Counter,
    /// First acknowledgements after such an admission.
    pub(crate) acked_again: Counter,
    pub(crate) subscribed: Counter,
    pub(crate) frames_sent: Counter,
    pub(crate) frames_acked: Counter,
    pub(crate) frames_refused: Counter,
    /// Devices whose frames are all sent and answered.
    pub(crate) settled: Counter,
    pub(crate) pushes_sent: Counter,
    pub(crate) pushes_received: Counter,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Admitted connections now.
    pub connected: u64,
    /// Attempts that failed so far.
    pub connects_failed: u64,
    /// Admissions so far of devices that had lost their connection.
    pub came_back: u64,
    /// First acknowledgements so far of devices that had come back.
    pub acked_again: u64,
    /// Subscriptions granted so far.
    pub subscribed: u64,
    /// Frames sent, repetitions not counted.
    pub frames_sent: u64,
    /// Frames acknowledged.
    pub frames_acked: u64,
    /// Frames refused.
    pub frames_refused: u64,
    /// Devices that have nothing more to send and nothing unanswered.
    pub settled: u64,
    /// Pushes requested.
    pub pushes_sent: u64,
    /// Pushes received, repetitions not counted.
    pub pushes_received: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            connected: self.connected.load(),
            connects_failed: self.connects_failed.load(),
            came_back: self.came_back.load(),
            acked_again: self.acked_again.load(),
            subscribed: self.subscribed.load(),
            frames_sent: self.frames_sent.load(),
            frames_acked: self.frames_acked.load(),
            frames_refused: self.frames_refused.load(),
            settled: self.settled.load(),
            pushes_sent: self.pushes_sent.load(),
            pushes_received: self.pushes_received.load(),
        }
    }
}

/// Of two parts of a fleet.
impl std::ops::Add for Snapshot {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connected: self.connected + other.connected,
            connects_failed: self.connects_failed + other.connects_failed,
            came_back: self.came_back + other.came_back,
            acked_again: self.acked_again + other.acked_again,
            subscribed: self.subscribed + other.subscribed,
            frames_sent: self.frames_sent + other.frames_sent,
            frames_acked: self.frames_acked + other.frames_acked,
            frames_refused: self.frames_refused + other.frames_refused,
            settled: self.settled + other.settled,
            pushes_sent: self.pushes_sent + other.pushes_sent,
            pushes_received: self.pushes_received + other.pushes_received,
        }
    }
}
