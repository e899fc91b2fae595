//! What devices without an MQTT library get.

use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// `[json]`: what a JSON device gets unless it asks otherwise in the query of its socket. The bounds of `[mqtt]` and
/// `[limits]` hold for it too. The defaults are the engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonConfig {
    /// Session expiry in seconds; 0: the session ends with its connection. Default 0.
    pub session_expiry_s: u32,
    /// Keep alive in seconds; 0: none. Default 60.
    pub keep_alive_s: u16,
    /// Topic that every JSON device is subscribed to with QoS 1 when its session begins; `{client_id}` stands for its
    /// id. Default empty: none.
    pub push_topic: String,
}

impl Default for JsonConfig {
    fn default() -> Self {
        let engine = holdfast_engine::JsonConfig::default();
        Self {
            session_expiry_s: engine.session_expiry_s,
            keep_alive_s: engine.keep_alive_s,
            push_topic: engine.push_topic,
        }
    }
}

/// Far below what MQTT can name, so that a client id fits in as well.
const PUSH_TOPIC_BYTES_MAX: usize = 1_024;

impl JsonConfig {
    pub(super) fn check(&self) -> Result<holdfast_engine::JsonConfig, ConfigError> {
        let topic = &self.push_topic;
        if topic.contains(['+', '#', '\0']) || topic.len() > PUSH_TOPIC_BYTES_MAX {
            let allowed = "must be a topic name of at most 1024 bytes without wildcards, or empty";
            return Err(ConfigError::new("json.push_topic", topic, allowed));
        }
        if topic.replace("{client_id}", "").contains(['{', '}']) {
            let allowed = "may hold {client_id}, and no other word in braces";
            return Err(ConfigError::new("json.push_topic", topic, allowed));
        }
        Ok(holdfast_engine::JsonConfig {
            session_expiry_s: self.session_expiry_s,
            keep_alive_s: self.keep_alive_s,
            push_topic: topic.clone(),
        })
    }
}
