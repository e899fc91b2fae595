//! Figures, alone or side by side.

use std::fmt::Write as _;

use serde::Serialize;

use super::{BenchError, Measure};

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Bytes, CPU, time.
    Less,
    /// Rates.
    More,
}

/// One number that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Stable name for programs, with its unit last.
    pub key: &'static str,
    /// For people, with its unit.
    pub title: &'static str,
    /// The number.
    pub value: f64,
    /// Which way it is good.
    pub better: Better,
}

impl Figure {
    pub(super) fn less(key: &'static str, title: &'static str, value: f64) -> Self {
        Self { key, title, value, better: Better::Less }
    }

    pub(super) fn more(key: &'static str, title: &'static str, value: f64) -> Self {
        Self { key, title, value, better: Better::More }
    }
}

/// The figures of one broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The broker.
    pub name: String,
    /// In the order they were measured.
    pub figures: Vec<Figure>,
    /// Measures without a figure, and why.
    pub failures: Vec<String>,
}

impl Table {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), figures: Vec::new(), failures: Vec::new() }
    }

    pub(super) fn extend(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    pub(super) fn failed(&mut self, measure: Measure, error: &BenchError) {
        self.failures.push(format!("{}: {error}", measure.title()));
    }

    /// The figure of this key.
    pub fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.key == key)
    }
}

/// One figure of each key that any of them has. The fullest table gives the order; what only others have comes below.
pub(super) fn rows(tables: &[Table]) -> Vec<&Figure> {
    let mut rows: Vec<&Figure> = Vec::new();
    let mut by_size: Vec<&Table> = tables.iter().collect();
    by_size.sort_by_key(|table| std::cmp::Reverse(table.figures.len()));
    for figure in by_size.iter().flat_map(|table| &table.figures) {
        if rows.iter().all(|row| row.key != figure.key) {
            rows.push(figure);
        }
    }
    rows
}

/// Several brokers in columns; each cell with its ratio to `reference`, if that one has the figure.
pub(super) fn side_by_side(tables: &[Table], reference: &str) -> String {
    let rows = rows(tables);
    let width = rows.iter().map(|row| row.title.len()).max().unwrap_or(0);
    let mut out = String::new();
    // Writing into a `String` does not fail.
    let _ = write!(out, "{:width$}", "");
    for table in tables {
        let _ = write!(out, "  {:>22}", table.name);
    }
    out.push('\n');
    let reference = tables.iter().find(|table| table.name == reference);
    for row in rows {
        let _ = write!(out, "{:width$}", row.title);
        for table in tables {
            let _ = write!(out, "  {:>22}", cell(table, reference, row.key));
        }
        out.push('\n');
    }
    for table in tables {
        for failure in &table.failures {
            let _ = writeln!(out, "{} has no figure for {failure}", table.name);
        }
    }
    out
}

/// The figure with its ratio to the reference's.
pub(super) fn cell(table: &Table, reference: Option<&Table>, key: &str) -> String {
    let Some(figure) = table.figure(key) else { return "-".to_owned() };
    let ratio = reference
        .filter(|reference| reference.name != table.name)
        .and_then(|reference| reference.figure(key))
        .filter(|base| base.value != 0.0)
        .map_or_else(String::new, |base| format!(" ({:.2}x)", figure.value / base.value));
    format!("{}{ratio}", number(figure.value))
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1_000.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.strip_prefix('-').map_or(("", &*digits), |digits| ("-", digits));
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            format!("{sign}{grouped}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, value: f64) -> Table {
        let mut table = Table::new(name);
        table.extend(vec![Figure::less("cpu_us", "CPU us", value)]);
        table
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!(number(0.5), "0.50");
        assert_eq!(number(431.25), "431.2");
        assert_eq!(number(1_960_000.4), "1,960,000");
        assert_eq!(number(-45_000.0), "-45,000");
    }

    #[test]
    fn each_cell_has_its_ratio_to_the_reference() {
        let mut slow = table("slow", 20.0);
        slow.extend(vec![Figure::more("only_here", "Only here", 1.0)]);
        let text = side_by_side(&[table("base", 8.0), slow], "base");
        assert!(text.contains("8.00") && text.contains("20.0 (2.50x)"), "{text}");
        assert!(
            text.lines().last().is_some_and(|line| line.contains('-') && line.contains("1.00")),
            "{text}"
        );
    }

    #[test]
    fn a_measure_that_failed_says_why() {
        let mut table = table("base", 1.0);
        table.failed(Measure::Storm, &BenchError::Process(7));
        let text = side_by_side(&[table], "base");
        assert!(text.contains("return of all connections: cannot read /proc of process 7"), "{text}");
    }
}
