//! Holds `docs/operating.md` to the code: every key with its default, every metric, every way to lose a connection, and
//! nothing that does not exist. A table that is out of date fails with the rows as they should stand.

use std::collections::BTreeSet;

use holdfast_engine::CloseReason;

use crate::config::default_values;

const OPERATING: &str = include_str!("../docs/operating.md");
/// The files in which names of metrics stand.
const METRICS: [&str; 5] = [
    include_str!("version.rs"),
    include_str!("../gateway/src/metrics.rs"),
    include_str!("../bridge/src/metrics.rs"),
    include_str!("../store/src/metrics.rs"),
    include_str!("../store/src/redis/metrics.rs"),
];

/// The first `cells` cells of each row of all tables below a heading of the second level.
fn rows(heading: &str, cells: usize) -> BTreeSet<String> {
    let (_, section) = OPERATING.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or(section);
    let first_cells = |line: &str| line.split(" | ").take(cells).collect::<Vec<_>>().join(" | ");
    section.lines().filter(|line| line.starts_with("| `")).map(first_cells).collect()
}

#[track_caller]
fn assert_same(documented: &BTreeSet<String>, real: &BTreeSet<String>) {
    let missing: Vec<_> = real.difference(documented).collect();
    let invented: Vec<_> = documented.difference(real).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}\ntoo many: {invented:#?}");
}

#[test]
fn every_key_stands_in_the_operator_s_guide_with_its_default() {
    let real = default_values().iter().map(|(key, value)| format!("| `{key}` | `{value}`")).collect();
    assert_same(&rows("Configuration keys", 2), &real);
}

#[test]
fn every_metric_stands_in_the_operator_s_guide() {
    let names = METRICS.iter().flat_map(|source| {
        // What stands in quotes is every second part. The tests below the code quote whole lines of Prometheus text.
        let code = source.split("#[cfg(test)]").next().unwrap_or(source);
        code.split('"').skip(1).step_by(2).filter(|text| text.starts_with("holdfast_"))
    });
    assert_same(&rows("Metrics", 1), &names.map(|name| format!("| `{name}`")).collect());
}

#[test]
fn every_way_to_lose_a_connection_stands_in_the_operator_s_guide_with_what_the_peer_hears() {
    let row = |reason: &CloseReason| {
        let mqtt = reason.reason_code().map_or("–".to_owned(), |code| format!("0x{:02X}", u8::from(code)));
        format!("| `{}` | {mqtt} | {}", reason.label(), reason.close_code().code())
    };
    assert_same(&rows("Close reasons", 3), &CloseReason::ALL.iter().map(row).collect());
}
