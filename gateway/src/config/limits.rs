//! Bounds of our own, beyond what MQTT announces.

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, within};

/// `[limits]`: the defaults are the engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections of one shard. Full: the next one is closed as it comes. 1 to 16,777,216. Default 1,000,000; the
    /// process also needs as many file descriptors.
    pub connections_max: u32,
    /// Connections of one shard that have not finished their CONNECT. Full: the next one is closed as it comes.
    /// Default 20,000.
    pub half_open_max: u32,
    /// How long a connection may take to finish its CONNECT, in ms. 100 to 3,600,000. Default 10,000.
    pub connect_timeout_ms: u64,
    /// Longest client identifier in bytes; a longer one is refused as not valid. 23 to 65,535. Default 1,024.
    pub client_id_bytes_max: u16,
    /// Subscriptions of one session. Full: "quota exceeded" in SUBACK. Default 1,000.
    pub subscriptions_max: u32,
    /// Messages sent to one client and not acknowledged, at most the client's receive maximum. Full: further ones are
    /// pending. 1 to 65,535. Default 256.
    pub inflight_max: u16,
    /// Messages with QoS > 0 accepted for one connected client and not yet sent. Full: what stands in a stream of the store is
    /// read from there later, anything else is refused to its sender or dropped and counted. Default 1,000.
    pub pending_messages_max: u32,
    /// The same in bytes of payload and topic. Default 1 MiB.
    pub pending_bytes_max: u32,
    /// How often the progress of persistent sessions is saved while they are connected, in ms. What a crash loses is sent again.
    /// 10 to 60,000. Default 1,000.
    pub save_interval_ms: u64,
    /// Sessions of connected devices that a shard writes back in a second to a session store that has lost its data. 20 to 1,000,000. Default 2,000.
    pub restores_per_s: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let engine = holdfast_engine::Limits::default();
        Self {
            connections_max: engine.connections_max,
            half_open_max: engine.half_open_max,
            connect_timeout_ms: engine.connect_timeout_ms,
            client_id_bytes_max: engine.client_id_bytes_max,
            subscriptions_max: engine.subscriptions_max,
            inflight_max: engine.inflight_max,
            pending_messages_max: engine.pending_messages_max,
            pending_bytes_max: engine.pending_bytes_max,
            save_interval_ms: engine.save_interval_ms,
            restores_per_s: engine.restores_per_s,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<holdfast_engine::Limits, ConfigError> {
        Ok(holdfast_engine::Limits {
            connections_max: within("limits.connections_max", self.connections_max, 1..=1 << 24)?,
            half_open_max: within("limits.half_open_max", self.half_open_max, 1..=1 << 24)?,
            connect_timeout_ms: within(
                "limits.connect_timeout_ms",
                self.connect_timeout_ms,
                100..=3_600_000,
            )?,
            // A server has to take identifiers of up to 23 bytes (MQTT-3.1.3-5).
            client_id_bytes_max: within(
                "limits.client_id_bytes_max",
                self.client_id_bytes_max,
                23..=u16::MAX,
            )?,
            subscriptions_max: within("limits.subscriptions_max", self.subscriptions_max, 1..=1 << 24)?,
            inflight_max: within("limits.inflight_max", self.inflight_max, 1..=u16::MAX)?,
            pending_messages_max: within(
                "limits.pending_messages_max",
                self.pending_messages_max,
                1..=1 << 24,
            )?,
            pending_bytes_max: within("limits.pending_bytes_max", self.pending_bytes_max, 1_024..=1 << 30)?,
            save_interval_ms: within("limits.save_interval_ms", self.save_interval_ms, 10..=60_000)?,
            restores_per_s: within("limits.restores_per_s", self.restores_per_s, 20..=1_000_000)?,
            ..holdfast_engine::Limits::default()
        })
    }
}
