//! Keys of the session store.

use holdfast_gateway::config::ConfigError;
use holdfast_store::{Bounds, Options, StreamBounds};
use serde::{Deserialize, Serialize};

use super::values::within;

/// `[store]`: what the embedded store keeps at most. The defaults are the store's.
#[expect(clippy::struct_field_names, reason = "every one is a bound, and its key says so")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreKeys {
    /// Sessions, connected and resting. Full: a new one is answered "server unavailable". Default 4,000,000.
    pub(crate) sessions_max: u32,
    /// Bytes of all queued and retained messages. Full: the stream that holds most gives way, oldest first. Default 1 GiB.
    pub(crate) message_bytes_max: u64,
    /// Messages of one stream (a topic filter of persistent sessions, or one device's pushes). Full: the oldest goes.
    /// Default 100,000.
    pub(crate) stream_messages_max: u32,
    /// The same in bytes. Default 64 MiB.
    pub(crate) stream_bytes_max: u64,
    /// How long a message stays in a stream, in seconds. Default 604,800 (7 days).
    pub(crate) stream_age_s_max: u64,
}

impl Default for StoreKeys {
    fn default() -> Self {
        let Bounds { stream, message_bytes_max, sessions_max } = Bounds::default();
        Self {
            sessions_max,
            message_bytes_max,
            stream_messages_max: stream.messages_max,
            stream_bytes_max: stream.bytes_max,
            stream_age_s_max: stream.age_ms_max / 1_000,
        }
    }
}

impl StoreKeys {
    pub(super) fn check(&self) -> Result<Options, ConfigError> {
        let stream = StreamBounds {
            messages_max: within("store.stream_messages_max", self.stream_messages_max, 1..=1 << 30)?,
            bytes_max: within("store.stream_bytes_max", self.stream_bytes_max, 1_024..=1 << 40)?,
            age_ms_max: within("store.stream_age_s_max", self.stream_age_s_max, 1..=100 * 366 * 86_400)?
                * 1_000,
        };
        let bounds = Bounds {
            stream,
            message_bytes_max: within("store.message_bytes_max", self.message_bytes_max, 1_024..=1 << 44)?,
            sessions_max: within("store.sessions_max", self.sessions_max, 1..=1 << 30)?,
        };
        Ok(Options { bounds, ..Options::default() })
    }
}
