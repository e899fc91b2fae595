//! What came of it, with its goals: for people, for SPECIFICATION.md, for programs.

use std::fmt::Write as _;

use serde_json::json;

use super::own::OWN;
use super::{BRIDGE, Pair, Phase, Round};

/// Frames a second against librdkafka's own, at least.
const RATIO_GOAL: f64 = 0.4;
/// Above librdkafka's own latency, at most, in ms.
const P50_GOAL_MS: f64 = 1.0;
const P99_GOAL_MS: f64 = 5.0;
/// Lateness of the load itself (99th percentile) beyond which latencies are not to be trusted. It looks once in a millisecond.
const LATE_MS_MAX: f64 = 5.0;
/// CPU per frame in the bridge against librdkafka's own producer, at most.
const CPU_GOAL: f64 = 1.5;

/// Everything that was measured.
#[derive(Debug, Clone)]
pub struct WayReport {
    pairs: Vec<Pair>,
}

/// A row of the table: what, figure, goal, and whether it is reached.
struct Row {
    measure: String,
    figure: String,
    goal: String,
    reached: bool,
}

impl WayReport {
    pub(super) fn new(pairs: Vec<Pair>) -> Self {
        Self { pairs }
    }

    /// For people: the rows, and where CPU went.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing into a `String` does not fail.
        for Row { measure, figure, goal, reached } in self.rows() {
            let _ = writeln!(out, "{measure}\n    {figure}   goal {goal}: {}", answer(reached));
        }
        for remark in self.remarks() {
            let _ = writeln!(out, "note: {remark}");
        }
        for pair in &self.pairs {
            let _ = writeln!(out, "CPU us per frame, {}", pair.name());
            for (side, phase) in [("own producer", pair.own()), ("whole way", pair.way())] {
                let _ = writeln!(out, "    {side:<14}{}", cpu(&phase));
            }
            if pair.rate.is_some() {
                let _ = writeln!(out, "ms, p50 and p99 of each round, {}", pair.name());
                for Round { own, way } in &pair.rounds {
                    let [own, way] =
                        [own, way].map(|phase| format!("{:.1}, {:.1}", phase.ms(0.5), phase.ms(0.99)));
                    let _ = writeln!(out, "    own producer {own}; whole way {way}");
                }
            }
        }
        out
    }

    /// For SPECIFICATION.md: the rows as a Markdown table, and below it where CPU went.
    pub fn to_markdown(&self) -> String {
        let mut out = String::from("| Measure | Figure | Goal | Reached |\n| --- | --- | --- | --- |\n");
        for Row { measure, figure, goal, reached } in self.rows() {
            let reached = if reached { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {measure} | {figure} | {goal} | {reached} |");
        }
        out.push('\n');
        for pair in &self.pairs {
            let _ = writeln!(out, "- CPU us per frame, {}: {}.", pair.name(), cpu(&pair.way()));
        }
        for remark in self.remarks() {
            let _ = writeln!(out, "- {remark}.");
        }
        out
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        let phase = |phase: &Phase| {
            let cpu: serde_json::Map<_, _> =
                phase.cpu_us.iter().map(|(name, us)| ((*name).to_owned(), json!(us))).collect();
            json!({
                "frames": phase.frames,
                "frames_per_s": phase.per_s(),
                "cpu_us": cpu,
                "p50_ms": phase.ms(0.5),
                "p99_ms": phase.ms(0.99),
                "p99_9_ms": phase.ms(0.999),
                "late_p99_ms": late_ms(phase),
            })
        };
        let pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|pair| {
                let rounds: Vec<_> =
                    pair.rounds.iter().map(|round| json!({ "own": phase(&round.own), "way": phase(&round.way) })).collect();
                json!({ "rate": pair.rate, "own": phase(&pair.own()), "way": phase(&pair.way()), "rounds": rounds })
            })
            .collect();
        format!("{:#}", json!(pairs))
    }

    /// What the reader must know before he trusts a latency.
    fn remarks(&self) -> Vec<String> {
        let late = self.pairs.iter().map(|pair| {
            (pair, pair.median(|round| late_ms(&round.own)), pair.median(|round| late_ms(&round.way)))
        });
        late.filter(|(_, own, way)| own.max(*way) > LATE_MS_MAX)
            .map(|(pair, own, way)| {
                format!(
                    "at {} the load itself was late (p99 of the median round {own:.1} ms for the producer, {way:.1} ms for the devices): this machine \
                     has other work, do not trust the latencies",
                    pair.name(),
                )
            })
            .collect()
    }

    fn rows(&self) -> Vec<Row> {
        let throughput = self.pairs.iter().filter(|pair| pair.rate.is_none()).map(throughput);
        let latency = self.pairs.iter().filter(|pair| pair.rate.is_some()).map(latency);
        throughput.chain(latency).chain(self.pairs.iter().filter_map(bridge_cpu)).collect()
    }
}

impl Pair {
    fn name(&self) -> String {
        self.rate.map_or_else(|| "flat out".to_owned(), |rate| format!("{}/s", thousands(f64::from(rate))))
    }

    fn own(&self) -> Phase {
        Phase::sum(self.rounds.iter().map(|round| &round.own))
    }

    fn way(&self) -> Phase {
        Phase::sum(self.rounds.iter().map(|round| &round.way))
    }

    /// All rounds' figures in their order of size.
    fn sorted(&self, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        let mut figures: Vec<f64> = self.rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    /// Of an even number of rounds, between the two in the middle; 0 without any.
    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        match self.sorted(figure)[..] {
            [] => 0.0,
            ref figures => f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2]),
        }
    }
}

fn throughput(pair: &Pair) -> Row {
    let (way, own) = (pair.way().per_s(), pair.own().per_s());
    Row {
        measure: "frames/s flat out, devices, gateway, bridge and Kafka on the same cores".to_owned(),
        figure: format!("{}; {:.2} x librdkafka's own ({})", thousands(way), way / own, thousands(own)),
        goal: format!(">= {RATIO_GOAL} x"),
        reached: way >= RATIO_GOAL * own,
    }
}

fn latency(pair: &Pair) -> Row {
    let above = |quantile| move |round: &Round| round.way.ms(quantile) - round.own.ms(quantile);
    let (p50, p99) = (pair.median(above(0.5)), pair.median(above(0.99)));
    let rounds = pair.sorted(above(0.99));
    let spread = match rounds[..] {
        [first, .., last] => format!("; p99 of {} rounds {first:+.1} to {last:+.1}", rounds.len()),
        _ => String::new(),
    };
    Row {
        measure: format!("PUBACK at {} above librdkafka's own delivery latency, median round", pair.name()),
        figure: format!(
            "p50 {p50:+.1} ms, p99 {p99:+.1} ms (from {:.1} and {:.1} ms{spread})",
            pair.median(|round| round.own.ms(0.5)),
            pair.median(|round| round.own.ms(0.99))
        ),
        goal: format!("+{P50_GOAL_MS} / +{P99_GOAL_MS} ms"),
        reached: p50 <= P50_GOAL_MS && p99 <= P99_GOAL_MS,
    }
}

/// `None`: the bridge's process is not known.
fn bridge_cpu(pair: &Pair) -> Option<Row> {
    let (bridge, own) = (pair.way().cpu_us_each(BRIDGE)?, pair.own().cpu_us_each(OWN)?);
    Some(Row {
        measure: format!("CPU per frame in the bridge against librdkafka's own producer, {}", pair.name()),
        figure: format!("{bridge:.1} us; {:.2} x ({own:.1} us)", bridge / own),
        goal: format!("<= {CPU_GOAL} x"),
        reached: bridge <= CPU_GOAL * own,
    })
}

fn late_ms(phase: &Phase) -> f64 {
    phase.late_us.value_at_quantile(0.99) as f64 / 1e3
}

fn cpu(phase: &Phase) -> String {
    let parts: Vec<String> = phase
        .cpu_us
        .iter()
        .map(|(name, us)| format!("{name} {:.1}", *us as f64 / phase.frames.max(1) as f64))
        .collect();
    parts.join(", ")
}

fn answer(reached: bool) -> &'static str {
    if reached { "reached" } else { "NOT reached" }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measures::latencies_us;

    fn phase(frames: u64, cpu: (&'static str, u64), latency_us: u64) -> Phase {
        let mut latencies = latencies_us();
        latencies.saturating_record(latency_us);
        let late_us = latencies_us();
        Phase { frames, seconds: 1.0, cpu_us: vec![cpu], latencies_us: latencies, late_us }
    }

    fn round(frames: u64, cpu_us: u64, latency_us: u64) -> Round {
        Round { own: phase(100_000, (OWN, 200_000), 1_000), way: phase(frames, (BRIDGE, cpu_us), latency_us) }
    }

    fn pair(rate: Option<u32>, frames: u64, cpu_us: u64, latency_us: u64) -> Pair {
        Pair { rate, rounds: vec![round(frames, cpu_us, latency_us)] }
    }

    #[test]
    fn one_round_in_which_the_machine_stood_still_is_told_and_does_not_decide() {
        let mut pair = pair(Some(10_000), 100_000, 290_000, 1_900);
        pair.rounds.push(round(100_000, 290_000, 99_000));
        pair.rounds.push(round(100_000, 290_000, 1_500));
        let text = WayReport::new(vec![pair]).to_markdown();
        let line = text.lines().find(|line| line.contains("PUBACK")).unwrap_or_default();
        assert!(line.contains("p99 +0.9 ms (from 1.0 and 1.0 ms; p99 of 3 rounds +0.5 to +98."), "{text}");
        assert!(line.ends_with("| yes |"), "{text}");
    }

    #[test]
    fn a_load_that_was_late_itself_says_so() {
        let mut late = pair(Some(10_000), 100_000, 290_000, 1_900);
        late.rounds[0].way.late_us.saturating_record(9_000);
        let text = WayReport::new(vec![late, pair(None, 39_000, 290_000, 0)]).to_markdown();
        let line = text.lines().find(|line| line.contains("do not trust")).unwrap_or_default();
        assert!(
            line.starts_with("- at 10,000/s the load itself was late (p99 of the median round 0.0 ms"),
            "{text}"
        );
    }

    #[test]
    fn each_row_says_its_goal_and_whether_it_is_reached() {
        let report =
            WayReport::new(vec![pair(Some(10_000), 100_000, 290_000, 1_900), pair(None, 39_000, 290_000, 0)]);
        let text = report.to_markdown();
        let line =
            |start: &str| text.lines().find(|line| line.contains(start)).unwrap_or_default().to_owned();
        assert!(line("flat out, devices").ends_with(">= 0.4 x | **no** |"), "{text}");
        assert!(line("flat out, devices").contains("39,000; 0.39 x librdkafka's own (100,000)"), "{text}");
        assert!(line("PUBACK at 10,000/s").contains("p50 +0.9 ms, p99 +0.9 ms"), "{text}");
        assert!(line("PUBACK at 10,000/s").ends_with("| yes |"), "{text}");
        assert!(line("producer, 10,000/s").contains("2.9 us; 1.45 x (2.0 us)"), "{text}");
        assert!(line("producer, flat out").ends_with("<= 1.5 x | **no** |"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json[0]["rate"], &json[1]["rate"]), (&json!(10_000), &json!(null)));
        assert_eq!(json[0]["way"]["cpu_us"][BRIDGE], 290_000);
    }
}
