//! What the death of a gateway came to: the verdict on every frame and push, and on the way back.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::verdict::{Percentiles, Verdict};

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Everything held: the verdict's promises, each session, the time to come back.
    pub passed: bool,
    /// What of the way back did not, one line each; the rest is in the verdict.
    pub faults: Vec<String>,
    /// Devices that had the gateway that died.
    pub orphans: u64,
    /// From its death until all were connected again, in ms; seen within 100 ms.
    pub all_back_ms: u64,
    /// CPU that everyone spent meanwhile, in ms.
    pub cpu_ms: Vec<(&'static str, u64)>,
    /// Each frame and push.
    pub verdict: Verdict,
}

impl Outcome {
    pub(super) fn new(
        verdict: Verdict,
        orphans: u64,
        all_back: Duration,
        cpu_ms: Vec<(&'static str, u64)>,
        within: Duration,
    ) -> Self {
        let devices = &verdict.devices;
        let back = verdict.back_latency_us;
        let missing = orphans.saturating_sub(devices.resumed);
        let mut faults = Vec::new();
        if missing > 0 {
            faults.push(format!("{missing} of {orphans} sessions were not resumed"));
        }
        if devices.begun_anew > 0 {
            faults.push(format!("{} sessions were gone when their device came back", devices.begun_anew));
        }
        if u128::from(back.p99) > within.as_micros() {
            faults.push(format!("p99 of the way back is {:.2} s", back.p99 as f64 / 1e6));
        }
        let passed = faults.is_empty() && verdict.passed;
        Self { passed, faults, orphans, all_back_ms: all_back.as_millis() as u64, cpu_ms, verdict }
    }

    /// 0 passed, 1 not.
    pub fn exit_status(&self) -> u8 {
        u8::from(!self.passed)
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        format!("{:#}", json!(self))
    }

    /// A row of SPECIFICATION.md.
    pub fn to_markdown(&self) -> String {
        let Self { orphans, verdict, .. } = self;
        let Percentiles { p50, p99, max, .. } = verdict.back_latency_us;
        let s = |us: u64| us as f64 / 1e6;
        let duplicated = verdict.frames.duplicated + verdict.pushes.duplicated;
        format!(
            "| kill -9 of a gateway with {orphans} of {} persistent devices | {} of {orphans} sessions resumed; first attempt to CONNACK p50 {:.2}, p99 \
             {:.2}, most {:.2} s; all back after {:.1} s; {} acknowledged frames and {} accepted pushes lost, {duplicated} duplicates (all marked: {}) | \
             all resumed, p99 <= 5 s, 0 lost | {} |\n",
            verdict.devices.devices,
            verdict.devices.resumed.min(*orphans),
            s(p50),
            s(p99),
            s(max),
            self.all_back_ms as f64 / 1e3,
            verdict.frames.lost,
            verdict.pushes.lost,
            if verdict.frames.duplicated == verdict.frames.duplicated_recognisable { "yes" } else { "no" },
            if self.passed { "yes" } else { "**no**" },
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        let resumed = self.verdict.devices.resumed;
        writeln!(
            f,
            "failover: {} devices lost their gateway, {resumed} sessions resumed, all connected again after {:.1} s",
            self.orphans,
            self.all_back_ms as f64 / 1e3
        )?;
        let parts: Vec<String> =
            self.cpu_ms.iter().map(|(name, ms)| format!("{name} {:.2}", *ms as f64 / 1e3)).collect();
        writeln!(f, "  CPU s    {} until then", parts.join(", "))?;
        for fault in &self.faults {
            writeln!(f, "  FAULT    {fault}")?;
        }
        writeln!(f, "failover: {}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DeviceRecord, Ledger};
    use crate::verdict::Latencies;

    fn outcome(resumed: u64, begun_anew: u64, back_us: u64) -> Outcome {
        let device = DeviceRecord { connects: 2, resumed, begun_anew, ..DeviceRecord::default() };
        let mut latencies = Latencies::default();
        latencies.back.saturating_record(back_us);
        let verdict = Verdict::of(&Ledger::new(1, "d-", vec![device]), &latencies, false);
        Outcome::new(verdict, 1, Duration::from_millis(1_500), vec![("bridges", 70)], Duration::from_secs(5))
    }

    #[test]
    fn a_session_that_came_back_in_time_passes() {
        let outcome = outcome(1, 0, 900_000);
        assert!(outcome.passed, "{outcome}");
        assert!(outcome.to_markdown().contains("1 of 1 sessions resumed"), "{}", outcome.to_markdown());
        assert!(outcome.to_string().contains("CPU s    bridges 0.07 until then"), "{outcome}");
        assert_eq!(outcome.exit_status(), 0);
    }

    #[test]
    fn a_session_that_is_gone_or_late_does_not() {
        let gone = outcome(0, 1, 900_000);
        assert_eq!(gone.faults.len(), 2, "{gone}");
        let late = outcome(1, 0, 6_000_000);
        assert!(!late.passed && late.faults[0].starts_with("p99 of the way back is 6.0"), "{late}");
        assert_eq!(late.exit_status(), 1);
    }
}
