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
    /// Bytes of unsettled uplinks that a shard may have outstanding. With as many bytes again for what is on its way to a
    /// shard, it bounds the memory of a link.
    pub window_bytes: u32,
    /// Which frames go where; the first rule that matches decides, and what none matches goes to the sink's default.
    pub topic_map: Vec<TopicRule>,
    /// What is remembered to recognise frames that are sent again.
    pub dedupe: DedupeConfig,
    /// Pushes.
    pub push: PushConfig,
    /// Deliveries with QoS > 0 to shared groups whose report is awaited, at most; beyond it the fan-out waits.
    pub group_deliveries_max: u32,
    /// A shard that takes nothing of what it is told for so long is given up: its link is closed, and those who wait for it go on.
    pub stuck_after: Duration,
    /// How often the filters of persistent sessions are compared with the store, so that those nobody holds any more go.
    pub durable_filters_every: Duration,
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
        }
    }
}

/// Bounds of the dedupe rings: at most `clients_max` times (about 150 bytes, the client id, and 16 bytes for each entry in use).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeConfig {
    /// Frames remembered for each client: the receive maximum, or a frame could be acknowledged, forgotten, and sent again. More only
    /// while more are unsettled.
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
    /// Outcomes remembered by their id, at most.
    pub outcomes_max: usize,
    /// How long an outcome is remembered.
    pub outcome_age_max: Duration,
    /// Longest time that a request may wait for its outcome; also the default.
    pub wait_max: Duration,
    /// Largest request, in bytes.
    pub body_bytes_max: usize,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            topic: "devices/{client_id}/push".into(),
            in_flight_max: 10_000,
            outcomes_max: 100_000,
            outcome_age_max: Duration::from_mins(10),
            wait_max: Duration::from_secs(10),
            body_bytes_max: 2 << 20,
        }
    }
}
