//! What MQTT lets a server announce and bound.

use holdfast_wire::mqtt::QoS;
use serde::{Deserialize, Serialize};

use super::error::{ConfigError, within};

/// `[mqtt]`: each key is announced in CONNACK where MQTT 5 has a property for it (MQTT-3.2.2.3), and holds for
/// MQTT 3.1.1 clients as well. The defaults are the engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// QoS 1 and 2 publications that one client may have unacknowledged towards us. 1 to 65,535. Default 256.
    pub receive_maximum: u16,
    /// Topic aliases that one client may use towards us; 0 forbids them. Costs memory only where used. Default 16.
    pub topic_alias_maximum: u16,
    /// Topic aliases that we use towards one client, at most what it allows; 0 for none. Default 16.
    pub topic_alias_maximum_outbound: u16,
    /// Largest packet that we take, in bytes; a larger one closes the connection. 1,024 to 268,435,455. Default 1 MiB.
    pub maximum_packet_size: u32,
    /// Highest QoS that clients may publish with: 0, 1 or 2. Default 2.
    pub maximum_qos: u8,
    /// Whether publications may be retained. Default true.
    pub retain_available: bool,
    /// Whether filters may hold `+` and `#`. Default true.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may carry an identifier. Default true.
    pub subscription_identifier_available: bool,
    /// Whether `$share/{group}/{filter}` is understood. Default true.
    pub shared_subscription_available: bool,
    /// Longest keep alive in seconds; a client that asks for more, or for none, is told to use this one. 0 leaves the
    /// choice to the client. Default 0.
    pub server_keep_alive_s_max: u16,
    /// Longest session expiry in seconds that a client gets; 4,294,967,295 allows sessions that never expire.
    /// Default 2,592,000 (30 days).
    pub session_expiry_s_max: u32,
    /// Session expiry in seconds of an MQTT 3.1.1 client that connects with clean session 0: that version has no field for
    /// it. Default 86,400 (a day).
    pub session_expiry_311_s: u32,
}

impl Default for MqttConfig {
    fn default() -> Self {
        let engine = holdfast_engine::MqttConfig::default();
        Self {
            receive_maximum: engine.receive_maximum,
            topic_alias_maximum: engine.topic_alias_maximum,
            topic_alias_maximum_outbound: engine.topic_alias_maximum_outbound,
            maximum_packet_size: engine.maximum_packet_size,
            maximum_qos: engine.maximum_qos.into(),
            retain_available: engine.retain_available,
            wildcard_subscription_available: engine.wildcard_subscription_available,
            subscription_identifier_available: engine.subscription_identifier_available,
            shared_subscription_available: engine.shared_subscription_available,
            server_keep_alive_s_max: engine.server_keep_alive_s_max,
            session_expiry_s_max: engine.session_expiry_s_max,
            session_expiry_311_s: engine.session_expiry_311_s,
        }
    }
}

impl MqttConfig {
    pub(super) fn check(&self) -> Result<holdfast_engine::MqttConfig, ConfigError> {
        Ok(holdfast_engine::MqttConfig {
            receive_maximum: within("mqtt.receive_maximum", self.receive_maximum, 1..=u16::MAX)?,
            topic_alias_maximum: self.topic_alias_maximum,
            topic_alias_maximum_outbound: self.topic_alias_maximum_outbound,
            maximum_packet_size: within(
                "mqtt.maximum_packet_size",
                self.maximum_packet_size,
                1_024..=268_435_455,
            )?,
            maximum_qos: QoS::try_from(self.maximum_qos)
                .map_err(|value| ConfigError::new("mqtt.maximum_qos", value, "must be 0, 1 or 2"))?,
            retain_available: self.retain_available,
            wildcard_subscription_available: self.wildcard_subscription_available,
            subscription_identifier_available: self.subscription_identifier_available,
            shared_subscription_available: self.shared_subscription_available,
            server_keep_alive_s_max: self.server_keep_alive_s_max,
            session_expiry_s_max: self.session_expiry_s_max,
            session_expiry_311_s: self.session_expiry_311_s,
        })
    }
}
