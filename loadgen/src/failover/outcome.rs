//! What the death of a gateway came to: the verdict on every frame and push, and on the way back.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::ledger::Ledger;
use crate::verdict::{Percentiles, Verdict};

/// Devices that had the gateway that died, by their ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orphans {
    all: u64,
    resumed: u64,
    acked_again: u64,
}

/// The way back as the parent saw it.
#[derive(Debug, Clone)]
pub(super) struct Return {
    /// From the death until all were connected again, or until that was given up.
    pub(super) after: Duration,
    /// Devices without a connection at that moment.
    pub(super) missing: u64,
    /// CPU that everyone spent meanwhile, in ms.
    pub(super) cpu_ms: Vec<(&'static str, u64)>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Everything held: the verdict's promises, each session, the time to come back.
    pub passed: bool,
    /// What of the way back did not, one line each; the rest is in the verdict.
    pub faults: Vec<String>,
    /// Devices that had the gateway that died.
    pub orphans: u64,
    /// Of these, those that found their session elsewhere.
    pub orphans_resumed: u64,
    /// ... and those that had a frame acknowledged after they last came back.
    pub orphans_acked_again: u64,
    /// From its death until all were connected again, or until that was given up, in ms; seen within 100 ms.
    pub all_back_ms: u64,
    /// The 99th percentile of the way back may be as much, in ms.
    pub back_within_ms: u64,
    /// CPU that everyone spent meanwhile, in ms.
    pub cpu_ms: Vec<(&'static str, u64)>,
    /// Each frame and push.
    pub verdict: Verdict,
}

impl Orphans {
    /// Devices take the home gateways in turn, and the first of these dies.
    pub(super) fn of(ledger: &Ledger, homes: u32) -> Self {
        let devices = (ledger.first_device()..).zip(ledger.devices());
        let orphans = devices.filter(|(index, _)| index.is_multiple_of(homes.max(1)));
        orphans.fold(Self::default(), |sum, (_, device)| Self {
            all: sum.all + 1,
            resumed: sum.resumed + u64::from(device.resumed > 0),
            acked_again: sum.acked_again + u64::from(device.acked_again),
        })
    }
}

impl Outcome {
    pub(super) fn new(verdict: Verdict, orphans: Orphans, back: Return, within: Duration) -> Self {
        let Orphans { all, resumed, acked_again } = orphans;
        let p99 = verdict.back_latency_us.p99;
        let mut faults: Vec<String> = [
            (u64::from(all == 0), "no device had the gateway that was killed".to_owned()),
            (
                back.missing,
                format!("{} devices were not back after {} s", back.missing, back.after.as_secs()),
            ),
            (all - resumed, format!("{} of {all} sessions were not resumed", all - resumed)),
            (
                all - acked_again,
                format!(
                    "{} of {all} devices had no frame acknowledged after their return",
                    all - acked_again
                ),
            ),
        ]
        .into_iter()
        .filter_map(|(count, fault)| (count > 0).then_some(fault))
        .collect();
        if u128::from(p99) > within.as_micros() {
            faults.push(format!("p99 of the way back is {:.2} s", p99 as f64 / 1e6));
        }
        Self {
            passed: faults.is_empty() && verdict.passed,
            faults,
            orphans: all,
            orphans_resumed: resumed,
            orphans_acked_again: acked_again,
            all_back_ms: back.after.as_millis() as u64,
            back_within_ms: within.as_millis() as u64,
            cpu_ms: back.cpu_ms,
            verdict,
        }
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
        let Self { orphans, orphans_resumed, verdict: Verdict { devices, frames, pushes, .. }, .. } = self;
        let Percentiles { p50, p99, max, .. } = self.verdict.back_latency_us;
        let s = |us: u64| us as f64 / 1e6;
        format!(
            "| kill -9 of a gateway with {orphans} of {} persistent devices | {orphans_resumed} of {orphans} sessions resumed; first attempt to CONNACK \
             p50 {:.2}, p99 {:.2}, most {:.2} s; all back after {:.1} s; {} acknowledged frames and {} accepted pushes lost, {} frames recorded again \
             ({} of them marked), {} pushes received again | all resumed, p99 <= {} s, 0 lost | {} |\n",
            devices.devices,
            s(p50),
            s(p99),
            s(max),
            self.all_back_ms as f64 / 1e3,
            frames.lost,
            pushes.lost,
            frames.duplicated,
            frames.duplicated_recognisable,
            pushes.duplicated,
            self.back_within_ms as f64 / 1e3,
            if self.passed { "yes" } else { "**no**" },
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        writeln!(
            f,
            "failover: {} devices lost their gateway, {} sessions resumed, {} had a frame acknowledged since, {:.1} s until all were connected again",
            self.orphans,
            self.orphans_resumed,
            self.orphans_acked_again,
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
    use crate::ledger::DeviceRecord;
    use crate::verdict::{Latencies, Planned};

    /// Of two home gateways with a device each; the device of the first one came back.
    fn outcome(orphan: DeviceRecord, missing: u64, back_us: u64) -> Outcome {
        let mut latencies = Latencies::default();
        latencies.back.saturating_record(back_us);
        // Whatever another device does, it does not stand in for an orphan.
        let other =
            DeviceRecord { connects: 3, resumed: 2, acked_again: true, held: true, ..Default::default() };
        let orphan = DeviceRecord { connects: 2, held: true, ..orphan };
        let ledger = Ledger::new(1, "d-", vec![orphan, other]);
        let verdict = Verdict::of(&ledger, &latencies, Planned::default());
        let back = Return { after: Duration::from_millis(1_500), missing, cpu_ms: vec![("bridges", 70)] };
        Outcome::new(verdict, Orphans::of(&ledger, 2), back, Duration::from_secs(5))
    }

    fn returned() -> DeviceRecord {
        DeviceRecord { resumed: 1, acked_again: true, ..DeviceRecord::default() }
    }

    #[test]
    fn a_session_that_came_back_in_time_and_was_heard_passes() {
        let outcome = outcome(returned(), 0, 900_000);
        assert!(outcome.passed, "{outcome}");
        assert!(outcome.to_markdown().contains("1 of 1 sessions resumed"), "{}", outcome.to_markdown());
        assert!(outcome.to_markdown().ends_with("p99 <= 5 s, 0 lost | yes |\n"), "{}", outcome.to_markdown());
        assert!(outcome.to_string().contains("CPU s    bridges 0.07 until then"), "{outcome}");
        assert_eq!(outcome.exit_status(), 0);
    }

    #[test]
    fn a_session_that_is_gone_or_late_does_not() {
        let gone = outcome(DeviceRecord { resumed: 0, begun_anew: 1, ..returned() }, 0, 900_000);
        assert_eq!(gone.faults, ["1 of 1 sessions were not resumed"], "{gone}");
        assert!(gone.to_string().contains("sessions were gone when their device came back"), "{gone}");
        let late = outcome(returned(), 0, 6_000_000);
        assert!(!late.passed && late.faults[0].starts_with("p99 of the way back is 6.0"), "{late}");
        assert_eq!(late.exit_status(), 1);
    }

    #[test]
    fn a_gateway_that_takes_devices_and_acknowledges_nothing_does_not() {
        let mute = outcome(DeviceRecord { acked_again: false, ..returned() }, 0, 900_000);
        assert_eq!(mute.faults, ["1 of 1 devices had no frame acknowledged after their return"], "{mute}");
    }

    #[test]
    fn devices_that_never_came_back_are_counted() {
        let away = outcome(returned(), 3, 900_000);
        assert_eq!(away.faults, ["3 devices were not back after 1 s"], "{away}");
    }
}
