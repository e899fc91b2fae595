//! What follows from a ledger: numbers, faults, and whether the run passed.
//!
//! A run passes only if no promise was broken and all that its plan names was proven: every device connected, stayed and subscribed; frames were sent,
//! answered and found; pushes were accepted and came. `counts` adds up, `judgement` concludes; start there.

mod counts;
mod judgement;
mod latencies;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

pub use self::counts::{Devices, Frames, Pushes};
use self::counts::{sum_devices, sum_frames, sum_pushes};
use self::judgement::{faults, remarks};
pub use self::latencies::{Latencies, Percentiles};
use crate::ledger::{Finding, Ledger};

/// Lateness of the tool's own sends (99th percentile) beyond which its latencies are not to be trusted, us.
pub const LAG_US_TRUSTED_MAX: u64 = 20_000;

/// What the plan of a run names, and what therefore must have happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Devices send frames.
    pub frames: bool,
    /// ... at a `QoS` that is answered.
    pub acks: bool,
    /// Pushes go to devices.
    pub pushes: bool,
    /// Devices subscribe.
    pub subscriptions: bool,
    /// Every connection is cut at once, at least once.
    pub storms: bool,
}

/// The conclusion of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// No fault was found and something was proven.
    pub passed: bool,
    /// Each reason why it did not pass, one line each.
    pub faults: Vec<String>,
    /// What is no fault but the reader should know.
    pub remarks: Vec<String>,
    /// Which run.
    pub run: u64,
    /// The devices.
    pub devices: Devices,
    /// Their frames.
    pub frames: Frames,
    /// The pushes to them.
    pub pushes: Pushes,
    /// From the time a frame was due to its acknowledgement.
    pub ack_latency_us: Percentiles,
    /// From the time a push was requested to its arrival at the device.
    pub push_latency_us: Percentiles,
    /// From the first attempt to come back after a connection was lost to the admission.
    pub back_latency_us: Percentiles,
    /// How late the tool itself sent, on connections that were free to send.
    pub own_lag_us: Percentiles,
    /// Whether the latencies can be trusted.
    pub trusted: bool,
    /// The first faults and where they are.
    pub findings: Vec<Finding>,
}

impl Planned {
    /// Takes in what another part of the same fleet names.
    pub fn add(&mut self, other: Self) {
        let Self { frames, acks, pushes, subscriptions, storms } = other;
        self.frames |= frames;
        self.acks |= acks;
        self.pushes |= pushes;
        self.subscriptions |= subscriptions;
        self.storms |= storms;
    }
}

impl Verdict {
    /// Judges. All of the log must have been observed before.
    pub fn of(ledger: &Ledger, latencies: &Latencies, planned: Planned) -> Self {
        let devices = sum_devices(ledger);
        let frames = sum_frames(ledger);
        let pushes = sum_pushes(ledger);
        let faults = faults(&devices, &frames, &pushes, planned);
        let own_lag_us = Percentiles::from(&latencies.own_lag);
        let trusted = own_lag_us.p99 <= LAG_US_TRUSTED_MAX;
        Self {
            passed: faults.is_empty(),
            faults,
            remarks: remarks(&devices, &frames, &pushes, planned, own_lag_us),
            run: ledger.run(),
            devices,
            frames,
            pushes,
            ack_latency_us: (&latencies.ack).into(),
            push_latency_us: (&latencies.push).into(),
            back_latency_us: (&latencies.back).into(),
            own_lag_us,
            trusted,
            findings: ledger.findings(),
        }
    }

    /// What the process exits with: 0 passed, 1 a promise was broken, or the plan did not happen.
    pub fn exit_status(&self) -> u8 {
        u8::from(!self.passed)
    }

    /// The verdict as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields always serialise")
    }
}
