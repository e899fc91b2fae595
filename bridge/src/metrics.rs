//! Every metric of the bridge, named once. Labels have few known values and never carry a client id.

use metrics::{Counter, counter};

/// Uplinks taken from links.
pub const UPLINKS: &str = "holdfast_bridge_uplinks_total";
/// Bytes of the links' records, by `direction` (`in`, `out`).
pub const LINK_BYTES: &str = "holdfast_bridge_link_bytes_total";
/// Uplinks settled, by `result` (`stored`, `refused`, `dropped`: with QoS 0, by a full spool).
pub const SETTLED: &str = "holdfast_bridge_settled_total";
/// Uplinks that the dedupe ring knew, by `state` (`settled`, `pending`), or of a session that was taken over (`stale`).
pub const DEDUPE_HITS: &str = "holdfast_bridge_dedupe_hits_total";
/// Links that are open.
pub const LINKS: &str = "holdfast_bridge_links";
/// Links that were closed, by `reason`.
pub const LINKS_CLOSED: &str = "holdfast_bridge_links_closed_total";
/// Deliveries handed to links, by `target` (`subscribers`, `device`, `group`).
pub const DELIVERIES: &str = "holdfast_bridge_deliveries_total";
/// Messages for a shared group that found no member and no stream.
pub const GROUP_DROPPED: &str = "holdfast_bridge_group_dropped_total";
/// Reports of members of shared groups that nobody waits for any more because too many are awaited.
pub const GROUP_REPORTS_GIVEN_UP: &str = "holdfast_bridge_group_reports_given_up_total";
/// Messages on personal topics that went to all shards which may hold the device, as the session store did not say which one does.
pub const OWNERS_UNKNOWN: &str = "holdfast_bridge_owners_unknown_total";
/// New subscriptions that were sent nothing of what is retained for them, as too many waited for that or the store could not read it.
pub const RETAINED_UNREAD: &str = "holdfast_bridge_retained_unread_total";
/// Pushes, by `outcome`.
pub const PUSHES: &str = "holdfast_bridge_pushes_total";
/// Requests to the session store that are tried again because it was unavailable.
pub const STORE_RETRIES: &str = "holdfast_bridge_store_retries_total";
/// Sessions taken from gateways that died.
pub const REAPED_SESSIONS: &str = "holdfast_bridge_reaped_sessions_total";
/// Wills published in the place of gateways that died.
pub const REAPED_WILLS: &str = "holdfast_bridge_reaped_wills_total";
/// Seconds that one fsync of the log took.
pub const LOG_FSYNC_SECONDS: &str = "holdfast_log_fsync_seconds";
/// Records stored in the log.
pub const LOG_RECORDS: &str = "holdfast_log_records_total";
/// Bytes stored in the log.
pub const LOG_BYTES: &str = "holdfast_log_bytes_total";
/// 1 while the log cannot store (disk full or failing), else 0.
pub const LOG_STALLED: &str = "holdfast_log_stalled";
/// 0 while frames go straight to the sink; 1 while it is asked to give back what it has not stored; 2 while they go to the spool; 3 while that drains;
/// 4 while they are held back until the sink answers (`on_outage = "hold"`).
pub const SPOOL_STATE: &str = "holdfast_spool_state";
/// Records in the spool that the sink has not stored.
pub const SPOOL_RECORDS: &str = "holdfast_spool_records";
/// Bytes of the spool on disk.
pub const SPOOL_BYTES: &str = "holdfast_spool_bytes";
/// 1 while the spool takes nothing (full, or its disk refuses), else 0.
pub const SPOOL_STALLED: &str = "holdfast_spool_stalled";
/// Frames with QoS 0 that were dropped because the spool was full.
pub const SPOOL_DROPPED: &str = "holdfast_spool_dropped_total";
/// 1 while something keeps frames from Kafka that an operator has to mend (a topic that is missing or forbidden, brokers that do not answer at the
/// start), else 0; `/readyz` says what.
pub const SINK_TROUBLE: &str = "holdfast_sink_trouble";
/// Outages of the sink.
pub const OUTAGES: &str = "holdfast_outages_total";
/// Seconds that outages of the sink have lasted, a running one included.
pub const OUTAGE_SECONDS: &str = "holdfast_outage_seconds_total";
/// Acknowledged frames that are lost, by `reason` (`refused`, `damaged`). Must stay 0.
pub const FRAMES_LOST: &str = "holdfast_frames_lost_total";
/// Records that Kafka was given, by `result` (`stored`, `refused`, `withdrawn`: taken back in an outage).
pub const KAFKA_RECORDS: &str = "holdfast_kafka_records_total";
/// Seconds from the first frame of a batch to the last report of it.
pub const KAFKA_SECONDS: &str = "holdfast_kafka_batch_seconds";
/// Records that went to the dead letter topic because their own refused them.
pub const KAFKA_DEAD_LETTERS: &str = "holdfast_kafka_dead_letters_total";
/// Times that a link had to wait because the producer's queue was full.
pub const KAFKA_QUEUE_FULL: &str = "holdfast_kafka_queue_full_total";
/// Producers that took the place of one whose records were withdrawn.
pub const KAFKA_PRODUCERS: &str = "holdfast_kafka_producers_replaced_total";
/// Records of the push topic, by `result` (`carried_out`, `refused`: it was no push).
pub const PUSH_RECORDS: &str = "holdfast_bridge_push_records_total";
/// Records of the push topic whose outcome is awaited.
pub const PUSH_RECORDS_IN_FLIGHT: &str = "holdfast_bridge_push_records_in_flight";
/// Receipts of pushes, by `result` (`stored`, `dropped`: there was no room while Kafka was away).
pub const RECEIPTS: &str = "holdfast_bridge_receipts_total";
/// Events of connections, by `result` (`stored`, `dropped`).
pub const EVENTS: &str = "holdfast_bridge_events_total";

/// Those that count for each frame or each turn. Looking one up by its name costs as much as fanning a message out.
pub(crate) struct Counters {
    pub(crate) uplinks: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) stored: Counter,
    pub(crate) refused: Counter,
    pub(crate) dropped: Counter,
    pub(crate) to_subscribers: Counter,
    pub(crate) to_devices: Counter,
}

impl Counters {
    /// Of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        Self {
            uplinks: counter!(UPLINKS),
            bytes_in: counter!(LINK_BYTES, "direction" => "in"),
            bytes_out: counter!(LINK_BYTES, "direction" => "out"),
            stored: counter!(SETTLED, "result" => "stored"),
            refused: counter!(SETTLED, "result" => "refused"),
            dropped: counter!(SETTLED, "result" => "dropped"),
            to_subscribers: counter!(DELIVERIES, "target" => "subscribers"),
            to_devices: counter!(DELIVERIES, "target" => "device"),
        }
    }
}

/// What each means, in a few words.
const DESCRIPTIONS: &[(&str, &str)] = &[
    (UPLINKS, "Frames taken from shards"),
    (LINK_BYTES, "Bytes over the links, by direction"),
    (SETTLED, "Frames answered, by result"),
    (DEDUPE_HITS, "Frames recognised as sent again, by state"),
    (LINKS, "Links of shards that are open"),
    (LINKS_CLOSED, "Links closed, by reason"),
    (DELIVERIES, "Deliveries handed to shards, by target"),
    (GROUP_DROPPED, "Messages for a shared group that found no member and no queue"),
    (
        GROUP_REPORTS_GIVEN_UP,
        "Reports of members of shared groups that are waited for no more, as too many are awaited",
    ),
    (
        OWNERS_UNKNOWN,
        "Messages for one device that went to all shards which may hold it, as the store did not say which",
    ),
    (RETAINED_UNREAD, "New subscriptions that went without what is retained for them"),
    (PUSHES, "Pushes, by outcome"),
    (STORE_RETRIES, "Requests to the session store that were tried again"),
    (REAPED_SESSIONS, "Sessions taken from gateways that died"),
    (REAPED_WILLS, "Wills published in the place of gateways that died"),
    (LOG_FSYNC_SECONDS, "How long one sync of the log, or of the spool, took"),
    (LOG_RECORDS, "Frames stored in the log, or in the spool"),
    (LOG_BYTES, "Bytes stored in the log, or in the spool"),
    (LOG_STALLED, "1 while the log cannot store"),
    (
        SPOOL_STATE,
        "What frames do: 0 go to Kafka, 1 are asked back, 2 go to the spool, 3 the spool drains, 4 wait for Kafka",
    ),
    (SPOOL_RECORDS, "Records in the spool that Kafka has not stored"),
    (SPOOL_BYTES, "Bytes of the spool on disk"),
    (SPOOL_STALLED, "1 while the spool takes nothing"),
    (SPOOL_DROPPED, "Frames with QoS 0 dropped because the spool was full"),
    (SINK_TROUBLE, "1 while something keeps frames from Kafka that an operator has to mend"),
    (OUTAGES, "Outages of Kafka"),
    (OUTAGE_SECONDS, "Seconds that outages of Kafka have lasted"),
    (FRAMES_LOST, "Acknowledged frames that are lost, by reason; must stay 0"),
    (KAFKA_RECORDS, "Records given to Kafka, by result"),
    (KAFKA_SECONDS, "From the first frame of a batch to its last delivery report"),
    (KAFKA_DEAD_LETTERS, "Records that went to the dead letter topic"),
    (KAFKA_QUEUE_FULL, "Times that a link waited because the queue of the producer was full"),
    (KAFKA_PRODUCERS, "Producers that took the place of one whose records were withdrawn"),
    (PUSH_RECORDS, "Records of the push topic, by result"),
    (PUSH_RECORDS_IN_FLIGHT, "Records of the push topic whose outcome is awaited"),
    (RECEIPTS, "Receipts of pushes, by result"),
    (EVENTS, "Events of connections, by result"),
];

/// Tells the recorder that is installed what the names mean.
pub fn describe() {
    for &(name, description) in DESCRIPTIONS {
        if name.ends_with("_total") {
            metrics::describe_counter!(name, description);
        } else if name.ends_with("_seconds") {
            metrics::describe_histogram!(name, description);
        } else {
            metrics::describe_gauge!(name, description);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_once() {
        let source = include_str!("metrics.rs");
        let named = source.lines().filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"));
        let mut named: Vec<&str> = named.collect();
        let mut described: Vec<&str> = DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        described.sort_unstable();
        assert_eq!(described, named);
    }
}
