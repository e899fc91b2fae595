//! Metrics that count what rarely happens stand at 0 from the start: an alert on a series that does not exist is silent, and the first event would
//! be no increase. The parts keep those that count for each frame themselves.

use holdfast_bridge::metrics as names;
use metrics::{counter, gauge};

use crate::config::{Role, SinkKind};

/// Counters without labels.
const COUNTERS: &[&str] = &[names::GROUP_DROPPED, names::STORE_RETRIES];

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

/// What only those have whose frames go to the log.
const LOG_COUNTERS: &[&str] = &[names::LOG_RECORDS, names::LOG_BYTES];

/// What only those have whose frames go to Kafka.
const OUTAGE_COUNTERS: &[&str] = &[
    names::SPOOL_DROPPED,
    names::OUTAGES,
    names::OUTAGE_SECONDS,
    names::KAFKA_DEAD_LETTERS,
    names::KAFKA_QUEUE_FULL,
    names::KAFKA_PRODUCERS,
];

/// Begins those of a role whose frames go to `sink`, in the recorder that is installed. Call it once, before any part starts.
pub(crate) fn begin(role: Role, sink: SinkKind) {
    if role == Role::Gateway {
        return;
    }
    names::describe();
    for name in COUNTERS {
        counter!(*name).increment(0);
    }
    for (name, label, values) in LABELLED {
        for value in *values {
            counter!(*name, *label => *value).increment(0);
        }
    }
    gauge!(names::LINKS).set(0.0);
    let (counters, stalled) = match sink {
        SinkKind::Log => (LOG_COUNTERS, names::LOG_STALLED),
        SinkKind::Kafka => (OUTAGE_COUNTERS, names::SPOOL_STALLED),
    };
    for name in counters {
        counter!(*name).increment(0);
    }
    gauge!(stalled).set(0.0);
    if sink == SinkKind::Kafka {
        for reason in ["refused", "damaged"] {
            counter!(names::FRAMES_LOST, "reason" => reason).increment(0);
        }
        gauge!(names::SINK_TROUBLE).set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_has_not_happened_yet_stands_at_0() {
        let text = |role, sink| {
            let recorder = PrometheusBuilder::new().build_recorder();
            metrics::with_local_recorder(&recorder, || begin(role, sink));
            recorder.handle().render()
        };
        let kafka = text(Role::Bridge, SinkKind::Kafka);
        assert!(kafka.contains("holdfast_outages_total 0") && !kafka.contains("holdfast_log_"), "{kafka}");
        let text = text(Role::Dev, SinkKind::Log);
        for line in [
            "holdfast_log_stalled 0",
            "holdfast_bridge_dedupe_hits_total{state=\"settled\"} 0",
            "holdfast_bridge_group_dropped_total 0",
            "holdfast_bridge_links_closed_total{reason=\"garbage\"} 0",
            "holdfast_bridge_store_retries_total 0",
            "# HELP holdfast_bridge_links Links of shards that are open",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in {text}");
        }
        assert!(!text.contains("holdfast_outages_total"), "{text}");
    }
}
