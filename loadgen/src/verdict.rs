//! What follows from a ledger: numbers, faults, and whether the run passed.
//!
//! A run passes only if something was proven: frames were sent, acknowledged and found. A run in which nothing
//! happened fails.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::{Finding, Ledger, PushOutcome};

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

/// Connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// In the fleet.
    pub devices: u64,
    /// Admitted at least once.
    pub connected: u64,
    /// Admissions after the first.
    pub reconnects: u64,
    /// ... that found the session of before.
    pub resumed: u64,
    /// ... that did not, although the device wanted it kept.
    pub begun_anew: u64,
    /// Attempts that failed.
    pub connects_failed: u64,
    /// Answers that their protocol does not allow.
    pub protocol_errors: u64,
}

/// Frames. `sent = acked + refused + in_doubt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Sent at least once.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused with a reason code.
    pub refused: u64,
    /// Sent, never answered: may be found or not.
    pub in_doubt: u64,
    /// Due and not sent before the end.
    pub unsent: u64,
    /// Sent again.
    pub resent: u64,
    /// Different frames in the log.
    pub found: u64,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// In the log more than once.
    pub duplicated: u64,
    /// ... of which the record says that it was sent before, or the session was gone.
    pub duplicated_recognisable: u64,
    /// ... of which the record says nothing, but an earlier copy of it does.
    pub originals_behind: u64,
    /// In the log for the first time behind a later one.
    pub reordered: u64,
    /// In the log and never sent, or changed.
    pub unexplained: u64,
    /// Records of other runs and other clients.
    pub foreign: u64,
}

/// Pushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pushes {
    /// Requested.
    pub sent: u64,
    /// Due and not requested before the end.
    pub unsent: u64,
    /// Answered `delivered`.
    pub delivered: u64,
    /// Answered `queued`.
    pub queued: u64,
    /// Answered `expired`.
    pub expired: u64,
    /// Answered `refused`.
    pub refused: u64,
    /// Not answered.
    pub unknown: u64,
    /// Received by their device.
    pub received: u64,
    /// Promised and not received.
    pub lost: u64,
    /// Received more than once.
    pub duplicated: u64,
    /// Received against their outcome.
    pub contradicted: u64,
    /// Received and never sent.
    pub unexplained: u64,
}

/// Of a histogram of microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Values counted.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
    /// Largest.
    pub max: u64,
}

/// The latencies of a run, in microseconds.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Due to acknowledged.
    pub ack: Histogram<u64>,
    /// Requested to received.
    pub push: Histogram<u64>,
    /// First attempt after a loss to admitted.
    pub back: Histogram<u64>,
    /// Due to written, on connections that were free.
    pub own_lag: Histogram<u64>,
}

impl Latencies {
    /// Takes in those of another part of the same run.
    pub fn add(&mut self, other: &Self) {
        let Self { ack, push, back, own_lag } = self;
        let pairs = [(ack, &other.ack), (push, &other.push), (back, &other.back), (own_lag, &other.own_lag)];
        for (sum, more) in pairs {
            // All have the same bounds.
            let _ = sum.add(more);
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        // One hour, three digits: about 60 KiB each.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds are valid");
        Self { ack: histogram(), push: histogram(), back: histogram(), own_lag: histogram() }
    }
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
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

fn sum_devices(ledger: &Ledger) -> Devices {
    ledger.devices().iter().fold(Devices::default(), |sum, device| Devices {
        devices: sum.devices + 1,
        connected: sum.connected + u64::from(device.connects > 0),
        reconnects: sum.reconnects + device.connects.saturating_sub(1),
        resumed: sum.resumed + device.resumed,
        begun_anew: sum.begun_anew + device.begun_anew,
        connects_failed: sum.connects_failed + device.connects_failed,
        protocol_errors: sum.protocol_errors + device.protocol_errors,
    })
}

fn sum_frames(ledger: &Ledger) -> Frames {
    let start = Frames {
        lost: ledger.lost_count(),
        unexplained: ledger.never_sent() + ledger.corrupted(),
        foreign: ledger.foreign(),
        ..Frames::default()
    };
    ledger.devices().iter().map(|device| &device.frames).fold(start, |sum, frames| {
        let (duplicated, recognisable) = frames.duplicated_count();
        let answered = frames.acked_count() + frames.refused_count();
        Frames {
            sent: sum.sent + frames.sent_count(),
            acked: sum.acked + frames.acked_count(),
            refused: sum.refused + frames.refused_count(),
            in_doubt: sum.in_doubt + frames.sent_count().saturating_sub(answered),
            unsent: sum.unsent + frames.unsent_count(),
            resent: sum.resent + frames.resent_count(),
            found: sum.found + frames.found_count(),
            duplicated: sum.duplicated + duplicated,
            duplicated_recognisable: sum.duplicated_recognisable + recognisable,
            originals_behind: sum.originals_behind + frames.originals_behind_count(),
            reordered: sum.reordered + frames.reordered_count(),
            ..sum
        }
    })
}

fn sum_pushes(ledger: &Ledger) -> Pushes {
    ledger.devices().iter().map(|device| &device.pushes).fold(Pushes::default(), |sum, pushes| Pushes {
        sent: sum.sent + pushes.sent_count(),
        unsent: sum.unsent + pushes.unsent_count(),
        delivered: sum.delivered + pushes.outcome_count(PushOutcome::Delivered),
        queued: sum.queued + pushes.outcome_count(PushOutcome::Queued),
        expired: sum.expired + pushes.outcome_count(PushOutcome::Expired),
        refused: sum.refused + pushes.outcome_count(PushOutcome::Refused),
        unknown: sum.unknown + pushes.outcome_count(PushOutcome::Unknown),
        received: sum.received + pushes.received_count(),
        lost: sum.lost + pushes.lost_count(),
        duplicated: sum.duplicated + pushes.duplicated_count(),
        contradicted: sum.contradicted + pushes.contradicted_count(),
        unexplained: sum.unexplained + pushes.unexplained_count(),
    })
}

fn faults(devices: &Devices, frames: &Frames, pushes: &Pushes, frames_expected: bool) -> Vec<String> {
    let silent = frames.duplicated - frames.duplicated_recognisable;
    [
        (frames.lost, "acknowledged frames are lost"),
        (frames.reordered, "frames are out of their device's order"),
        (silent, "frames are recorded twice and nothing in the record tells"),
        (frames.unexplained, "records were never sent, or were changed"),
        (pushes.lost, "pushes were promised and never came"),
        (pushes.contradicted, "pushes came against their outcome"),
        (pushes.unexplained, "pushes came that were never sent"),
        (devices.protocol_errors, "answers broke the protocol"),
        (devices.devices - devices.connected, "devices never got a connection"),
        (u64::from(frames_expected && frames.sent == 0), "run without a single frame: nothing is proven"),
        (
            u64::from(frames_expected && frames.sent > 0 && frames.found == 0),
            "log without a single frame of this run: nothing is proven",
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

fn remarks(devices: &Devices, frames: &Frames, pushes: &Pushes, own_lag: Percentiles) -> Vec<String> {
    let mut remarks: Vec<String> = [
        (frames.in_doubt, "frames were never answered (in doubt: neither kept nor lost)"),
        (frames.unsent, "frames were due and not sent before the end"),
        (frames.refused, "frames were refused by the gateway"),
        (frames.duplicated_recognisable, "frames are recorded again, recognisable as sent again"),
        (frames.originals_behind, "of them are originals behind the copy that says so"),
        (pushes.unknown, "push requests got no outcome"),
        (pushes.unsent, "pushes were due and not requested before the end"),
        (pushes.duplicated, "pushes came more than once (QoS 1 allows it after a lost acknowledgement)"),
        (devices.connects_failed, "connection attempts failed"),
        (devices.begun_anew, "sessions were gone when their device came back for them"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if own_lag.p99 > LAG_US_TRUSTED_MAX {
        remarks.push(format!(
            "the load tool itself was late (p99 {} ms): do not trust the latencies, send less or use more hosts",
            own_lag.p99 / 1_000
        ));
    }
    remarks
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, frames, pushes, .. } = self;
        row(f, "devices", &[("in all", devices.devices), ("connected", devices.connected)])?;
        let back = [("reconnects", devices.reconnects), ("resumed", devices.resumed)];
        row(f, "", &[back[0], back[1], ("failed attempts", devices.connects_failed)])?;
        row(f, "frames", &[("sent", frames.sent), ("acked", frames.acked), ("found", frames.found)])?;
        row(
            f,
            "",
            &[("lost", frames.lost), ("duplicated", frames.duplicated), ("reordered", frames.reordered)],
        )?;
        row(
            f,
            "",
            &[("unexplained", frames.unexplained), ("in doubt", frames.in_doubt), ("resent", frames.resent)],
        )?;
        row(
            f,
            "pushes",
            &[("sent", pushes.sent), ("delivered", pushes.delivered), ("queued", pushes.queued)],
        )?;
        row(
            f,
            "",
            &[("received", pushes.received), ("lost", pushes.lost), ("duplicated", pushes.duplicated)],
        )?;
        row(f, "", &[("refused", pushes.refused), ("expired", pushes.expired), ("unknown", pushes.unknown)])?;
        latency(f, "ack", self.ack_latency_us)?;
        latency(f, "push", self.push_latency_us)?;
        latency(f, "back", self.back_latency_us)?;
        latency(f, "own lag", self.own_lag_us)?;
        for remark in &self.remarks {
            writeln!(f, "  note     {remark}")?;
        }
        for finding in self.findings.iter().take(10) {
            let sequence = finding.sequence.map_or_else(|| "?".to_owned(), |sequence| sequence.to_string());
            write!(f, "  found    {:?} {} #{sequence}", finding.kind, finding.client_id)?;
            match finding.at {
                Some((partition, offset)) => writeln!(f, " at {partition}:{offset}")?,
                None => writeln!(f)?,
            }
        }
        for fault in &self.faults {
            writeln!(f, "  FAULT    {fault}")?;
        }
        writeln!(f, "verdict: {}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, cells: &[(&str, u64)]) -> fmt::Result {
    write!(f, "  {name:<9}")?;
    for (label, value) in cells {
        write!(f, "{label:<16}{value:>12}   ")?;
    }
    writeln!(f)
}

fn latency(f: &mut fmt::Formatter<'_>, name: &str, percentiles: Percentiles) -> fmt::Result {
    if percentiles.count == 0 {
        return Ok(());
    }
    let ms = |us: u64| us as f64 / 1_000.0;
    writeln!(
        f,
        "  {name:<9}p50 {:.2} ms   p90 {:.2} ms   p99 {:.2} ms   p99.9 {:.2} ms   max {:.2} ms",
        ms(percentiles.p50),
        ms(percentiles.p90),
        ms(percentiles.p99),
        ms(percentiles.p99_9),
        ms(percentiles.max)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DeviceRecord, FindingKind, ObservedRecord};
    use crate::payload::{Direction, Form, Stamp};

    const RUN: u64 = 42;

    fn frame(device: u32, sequence: u64) -> Vec<u8> {
        payload(RUN, Direction::Up, device, sequence)
    }

    fn payload(run: u64, direction: Direction, device: u32, sequence: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let stamp = Stamp { direction, run, device, sequence, intended_ns: 1, sent_ns: 2 };
        stamp.encode(if device.is_multiple_of(2) { Form::Binary } else { Form::Json }, 128, &mut out);
        out
    }

    /// Two devices; each sent five frames and saw the first four acknowledged.
    fn ledger() -> Ledger {
        let mut device = DeviceRecord { connects: 1, ..DeviceRecord::default() };
        for sequence in 0..5 {
            device.frames.sent(sequence);
        }
        for sequence in 0..4 {
            assert!(device.frames.acked(sequence));
        }
        Ledger::new(RUN, "dev-", vec![device.clone(), device])
    }

    fn observe(ledger: &mut Ledger, client_id: &str, payload: &[u8], resent: bool) {
        ledger.observe(ObservedRecord { client_id, payload, resent, partition: 0, offset: 7 });
    }

    fn observe_all(ledger: &mut Ledger, device: u32, sequences: &[u64]) {
        for sequence in sequences {
            observe(ledger, &format!("dev-{device}"), &frame(device, *sequence), false);
        }
    }

    fn judge(ledger: &Ledger) -> Verdict {
        Verdict::of(ledger, &Latencies::default(), true)
    }

    /// A run that is sound but for what `harm` does to its second device.
    fn harmed(harm: impl FnOnce(&mut Ledger)) -> Verdict {
        let mut ledger = ledger();
        observe_all(&mut ledger, 0, &[0, 1, 2, 3]);
        harm(&mut ledger);
        judge(&ledger)
    }

    fn kinds(verdict: &Verdict) -> Vec<FindingKind> {
        verdict.findings.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_sound_run_passes_and_an_unanswered_frame_is_in_doubt() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3, 4]));
        assert!(verdict.passed, "{verdict}");
        assert_eq!(verdict.exit_status(), 0);
        let frames = verdict.frames;
        assert_eq!((frames.sent, frames.acked, frames.found, frames.in_doubt), (10, 8, 9, 2));
    }

    #[test]
    fn an_acknowledged_frame_that_is_missing_is_lost() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 3, 4]));
        assert_eq!(verdict.faults, ["1 acknowledged frames are lost"]);
        assert_eq!(verdict.findings[0].sequence, Some(2));
        assert_eq!(verdict.findings[0].client_id, "dev-1");
        assert_eq!(verdict.exit_status(), 1);
    }

    #[test]
    fn a_frame_that_comes_after_a_later_one_is_out_of_order() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 2, 1, 3]));
        assert_eq!(kinds(&verdict), [FindingKind::Reordered]);
        assert!(!verdict.passed);
    }

    #[test]
    fn a_second_copy_is_a_duplicate_and_not_a_disorder() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3, 2]));
        assert_eq!(kinds(&verdict), [FindingKind::Duplicated]);
        assert_eq!((verdict.frames.duplicated, verdict.frames.reordered), (1, 0));
        assert!(!verdict.passed);
    }

    #[test]
    fn a_copy_that_says_it_was_sent_again_may_stand_before_the_other() {
        let mut ledger = ledger();
        for device in 0..2 {
            observe_all(&mut ledger, device, &[0, 1, 2]);
            observe(&mut ledger, &format!("dev-{device}"), &frame(device, 3), true);
        }
        observe_all(&mut ledger, 0, &[3]);
        let verdict = judge(&ledger);
        assert!(verdict.passed, "{verdict}");
        assert_eq!((verdict.frames.duplicated_recognisable, verdict.frames.originals_behind), (1, 1));
    }

    #[test]
    fn a_second_copy_that_says_it_was_sent_again_is_no_fault() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, "dev-1", &frame(1, 3), true);
        });
        assert!(verdict.passed, "{verdict}");
        assert_eq!((verdict.frames.duplicated, verdict.frames.duplicated_recognisable), (1, 1));
    }

    #[test]
    fn a_changed_byte_is_unexplained_and_its_frame_lost() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2]);
            let mut broken = frame(1, 3);
            broken[100] ^= 1;
            observe(ledger, "dev-1", &broken, false);
        });
        assert_eq!(kinds(&verdict), [FindingKind::Corrupted, FindingKind::Lost]);
        assert_eq!((verdict.frames.unexplained, verdict.frames.lost), (1, 1));
    }

    #[test]
    fn a_frame_under_the_name_of_another_device_is_unexplained() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, "dev-1", &frame(0, 3), false);
        });
        assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
    }

    #[test]
    fn a_frame_under_a_name_that_is_not_in_the_fleet_is_unexplained() {
        for name in ["dev-2", "dev-01", "dev-+1", "other", ""] {
            let verdict = harmed(|ledger| {
                observe_all(ledger, 1, &[0, 1, 2, 3]);
                observe(ledger, name, &frame(1, 3), false);
            });
            assert_eq!(kinds(&verdict), [FindingKind::NeverSent], "{name}");
        }
    }

    #[test]
    fn a_frame_that_was_never_sent_is_unexplained() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3, 5]));
        assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
    }

    #[test]
    fn a_push_that_turns_up_among_the_frames_is_unexplained() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, "dev-1", &payload(RUN, Direction::Down, 1, 0), false);
        });
        assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
    }

    #[test]
    fn other_runs_and_other_clients_are_none_of_our_business() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, "dev-1", &payload(RUN + 1, Direction::Up, 1, 0), false);
            observe(ledger, "thermostat", b"21.5", false);
        });
        assert!(verdict.passed, "{verdict}");
        assert_eq!(verdict.frames.foreign, 2);
    }

    #[test]
    fn something_else_under_the_name_of_our_device_is_unexplained() {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, "dev-1", b"21.5", false);
        });
        assert_eq!(kinds(&verdict), [FindingKind::Corrupted]);
    }

    #[test]
    fn a_run_in_which_nothing_happened_fails() {
        let idle = DeviceRecord { connects: 1, ..DeviceRecord::default() };
        let verdict = judge(&Ledger::new(RUN, "dev-", vec![idle]));
        assert_eq!(verdict.exit_status(), 1, "{verdict}");
    }

    #[test]
    fn an_empty_log_fails_even_if_nothing_was_acknowledged() {
        let mut device = DeviceRecord { connects: 1, ..DeviceRecord::default() };
        device.frames.sent(0);
        assert!(!judge(&Ledger::new(RUN, "dev-", vec![device])).passed);
    }

    #[test]
    fn a_device_that_never_connected_fails_the_run() {
        let mut ledger = ledger();
        observe_all(&mut ledger, 0, &[0, 1, 2, 3]);
        observe_all(&mut ledger, 1, &[0, 1, 2, 3]);
        let mut devices = ledger.devices().to_vec();
        devices[1].connects = 0;
        let verdict = judge(&Ledger::new(RUN, "dev-", devices));
        assert!(verdict.faults.contains(&"1 devices never got a connection".to_owned()), "{verdict}");
    }

    fn push_verdict(record: impl FnOnce(&mut DeviceRecord)) -> Verdict {
        let mut device = DeviceRecord { connects: 1, ..DeviceRecord::default() };
        record(&mut device);
        Verdict::of(&Ledger::new(RUN, "dev-", vec![device]), &Latencies::default(), false)
    }

    #[test]
    fn a_push_that_was_promised_and_did_not_come_is_lost() {
        for outcome in [PushOutcome::Delivered, PushOutcome::Queued] {
            let verdict = push_verdict(|device| {
                device.pushes.answered(0, outcome);
                device.pushes.answered(1, outcome);
                assert!(device.pushes.received(1));
            });
            assert_eq!(verdict.faults, ["1 pushes were promised and never came"]);
            assert_eq!(verdict.findings[0].kind, FindingKind::PushLost);
        }
    }

    #[test]
    fn a_push_that_came_against_its_outcome_is_a_fault() {
        for outcome in [PushOutcome::Expired, PushOutcome::Refused] {
            let verdict = push_verdict(|device| {
                device.pushes.answered(0, outcome);
                assert!(device.pushes.received(0));
            });
            assert_eq!(verdict.faults, ["1 pushes came against their outcome"]);
        }
    }

    #[test]
    fn a_push_without_an_outcome_may_come_or_not() {
        let verdict = push_verdict(|device| {
            device.pushes.answered(0, PushOutcome::Unknown);
            device.pushes.answered(1, PushOutcome::Unknown);
            assert!(device.pushes.received(0));
        });
        assert!(verdict.passed, "{verdict}");
        assert_eq!(verdict.pushes.unknown, 2);
    }

    #[test]
    fn a_push_that_was_never_sent_is_a_fault() {
        let never_sent = push_verdict(|device| assert!(device.pushes.received(3)));
        assert_eq!(never_sent.faults, ["1 pushes came that were never sent"]);
        assert!(!push_verdict(|device| device.pushes.received_unexplained()).passed);
    }

    #[test]
    fn a_push_that_comes_twice_is_counted() {
        let verdict = push_verdict(|device| {
            device.pushes.answered(0, PushOutcome::Delivered);
            assert!(device.pushes.received(0));
            assert!(!device.pushes.received(0));
        });
        assert_eq!(verdict.pushes.duplicated, 1);
        assert!(verdict.passed);
    }

    #[test]
    fn a_tool_that_is_late_itself_says_that_its_latencies_are_not_to_be_trusted() {
        let mut latencies = Latencies::default();
        latencies.own_lag.record_n(90_000, 100).unwrap();
        let mut ledger = ledger();
        observe_all(&mut ledger, 0, &[0, 1, 2, 3]);
        observe_all(&mut ledger, 1, &[0, 1, 2, 3]);
        let verdict = Verdict::of(&ledger, &latencies, true);
        assert!(verdict.passed && !verdict.trusted);
        assert!(verdict.to_string().contains("the load tool itself was late"), "{verdict}");
    }

    #[test]
    fn the_json_form_holds_the_same_numbers() {
        let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 3]));
        let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
        assert_eq!(json["frames"]["lost"], 1);
        assert_eq!(json["passed"], false);
        assert_eq!(json["findings"][0]["kind"], "lost");
    }
}
