//! How long things took, of a whole run.

use hdrhistogram::Histogram;
use serde::Serialize;

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
