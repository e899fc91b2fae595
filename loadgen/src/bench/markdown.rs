//! The comparison as SPECIFICATION.md shows it: brokers in columns, the goal of each figure, and whether it is reached.

use std::fmt::Write as _;
use std::fs;

use super::compare::{JUDGED, REFERENCE};
use super::contender::HOLDFAST_GATEWAY_THREADS;
use super::goals::goal_of;
use super::table::{Table, cell, rows};

pub(super) fn markdown(tables: &[Table], absent: &[String]) -> String {
    let reference = tables.iter().find(|table| table.name == REFERENCE);
    let judged = tables.iter().find(|table| table.name == JUDGED);
    let mut out = String::from("| Measure |");
    // Writing into a `String` does not fail.
    for table in tables {
        let _ = write!(out, " {} |", table.name);
    }
    let _ = writeln!(out, " goal | reached |\n| --- |{} --- | --- |", " ---: |".repeat(tables.len()));
    for row in rows(tables) {
        let _ = write!(out, "| {} |", row.title);
        for table in tables {
            let _ = write!(out, " {} |", cell(table, reference, row.key));
        }
        let value_of = |table: Option<&Table>| Some(table?.figure(row.key)?.value);
        let _ = match (goal_of(row.key), value_of(judged)) {
            (None, _) => writeln!(out, " | |"),
            (Some(goal), None) => writeln!(out, " {goal} | no figure |"),
            (Some(goal), Some(value)) => {
                let reached = match goal.is_reached(value, value_of(reference)) {
                    Some(true) => "yes",
                    Some(false) => "**no**",
                    None => "nothing to compare with",
                };
                writeln!(out, " {goal} | {reached} |")
            }
        };
    }
    let _ = writeln!(out, "\n{}", notes());
    for table in tables {
        for failure in &table.failures {
            let _ = writeln!(out, "- {} has no figure for {failure}.", table.name);
        }
    }
    for broker in absent {
        let _ = writeln!(out, "- {broker}.");
    }
    out
}

fn notes() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = cpu_model().map(|model| format!(" ({model})")).unwrap_or_default();
    format!(
        "- {cores} cores{model}, shared by the broker and the driver. In parentheses, and in goals with an x: the ratio \
         to {REFERENCE} in the same run.\n\
         - Gateway alone: the threads `{HOLDFAST_GATEWAY_THREADS}*` of {JUDGED}; of the other brokers both rows are the \
         whole process. They acknowledge from memory; {JUDGED} after its log's fsync.\n\
         - QoS 0 flat out counts messages that the broker has read. What it forwards or drops of them is its own affair: \
         MQTT promises nothing for QoS 0.\n\
         - Pushes are traffic between devices: a rule of {JUDGED}'s topic map keeps `devices/+/push` out of its log, \
         as the other brokers have none. Devices subscribe at QoS 1; the row says at which QoS pushes are published."
    )
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{BenchError, Figure, Measure};

    fn table(name: &str, figures: Vec<Figure>) -> Table {
        let mut table = Table::new(name);
        table.extend(figures);
        table
    }

    fn line(text: &str, start: &str) -> String {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned()
    }

    #[test]
    fn each_row_has_its_figures_their_ratio_the_goal_and_whether_it_is_reached() {
        let cpu = |value| Figure::less("qos0_gateway_cpu_us", "CPU", value);
        let acks = |value| Figure::more("qos1_flat_out_per_s", "acks/s", value);
        let other = |value| Figure::less("qos0_cpu_us", "other", value);
        let text = markdown(
            &[
                table(REFERENCE, vec![cpu(8.0), acks(100_000.0), other(1.0)]),
                table(JUDGED, vec![cpu(4.0), acks(290_000.0), other(1.0)]),
            ],
            &[],
        );
        assert_eq!(line(&text, "| Measure"), "| Measure | mosquitto | holdfast | goal | reached |");
        assert_eq!(line(&text, "| CPU"), "| CPU | 8.00 | 4.00 (0.50x) | ≤ 0.9 x | yes |");
        assert_eq!(line(&text, "| acks/s"), "| acks/s | 100,000 | 290,000 (2.90x) | ≥ 3 x | **no** |");
        assert_eq!(line(&text, "| other"), "| other | 1.00 | 1.00 (1.00x) | | |");
    }

    #[test]
    fn what_has_no_figure_is_said_and_never_counted_as_reached() {
        let mut without = table(JUDGED, Vec::new());
        without.failed(Measure::Storm, &BenchError::Protocol);
        let storm = table(REFERENCE, vec![Figure::less("storm_back_s", "back", 1.0)]);
        let text = markdown(&[storm, without], &["rumqttd did not start: no".to_owned()]);
        assert_eq!(line(&text, "| back"), "| back | 1.00 | - | ≤ 0.6 | no figure |");
        assert!(text.contains("- holdfast has no figure for return of all connections:"), "{text}");
        assert!(text.contains("- rumqttd did not start: no."), "{text}");
        let alone = table(JUDGED, vec![Figure::less("connect_cpu_us", "connect", 1.0)]);
        assert!(line(&markdown(&[alone], &[]), "| connect").ends_with("| nothing to compare with |"));
    }
}
