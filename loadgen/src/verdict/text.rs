//! The verdict for people.

use std::fmt;

use super::{Percentiles, Verdict};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, frames, pushes, .. } = self;
        row(f, "devices", &[("in all", devices.devices), ("connected", devices.connected)])?;
        row(f, "", &[("subscribed", devices.subscribed), ("in the end", devices.held)])?;
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
