//! What follows from a ledger: numbers, faults, and whether the run passed.
//!
//! A run passes only if something was proven: frames were sent, acknowledged and found. A run in which nothing
//! happened fails. `counts` adds up, `judgement` concludes; start there.

mod counts;
mod judgement;
mod latencies;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

pub use self::counts::{Devices, Frames, Pushes};
use self::counts::{sum_devices, sum_frames, sum_pushes};
use self::judgement::{faults, remarks};
pub use self::latencies::{Latencies, Percentiles};
use crate::ledger::{Finding, Ledger};

/// Lateness of the tool's own sends (99th percentile) beyond which its latencies are not to be trusted, us.
pub const LAG_US_TRUSTED_MAX: u64 = 20_000;

/// The conclusion of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// No fault was found and something was proven.
    pub passed: bool,
    /// Each reason why it did not pass, one line each.
    pub faults: Vec<String>,
    /// What does not break a promise but the reader should know.
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

impl Verdict {
    /// Judges. All of the log must have been observed before. `frames_expected` is false for a plan without frames.
    pub fn of(ledger: &Ledger, latencies: &Latencies, frames_expected: bool) -> Self {
        let devices = sum_devices(ledger);
        let frames = sum_frames(ledger);
        let pushes = sum_pushes(ledger);
        let faults = faults(&devices, &frames, &pushes, frames_expected);
        let own_lag_us = Percentiles::from(&latencies.own_lag);
        let trusted = own_lag_us.p99 <= LAG_US_TRUSTED_MAX;
        Self {
            passed: faults.is_empty(),
            faults,
            remarks: remarks(&devices, &frames, &pushes, own_lag_us),
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

    /// What the process exits with: 0 passed, 1 a promise was broken or nothing was proven.
    pub fn exit_status(&self) -> u8 {
        u8::from(!self.passed)
    }

    /// The verdict as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields always serialise")
    }
}
