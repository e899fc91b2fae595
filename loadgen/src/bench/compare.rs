//! The same plan on several brokers, one after the other.

use std::fmt::Write as _;

use super::markdown::markdown;
use super::table::side_by_side;
use super::{BenchPlan, Contender, Reexec, Table, run};

/// The broker that ratios refer to.
pub const REFERENCE: &str = "mosquitto";

/// The broker that has goals.
pub(super) const JUDGED: &str = "holdfast";

/// What came out.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Comparison {
    /// One for each broker that started.
    pub tables: Vec<Table>,
    /// Brokers that did not start, and why.
    pub absent: Vec<String>,
}

impl Comparison {
    /// For people: brokers in columns, each figure with its ratio to [`REFERENCE`].
    pub fn to_text(&self) -> String {
        let mut text = side_by_side(&self.tables, REFERENCE);
        for absent in &self.absent {
            text.push_str(absent);
            text.push('\n');
        }
        text
    }

    /// For a document: the same with the goals and whether they are reached, as a Markdown table and its notes.
    pub fn to_markdown(&self) -> String {
        markdown(&self.tables, &self.absent)
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields always serialise")
    }

    /// Whether all that is judged has its figures: Holdfast's, where it is among the brokers, and otherwise everyone's. What a broker to
    /// compare with lacks is said in the table and is no fault of ours.
    pub fn is_complete(&self) -> bool {
        let Some(judged) = self.tables.iter().find(|table| table.name == JUDGED) else {
            return self.absent.is_empty() && self.tables.iter().all(|table| table.failures.is_empty());
        };
        judged.failures.is_empty() && !judged.figures.is_empty()
    }
}

/// Starts each broker, measures it and ends it. Each measure has a broker of its own, fresh from its start, so that
/// the memory of one measure does not come from another.
pub fn compare(
    plan: &BenchPlan,
    contenders: &[Contender],
    reexec: &Reexec,
    mut say: impl FnMut(&str),
) -> Comparison {
    let mut comparison = Comparison { tables: Vec::new(), absent: Vec::new() };
    for contender in contenders {
        let mut table = Table::new(contender.name());
        for measure in &plan.measures {
            match contender.start(reexec) {
                Ok(mut running) => {
                    let one = BenchPlan { measures: vec![*measure], ..plan.clone() };
                    let mut measured = run(&one, &running.target, &mut say);
                    if let (Some(status), Some(failure)) = (running.ended(), measured.failures.last_mut()) {
                        // Writing into a `String` does not fail.
                        let _ = write!(failure, "; its process ended with {status}");
                    }
                    table.figures.extend(measured.figures);
                    table.failures.extend(measured.failures);
                }
                Err(error) => {
                    comparison.absent.push(error.to_string());
                    break;
                }
            }
        }
        comparison.tables.push(table);
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{BenchError, Figure, Measure};

    fn table(name: &str, failed: bool) -> Table {
        let mut table = Table::new(name);
        table.extend(vec![Figure::less("idle_bytes", "bytes", 500.0)]);
        if failed {
            table.failed(Measure::Storm, &BenchError::Protocol);
        }
        table
    }

    fn is_complete(tables: Vec<Table>, absent: &[&str]) -> bool {
        Comparison { tables, absent: absent.iter().map(|&broker| broker.to_owned()).collect() }.is_complete()
    }

    #[test]
    fn only_what_holdfast_itself_lacks_makes_a_comparison_incomplete() {
        assert!(is_complete(
            vec![table(REFERENCE, true), table(JUDGED, false)],
            &["rumqttd did not start: no"]
        ));
        assert!(!is_complete(vec![table(REFERENCE, false), table(JUDGED, true)], &[]));
        assert!(!is_complete(
            vec![table(REFERENCE, false), Table::new(JUDGED)],
            &["holdfast did not start: no"]
        ));
    }

    #[test]
    fn without_holdfast_everybody_must_have_figures() {
        assert!(is_complete(vec![table(REFERENCE, false)], &[]));
        assert!(!is_complete(vec![table(REFERENCE, true)], &[]));
        assert!(!is_complete(vec![table(REFERENCE, false)], &["rumqttd did not start: no"]));
    }
}
