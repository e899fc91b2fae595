//! Names of all metrics of the gateway, and how plain counters become them.
//!
//! The engine and the shell count in plain integers; each shard publishes the differences once a second. Labels have a small known
//! cardinality: a shard's number, a reason, a QoS; never a client id.

use holdfast_engine::{CloseReason, Stats};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// What the shell itself counts; each only grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShellStats {
    /// Connections refused because the process keeps its last files for itself.
    pub(crate) refused_for_files: u64,
    /// Times a listener rested because there was no room for another socket.
    pub(crate) accept_pauses: u64,
    /// Connections that were gone before they were accepted.
    pub(crate) accept_lost: u64,
    /// Times a socket's kernel buffer was full and a send buffer began.
    pub(crate) blocked: u64,
    /// Closing sockets cut because the peer did not finish in time.
    pub(crate) linger_cut: u64,
    /// Turns of the event loop.
    pub(crate) turns: u64,
    /// Times this shard held because the process had not run until its lease had run out.
    pub(crate) holds: u64,
}

/// A counter's name, its label (none if the name is empty), and where it is counted.
type Row<S> = (&'static str, (&'static str, &'static str), fn(&S) -> u64);

const NONE: (&str, &str) = ("", "");

const ENGINE_COUNTERS: &[Row<Stats>] = &[
    ("holdfast_connections_accepted_total", NONE, |stats| stats.accepted),
    ("holdfast_connections_refused_total", NONE, |stats| stats.accept_refused),
    ("holdfast_sessions_connected_total", NONE, |stats| stats.connects),
    ("holdfast_sessions_resumed_total", NONE, |stats| stats.resumes),
    ("holdfast_sessions_taken_over_total", NONE, |stats| stats.takeovers),
    ("holdfast_uplinks_received_total", ("qos", "0"), |stats| stats.received[0]),
    ("holdfast_uplinks_received_total", ("qos", "1"), |stats| stats.received[1]),
    ("holdfast_uplinks_received_total", ("qos", "2"), |stats| stats.received[2]),
    ("holdfast_uplinks_received_bytes_total", NONE, |stats| stats.received_bytes),
    ("holdfast_uplinks_acknowledged_total", NONE, |stats| stats.acknowledged),
    ("holdfast_uplinks_refused_total", NONE, |stats| stats.refused),
    ("holdfast_uplinks_dropped_total", ("reason", "no_credit"), |stats| stats.dropped_no_credit),
    ("holdfast_reads_paused_total", NONE, |stats| stats.paused),
    ("holdfast_deliveries_sent_total", ("qos", "0"), |stats| stats.sent[0]),
    ("holdfast_deliveries_sent_total", ("qos", "1"), |stats| stats.sent[1]),
    ("holdfast_deliveries_sent_total", ("qos", "2"), |stats| stats.sent[2]),
    ("holdfast_deliveries_sent_bytes_total", NONE, |stats| stats.sent_bytes),
    ("holdfast_deliveries_resent_total", NONE, |stats| stats.resent),
    ("holdfast_deliveries_dropped_total", ("reason", "slow_consumer"), |stats| stats.dropped_slow_consumer),
    ("holdfast_deliveries_dropped_total", ("reason", "queue_full"), |stats| stats.dropped_queue_full),
    ("holdfast_deliveries_dropped_total", ("reason", "expired"), |stats| stats.dropped_expired),
    ("holdfast_deliveries_dropped_total", ("reason", "too_large"), |stats| stats.dropped_too_large),
    ("holdfast_wills_published_total", NONE, |stats| stats.wills),
    ("holdfast_wills_left_total", NONE, |stats| stats.wills_left),
    ("holdfast_events_dropped_total", NONE, |stats| stats.events_dropped),
    ("holdfast_links_overrun_total", NONE, |stats| stats.links_overrun),
    ("holdfast_store_errors_total", NONE, |stats| stats.store_errors),
    ("holdfast_sessions_restored_total", NONE, |stats| stats.restored),
    ("holdfast_opens_again_total", NONE, |stats| stats.opens_again),
    ("holdfast_sessions_stray_total", NONE, |stats| stats.strays_closed),
];

const SHELL_COUNTERS: &[Row<ShellStats>] = &[
    // Beside those that the engine refuses.
    ("holdfast_connections_refused_total", NONE, |stats| stats.refused_for_files),
    ("holdfast_accept_pauses_total", NONE, |stats| stats.accept_pauses),
    ("holdfast_connections_accept_lost_total", NONE, |stats| stats.accept_lost),
    ("holdfast_sockets_blocked_total", NONE, |stats| stats.blocked),
    ("holdfast_sockets_linger_cut_total", NONE, |stats| stats.linger_cut),
    ("holdfast_loop_turns_total", NONE, |stats| stats.turns),
    ("holdfast_lease_holds_total", NONE, |stats| stats.holds),
];

const CONNECTIONS_CLOSED: &str = "holdfast_connections_closed_total";
const CONNECTIONS: &str = "holdfast_connections";
const HALF_OPEN: &str = "holdfast_connections_half_open";
const OPENS_WAITING: &str = "holdfast_opens_waiting";
const OPENS_WINDOW: &str = "holdfast_opens_window";
const SOCKETS: &str = "holdfast_sockets";
const UNSENT_BYTES: &str = "holdfast_unsent_bytes";
const LINKS_UP: &str = "holdfast_links_up";
const LINKS_WANTED: &str = "holdfast_links_wanted";
const LOOP_LAG: &str = "holdfast_loop_lag_seconds";

const DESCRIPTIONS: &[(&str, &str)] = &[
    ("holdfast_connections_accepted_total", "Connections taken"),
    ("holdfast_connections_refused_total", "Connections refused as they came, by a limit or a drain"),
    ("holdfast_sessions_connected_total", "CONNECTs answered with success"),
    ("holdfast_sessions_resumed_total", "CONNECTs that resumed a session"),
    ("holdfast_sessions_taken_over_total", "Sessions that moved to a new connection"),
    ("holdfast_uplinks_received_total", "Publications taken from devices"),
    ("holdfast_uplinks_received_bytes_total", "Payload bytes of publications taken from devices"),
    ("holdfast_uplinks_acknowledged_total", "Publications acknowledged to devices"),
    ("holdfast_uplinks_refused_total", "Publications refused for good"),
    ("holdfast_uplinks_dropped_total", "QoS 0 publications dropped"),
    ("holdfast_reads_paused_total", "Times a device was held back because the bridges take no more"),
    ("holdfast_deliveries_sent_total", "Publications sent to devices"),
    ("holdfast_deliveries_sent_bytes_total", "Payload bytes of publications sent to devices"),
    ("holdfast_deliveries_resent_total", "Publications sent again after a resume"),
    ("holdfast_deliveries_dropped_total", "Publications not sent to a device"),
    ("holdfast_wills_published_total", "Wills published"),
    ("holdfast_wills_left_total", "Wills left to the session store, as the bridges took no more"),
    (
        "holdfast_events_dropped_total",
        "Events of connections that no bridge was there to be told of, or one that took too little",
    ),
    (
        "holdfast_links_overrun_total",
        "Links given up and dialled again, as their bridge took nothing and too much waited for it",
    ),
    ("holdfast_store_errors_total", "Questions that the session store could not answer"),
    ("holdfast_sessions_restored_total", "Sessions written back to a session store that had lost its data"),
    (
        "holdfast_opens_again_total",
        "Questions to open a session that the session store could not answer while the device waited on",
    ),
    (
        "holdfast_sessions_stray_total",
        "Sessions closed that the session store had opened for connections which ended before it said so",
    ),
    (
        "holdfast_lease_holds_total",
        "Times a shard held because the process had not run until its lease had run out",
    ),
    ("holdfast_accept_pauses_total", "Times a listener rested because there was no room for another socket"),
    ("holdfast_connections_accept_lost_total", "Connections that were gone before they were accepted"),
    ("holdfast_sockets_blocked_total", "Times a device did not read fast enough and a send buffer began"),
    ("holdfast_sockets_linger_cut_total", "Closing sockets cut because the device did not finish in time"),
    ("holdfast_loop_turns_total", "Turns of the event loops"),
    (CONNECTIONS_CLOSED, "Connections ended, by reason"),
];

/// Makes a Prometheus recorder the process's one and describes the gateway's metrics. Call it once, before any node starts;
/// the handle renders what the admin server shows.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    const LAG_BUCKETS_S: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    // Syncs of a disk, calls over a network. Without buckets there would be quantiles, which forget.
    const WAIT_BUCKETS_S: &[f64] =
        &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(LOOP_LAG.to_owned()), LAG_BUCKETS_S)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), WAIT_BUCKETS_S)?
        .install_recorder()?;
    for (name, description) in DESCRIPTIONS {
        metrics::describe_counter!(*name, *description);
    }
    metrics::describe_gauge!(CONNECTIONS, "Connections that the engine knows");
    metrics::describe_gauge!(HALF_OPEN, "Connections that have not finished their CONNECT");
    metrics::describe_gauge!(
        OPENS_WAITING,
        "CONNECTs that wait until the session store may be asked about them"
    );
    metrics::describe_gauge!(OPENS_WINDOW, "Sessions that the session store may be asked to open at once");
    metrics::describe_gauge!(SOCKETS, "Client sockets held open; more than connections means a leak");
    metrics::describe_gauge!(UNSENT_BYTES, Unit::Bytes, "Bytes that wait because devices do not read");
    metrics::describe_gauge!(LINKS_UP, "Links to bridges that stand");
    metrics::describe_gauge!(LINKS_WANTED, "Bridges that the shard dials or has a link to");
    metrics::describe_histogram!(LOOP_LAG, Unit::Seconds, "How late the event loop turned");
    Ok(handle)
}

/// One shard's handles.
pub(crate) struct ShardMetrics {
    engine: Vec<Published<Stats>>,
    shell: Vec<Published<ShellStats>>,
    closed: Vec<(Counter, u64)>,
    connections: Gauge,
    half_open: Gauge,
    opens_waiting: Gauge,
    opens_window: Gauge,
    sockets: Gauge,
    unsent_bytes: Gauge,
    links_up: Gauge,
    links_wanted: Gauge,
    loop_lag: Histogram,
}

/// What is published of a shard's present state.
#[derive(Debug, Default)]
pub(crate) struct ShardGauges {
    /// Connections that the engine knows.
    pub(crate) connections: usize,
    /// ... of which have not finished their CONNECT.
    pub(crate) half_open: usize,
    /// CONNECTs that wait until the store may be asked about them.
    pub(crate) opens_waiting: u32,
    /// How many it may be asked about at once.
    pub(crate) opens_window: u32,
    /// Client sockets held open.
    pub(crate) sockets: usize,
    /// Bytes in send buffers.
    pub(crate) unsent_bytes: usize,
    /// Links that stand.
    pub(crate) links_up: usize,
    /// Links that are to stand.
    pub(crate) links_wanted: usize,
}

struct Published<S> {
    counter: Counter,
    value: fn(&S) -> u64,
    last: u64,
}

impl ShardMetrics {
    /// Handles of the recorder that is installed now; without one they do nothing.
    pub(crate) fn new(shard: u16) -> Self {
        let shard = shard.to_string();
        let closed = |reason: &CloseReason| (counter!(CONNECTIONS_CLOSED, "reason" => reason.label()), 0);
        Self {
            engine: ENGINE_COUNTERS.iter().map(Published::new).collect(),
            shell: SHELL_COUNTERS.iter().map(Published::new).collect(),
            closed: CloseReason::ALL.iter().map(closed).collect(),
            connections: gauge!(CONNECTIONS, "shard" => shard.clone()),
            half_open: gauge!(HALF_OPEN, "shard" => shard.clone()),
            opens_waiting: gauge!(OPENS_WAITING, "shard" => shard.clone()),
            opens_window: gauge!(OPENS_WINDOW, "shard" => shard.clone()),
            sockets: gauge!(SOCKETS, "shard" => shard.clone()),
            unsent_bytes: gauge!(UNSENT_BYTES, "shard" => shard.clone()),
            links_up: gauge!(LINKS_UP, "shard" => shard.clone()),
            links_wanted: gauge!(LINKS_WANTED, "shard" => shard.clone()),
            loop_lag: histogram!(LOOP_LAG, "shard" => shard),
        }
    }

    /// Adds what was counted since the last call.
    pub(crate) fn publish(&mut self, engine: &Stats, shell: &ShellStats, gauges: &ShardGauges) {
        self.engine.iter_mut().for_each(|row| row.publish(engine));
        self.shell.iter_mut().for_each(|row| row.publish(shell));
        for ((counter, last), reason) in self.closed.iter_mut().zip(CloseReason::ALL) {
            let total = engine.closed.count(*reason);
            counter.increment(total - *last);
            *last = total;
        }
        self.connections.set(gauges.connections as f64);
        self.half_open.set(gauges.half_open as f64);
        self.opens_waiting.set(f64::from(gauges.opens_waiting));
        self.opens_window.set(f64::from(gauges.opens_window));
        self.sockets.set(gauges.sockets as f64);
        self.unsent_bytes.set(gauges.unsent_bytes as f64);
        self.links_up.set(gauges.links_up as f64);
        self.links_wanted.set(gauges.links_wanted as f64);
    }

    /// A turn ran this late.
    pub(crate) fn note_lag(&self, late_ms: u64) {
        self.loop_lag.record(late_ms as f64 / 1_000.0);
    }
}

impl<S> Published<S> {
    fn new(&(name, (label, label_value), value): &Row<S>) -> Self {
        let counter = if label.is_empty() { counter!(name) } else { counter!(name, label => label_value) };
        Self { counter, value, last: 0 }
    }

    fn publish(&mut self, stats: &S) {
        let total = (self.value)(stats);
        self.counter.increment(total - self.last);
        self.last = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_described_and_named_by_the_rule() {
        let names = ENGINE_COUNTERS.iter().map(|row| row.0).chain(SHELL_COUNTERS.iter().map(|row| row.0));
        for name in names.chain([CONNECTIONS_CLOSED]) {
            assert!(DESCRIPTIONS.iter().any(|(described, _)| *described == name), "{name}");
            assert!(name.starts_with("holdfast_") && name.ends_with("_total"), "{name}");
        }
    }

    #[test]
    fn counters_grow_by_the_difference_and_shards_add_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let mut stats = Stats::default();
            let (mut first, mut second) = (ShardMetrics::new(0), ShardMetrics::new(1));
            for _ in 0..3 {
                stats.accepted += 5;
                first.publish(&stats, &ShellStats::default(), &ShardGauges::default());
            }
            second.publish(
                &stats,
                &ShellStats::default(),
                &ShardGauges { sockets: 4, ..ShardGauges::default() },
            );
            recorder.handle().render()
        });
        assert!(text.contains("holdfast_connections_accepted_total 30"), "{text}");
        assert!(text.contains("holdfast_connections_closed_total{reason=\"slow_consumer\"} 0"), "{text}");
        assert!(text.contains("holdfast_sockets{shard=\"1\"} 4"), "{text}");
    }
}
