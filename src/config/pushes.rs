//! Keys of what a bridge of its own reads from and writes to Kafka beside frames: pushes, receipts, events.

use std::time::Duration;

use holdfast_bridge::config::{EventsConfig, PushConfig, PushTopicConfig};
use holdfast_gateway::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::values::{check_topic_name, refuse, within};

/// `[pushes]`: the defaults are the bridge's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PushesKeys {
    /// Kafka topic whose records are pushes. Default empty: none is read.
    pub(crate) topic: String,
    /// Consumer group that all bridges share.
    pub(crate) group: String,
    /// Kafka topic of the receipts. Empty: none are written.
    pub(crate) receipts_topic: String,
    /// Records of one partition whose outcome is awaited. Full: the partition is paused. 1 to 1,000,000.
    pub(crate) in_flight_max: u32,
    /// The same in bytes. 64 KiB to 1 GiB.
    pub(crate) in_flight_bytes_max: u32,
    /// How long a connected device may take to acknowledge, in seconds; then the push has expired. 1 to 86,400.
    pub(crate) acknowledged_within_s: u32,
}

impl Default for PushesKeys {
    fn default() -> Self {
        let pushes = PushTopicConfig::default();
        Self {
            topic: pushes.topic,
            group: pushes.group,
            receipts_topic: pushes.receipts,
            in_flight_max: pushes.in_flight_max,
            in_flight_bytes_max: pushes.in_flight_bytes_max,
            acknowledged_within_s: pushes.acknowledged_within.as_secs() as u32,
        }
    }
}

impl PushesKeys {
    pub(super) fn check(&self) -> Result<PushTopicConfig, ConfigError> {
        if self.group.is_empty() {
            return Err(refuse("pushes.group", "\"\"", "must name a consumer group"));
        }
        check_topic_name("pushes.topic", &self.topic)?;
        check_topic_name("pushes.receipts_topic", &self.receipts_topic)?;
        if !self.topic.is_empty() && self.topic == self.receipts_topic {
            let allowed = "must not be pushes.topic: receipts would be read as pushes";
            return Err(refuse("pushes.receipts_topic", &self.receipts_topic, allowed));
        }
        Ok(PushTopicConfig {
            topic: self.topic.clone(),
            group: self.group.clone(),
            receipts: self.receipts_topic.clone(),
            in_flight_max: within("pushes.in_flight_max", self.in_flight_max, 1..=1_000_000)?,
            in_flight_bytes_max: within(
                "pushes.in_flight_bytes_max",
                self.in_flight_bytes_max,
                64 << 10..=1 << 30,
            )?,
            acknowledged_within: Duration::from_secs(
                within("pushes.acknowledged_within_s", self.acknowledged_within_s, 1..=86_400)?.into(),
            ),
        })
    }
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EventsKeys {
    /// Kafka topic of connections that begin and end. Default empty: none is kept.
    pub(crate) topic: String,
    /// Events that wait for Kafka. Full: further ones are dropped and counted. 1 to 10,000,000. Default 10,000.
    pub(crate) queue_records_max: u32,
}

impl Default for EventsKeys {
    fn default() -> Self {
        let EventsConfig { topic, queue_records_max } = EventsConfig::default();
        Self { topic, queue_records_max }
    }
}

impl EventsKeys {
    pub(super) fn check(&self) -> Result<EventsConfig, ConfigError> {
        check_topic_name("events.topic", &self.topic)?;
        Ok(EventsConfig {
            topic: self.topic.clone(),
            queue_records_max: within("events.queue_records_max", self.queue_records_max, 1..=10_000_000)?,
        })
    }
}

/// A key that makes a bridge read from Kafka or write to it beside frames, if there is one.
pub(super) fn needs_brokers(
    pushes: &PushTopicConfig,
    push: &PushConfig,
    events: &EventsConfig,
) -> Option<&'static str> {
    [
        ("pushes.topic", !pushes.topic.is_empty()),
        ("push.receipts", push.receipts && !pushes.receipts.is_empty()),
        ("events.topic", !events.topic.is_empty()),
    ]
    .into_iter()
    .find_map(|(key, needs)| needs.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_bridge_s_own_and_read_nothing() {
        assert_eq!(PushesKeys::default().check().unwrap(), PushTopicConfig::default());
        assert_eq!(EventsKeys::default().check().unwrap(), EventsConfig::default());
        assert_eq!(PushTopicConfig::default().topic, "");
    }

    #[test]
    fn receipts_do_not_go_where_pushes_come_from() {
        let keys = PushesKeys { topic: "holdfast.receipts".into(), ..PushesKeys::default() };
        let line = keys.check().unwrap_err().to_string();
        assert!(
            line.starts_with("pushes.receipts_topic = holdfast.receipts: must not be pushes.topic"),
            "{line}"
        );
    }
}
