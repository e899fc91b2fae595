//! Metrics that count what rarely happens stand at 0 from the start: an alert on a series that does not exist is silent, and the first event would
//! be no increase. The parts keep those that count for each frame themselves.

use holdfast_bridge::metrics as names;
use metrics::{counter, gauge};

use crate::config::Role;

/// Counters without labels.
const COUNTERS: &[&str] = &[names::GROUP_DROPPED, names::STORE_RETRIES, names::LOG_RECORDS, names::LOG_BYTES];

/// Counters with one label, and its values.
const LABELLED: &[(&str, &str, &[&str])] = &[
    (names::DEDUPE_HITS, "state", &["settled", "pending"]),
    (
        names::LINKS_CLOSED,
        "reason",
        &["closed", "gone", "io", "garbage", "silent", "refused", "sink", "drained", "full", "stuck"],
    ),
    (names::DELIVERIES, "target", &["subscribers", "device", "group"]),
    (names::PUSHES, "outcome", &["delivered", "queued", "expired", "refused", "accepted"]),
];

/// Gauges that are 0 while all is well.
const GAUGES: &[&str] = &[names::LINKS, names::LOG_STALLED];

/// What only a bridge of its own can have.
const OUTAGE_COUNTERS: &[&str] = &[
    names::SPOOL_DROPPED,
    names::OUTAGES,
    names::OUTAGE_SECONDS,
    names::KAFKA_DEAD_LETTERS,
    names::KAFKA_QUEUE_FULL,
    names::KAFKA_PRODUCERS,
];

/// Begins those of a role, in the recorder that is installed. Call it once, before any part starts.
pub(crate) fn begin(role: Role) {
    if role == Role::Gateway {
        return;
    }
    for name in COUNTERS {
        counter!(*name).increment(0);
    }
    for (name, label, values) in LABELLED {
        for value in *values {
            counter!(*name, *label => *value).increment(0);
        }
    }
    for name in GAUGES {
        gauge!(*name).set(0.0);
    }
    if role == Role::Bridge {
        for name in OUTAGE_COUNTERS {
            counter!(*name).increment(0);
        }
        for reason in ["refused", "damaged"] {
            counter!(names::FRAMES_LOST, "reason" => reason).increment(0);
        }
        gauge!(names::SPOOL_STALLED).set(0.0);
        gauge!(names::SINK_TROUBLE).set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_has_not_happened_yet_stands_at_0() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || begin(Role::Dev));
        let text = recorder.handle().render();
        for line in [
            "holdfast_log_stalled 0",
            "holdfast_bridge_dedupe_hits_total{state=\"settled\"} 0",
            "holdfast_bridge_group_dropped_total 0",
            "holdfast_bridge_links_closed_total{reason=\"garbage\"} 0",
            "holdfast_bridge_store_retries_total 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in {text}");
        }
        assert!(!text.contains("holdfast_outages_total"), "{text}");
    }
}
