//! The gateway's metrics as a test reads them.

use std::net::SocketAddr;

use crate::http;

/// Prometheus text, read once.
#[derive(Debug, Clone)]
pub struct Snapshot {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: u64,
}

impl Snapshot {
    /// Asks the gateway with this admin address.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn of(admin: SocketAddr) -> Self {
        let response = http::request(admin, "GET", "/metrics", &[], b"")
            .unwrap_or_else(|error| panic!("no metrics from {admin}: {error}"));
        assert_eq!(response.status, 200, "/metrics");
        Self::parse(&String::from_utf8_lossy(&response.body))
    }

    /// The sum of all samples with this name whose labels contain `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether any sample has this name and these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// How many connections closed for each reason.
    pub fn closes(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<(String, u64)> = Vec::new();
        for sample in self.matching("holdfast_connections_closed_total", &[]) {
            let reason =
                sample.labels.iter().find(|(name, _)| name == "reason").map_or("", |(_, value)| value);
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += sample.value,
                None => reasons.push((reason.to_owned(), sample.value)),
            }
        }
        reasons
    }

    /// How many connections closed for this reason.
    pub fn closed(&self, reason: &str) -> u64 {
        self.closes().iter().find(|(known, _)| known == reason).map_or(0, |(_, count)| *count)
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.iter().any(|(k, v)| k == key && v == value))
        })
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { samples: lines.filter_map(Sample::parse).collect() }
    }
}

impl Sample {
    /// `name{label="value",…} number`. Label values with quotes or commas do not occur: their cardinality is small
    /// and known. What has a fraction (a sum of durations) is left out: tests count.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_named() {
        let text = "# TYPE a counter\na{shard=\"0\",reason=\"x\"} 2\na{shard=\"1\",reason=\"x\"} 3\na{reason=\"y\"} 1\nb 7\n";
        let snapshot = Snapshot::parse(text);
        assert_eq!(snapshot.sum("a", &[("reason", "x")]), 5);
        assert_eq!(snapshot.sum("a", &[]), 6);
        assert_eq!(snapshot.sum("b", &[]), 7);
        assert!(!snapshot.has("c", &[]));
    }
}
