//! What an operator can set about a bridge, with its defaults and bounds.

use std::time::Duration;

use crate::uplink::topic_map::{SinkName, TopicRule};

/// Settings of a bridge. The sink has its own.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Threads of the bridge's runtime. One carries more frames than a disk or a broker takes.
    pub worker_threads: usize,
    /// The secret that links present; empty: none is asked for.
    pub link_secret: Vec<u8>,
    /// Bytes of unsettled uplinks that a shard may have outstanding. Twice as many are read, for what passes it, and as many again may be on their way
    /// to the shard: that bounds the memory of a link.
    pub window_bytes: u32,
    /// Which frames go where; the first rule that matches decides, and what none matches goes to the sink's default.
    pub topic_map: Vec<TopicRule>,
    /// What is remembered to recognise frames that are sent again.
    pub dedupe: DedupeConfig,
    /// Pushes.
    pub push: PushConfig,
    /// Deliveries with QoS > 0 to shared groups whose report is awaited, at most; beyond it the one that has been awaited longest is no more. Its message
    /// goes to the group's stream where persistent sessions hold it; otherwise it stays with the member that it was sent to.
    pub group_deliveries_max: u32,
    /// A shard that takes nothing of what it is told for so long is given up: its link is closed, and those who wait for it go on.
    pub stuck_after: Duration,
    /// How often the filters of persistent sessions are compared with the store, so that those nobody holds any more go.
    pub durable_filters_every: Duration,
    /// Whether it sees by itself that the store has lost its data. Not beside a gateway in the same process: a store tells that once to each process,
    /// and the gateway is who writes sessions back.
    pub notices_loss: bool,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            worker_threads: 1,
            link_secret: Vec::new(),
            window_bytes: 8 << 20,
            topic_map: vec![TopicRule { filter: "#".into(), sink: SinkName::Default }],
            dedupe: DedupeConfig::default(),
            push: PushConfig::default(),
            group_deliveries_max: 10_000,
            stuck_after: Duration::from_secs(10),
            durable_filters_every: Duration::from_mins(1),
            notices_loss: true,
        }
    }
}

/// Bounds of the dedupe rings: at most `clients_max` times (about 150 bytes, the client id, and 16 bytes for each entry in use).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeConfig {
    /// Frames remembered for each client, at least: as many as its gateway says that it may send again, if those are more. More still only while more
    /// are unsettled.
    pub entries_per_client_max: u16,
    /// Clients remembered; beyond it the one that has been quiet for long is forgotten.
    pub clients_max: u32,
}

impl Default for DedupeConfig {
    fn default() -> Self {
        Self { entries_per_client_max: 32, clients_max: 262_144 }
    }
}

/// Bounds of pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// Topic of a push that names only its device; `{client_id}` stands for that.
    pub topic: String,
    /// Pushes whose outcome is awaited, at most; beyond it a push is answered with 503 and Retry-After.
    pub in_flight_max: usize,
    /// Pushes of one batch, or to members of one group, whose outcome is awaited, at most; beyond it no more lines or members are read. All batches
    /// and groups together have as many as `in_flight_max`.
    pub stream_in_flight_max: usize,
    /// How long a device that stays connected may take to acknowledge a push of a batch or to a group; then that has expired, so that one device
    /// does not hold up the others for ever.
    pub acknowledged_within: Duration,
    /// Outcomes remembered by their id, at most.
    pub outcomes_max: usize,
    /// How long an outcome is remembered.
    pub outcome_age_max: Duration,
    /// Longest time that a request may wait for its outcome; also the default.
    pub wait_max: Duration,
    /// Largest request, in bytes, by HTTP or as a record.
    pub body_bytes_max: usize,
    /// Largest encoded message that a stream of the session store may hold: as the store's own bounds say. One that is larger will never be kept,
    /// so it is refused instead of being tried again.
    pub stream_bytes_max: u64,
    /// Whether outcomes of pushes that came by HTTP are written down as well, as [`PushTopicConfig::receipts`] says. Without waiting: the answer
    /// is the sender's proof.
    pub receipts: bool,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            topic: "devices/{client_id}/push".into(),
            in_flight_max: 10_000,
            stream_in_flight_max: 1_000,
            acknowledged_within: Duration::from_mins(1),
            outcomes_max: 100_000,
            outcome_age_max: Duration::from_mins(10),
            wait_max: Duration::from_secs(10),
            body_bytes_max: 2 << 20,
            stream_bytes_max: holdfast_store::StreamBounds::default().bytes_max,
            receipts: false,
        }
    }
}

/// Pushes that come as records of a Kafka topic, and the book of outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTopicConfig {
    /// Their topic; empty: none is read.
    pub topic: String,
    /// The consumer group that all bridges share.
    pub group: String,
    /// Topic of the receipts; empty: none are written.
    pub receipts: String,
    /// Records of one partition whose outcome is awaited, at most; beyond it the partition is paused.
    pub in_flight_max: u32,
    /// The same in bytes.
    pub in_flight_bytes_max: u32,
    /// How long a connected device may take to acknowledge; then the push has expired, so that one device does not hold up its
    /// partition for ever.
    pub acknowledged_within: Duration,
}

impl Default for PushTopicConfig {
    fn default() -> Self {
        Self {
            topic: String::new(),
            group: "holdfast".into(),
            receipts: "holdfast.receipts".into(),
            in_flight_max: 1_000,
            in_flight_bytes_max: 8 << 20,
            acknowledged_within: Duration::from_mins(1),
        }
    }
}

/// The book of connections that begin and end, as far as gateways tell of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// Its Kafka topic; empty: none is kept.
    pub topic: String,
    /// Events that wait for Kafka, at most; beyond it they are dropped and counted.
    pub queue_records_max: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { topic: String::new(), queue_records_max: 10_000 }
    }
}
