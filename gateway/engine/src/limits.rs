//! Every bound of the engine, and the memory of an idle connection as a sum.
//!
//! What an idle connection costs in user space (64-bit, glibc's 16 bytes of overhead and alignment per allocation counted):
//!
//! | bytes | what | where |
//! | --- | --- | --- |
//! | 56 | its slot | `connection::Connection` |
//! | 12 | its place in the outbox | `outbox::Outbox` |
//! | 8..16 | its timer | `timers::Timers` |
//! | 208 | its session, boxed: 192 and the allocator's | `session::Session` |
//! | 16 + id + 16 | its client id, shared with index and store | `ClientId` |
//! | 6..11 | its entry in the index by client id | `engine::Engine` |
//!
//! A WebSocket adds 64 (its reader, boxed). The shell adds its socket, the store its owner entry. `tests` below hold the sizes.

use holdfast_wire::mqtt::QoS;

/// All that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EngineConfig {
    /// What MQTT lets a server announce.
    pub mqtt: MqttConfig,
    /// What JSON devices get unless they ask.
    pub json: JsonConfig,
    /// Bounds of our own.
    pub limits: Limits,
    /// Bridges are told of connections that begin and end (`ToBridge::Event`). Off, nobody pays for it.
    pub events: bool,
}

/// What MQTT lets a server announce, and how 3.1.1 is mapped on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// How many QoS 1 and 2 publications a client may have unacknowledged, 1 to 65,535.
    pub receive_maximum: u16,
    /// How many topic aliases a client may use towards us; 0 for none. Costs a topic name each on connections that use them.
    pub topic_alias_maximum: u16,
    /// How many topic aliases we use towards a client, at most what it allows; 0 for none.
    pub topic_alias_maximum_outbound: u16,
    /// Largest packet taken from a client, in bytes, at least 1,024.
    pub maximum_packet_size: u32,
    /// Highest QoS that clients may publish with.
    pub maximum_qos: QoS,
    /// Whether clients may publish retained messages.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifier_available: bool,
    /// Whether `$share` is understood.
    pub shared_subscription_available: bool,
    /// Longest keep alive granted, in seconds; a client that asks for more, or for none, is told this one. 0: no bound.
    pub server_keep_alive_s_max: u16,
    /// Longest session expiry granted, in seconds; `u32::MAX` lets a session never expire.
    pub session_expiry_s_max: u32,
    /// Session expiry of a 3.1.1 client that connects with clean session 0, in seconds.
    pub session_expiry_311_s: u32,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            receive_maximum: 32,
            topic_alias_maximum: 16,
            topic_alias_maximum_outbound: 16,
            maximum_packet_size: 1024 * 1024,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
            server_keep_alive_s_max: 0,
            session_expiry_s_max: 30 * 24 * 3_600,
            session_expiry_311_s: 24 * 3_600,
        }
    }
}

/// What JSON devices get unless they ask otherwise in the query of their socket. The bounds of [`MqttConfig`] hold for them too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonConfig {
    /// Session expiry in seconds; 0: the session ends with its connection.
    pub session_expiry_s: u32,
    /// Keep alive in seconds; 0: none.
    pub keep_alive_s: u16,
    /// Topic that every JSON device is subscribed to with QoS 1 when its session begins, `{client_id}` standing for its id; empty: none.
    pub push_topic: String,
}

impl Default for JsonConfig {
    fn default() -> Self {
        Self { session_expiry_s: 0, keep_alive_s: 60, push_topic: String::new() }
    }
}

/// Bounds of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of this shard. Full: the next one is closed as it comes.
    pub connections_max: u32,
    /// Connections that have not finished their CONNECT. Full: the next one is closed as it comes.
    pub half_open_max: u32,
    /// How long a connection may take to finish its CONNECT, in ms; and then, how long it waits for the store.
    pub connect_timeout_ms: u64,
    /// Longest client id, in bytes. A longer one is refused as not valid.
    pub client_id_bytes_max: u16,
    /// Subscriptions of one session. Full: quota exceeded in SUBACK.
    pub subscriptions_max: u32,
    /// Messages sent to one client and not acknowledged, at most the client's receive maximum. Full: further ones are pending.
    pub inflight_max: u16,
    /// Messages with QoS > 0 accepted for one connected client and not yet sent. Full: a message that stands in a stream is read from there later; any other is refused to its sender, or dropped and counted.
    pub pending_messages_max: u32,
    /// The same in bytes of payload and topic.
    pub pending_bytes_max: u32,
    /// Bytes of messages that one connection is given in one turn, one packet more at the most. What is left goes on in the next turn, or
    /// once the kernel has taken everything.
    pub turn_bytes_max: usize,
    /// Bytes that one slice of a fan-out may put into the outbox before sockets are served again.
    pub fan_out_slice_bytes: usize,
    /// Deliveries in one slice of a fan-out.
    pub fan_out_slice_deliveries: usize,
    /// Bytes of filters, takeovers, handovers, reports and reads of retained messages that wait for a bridge which takes nothing, beside what is on its way into the
    /// kernel. Full: its link is given up and dialled again, and what matters still is said anew. From an eighth of it on, events of connections
    /// are dropped.
    pub link_bytes_max: usize,
    /// How often the progress of persistent sessions is saved while they are connected, in ms.
    pub save_interval_ms: u64,
    /// Sessions written back in a second to a store that has lost its data.
    pub restores_per_s: u32,
    /// How long a drain waits for a connection's owed acknowledgements before it closes it all the same, in ms.
    pub drain_acks_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            half_open_max: 20_000,
            connect_timeout_ms: 10_000,
            client_id_bytes_max: 1_024,
            subscriptions_max: 1_000,
            inflight_max: 256,
            pending_messages_max: 1_000,
            pending_bytes_max: 1024 * 1024,
            turn_bytes_max: 1024 * 1024,
            fan_out_slice_bytes: 1024 * 1024,
            fan_out_slice_deliveries: 2_000,
            link_bytes_max: 8 << 20,
            save_interval_ms: 1_000,
            restores_per_s: 2_000,
            drain_acks_ms_max: 5_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::connection::Connection;
    use crate::session::Session;

    #[test]
    fn an_idle_connection_costs_what_the_table_says() {
        assert!(size_of::<Connection>() <= 56, "a slot has {} bytes", size_of::<Connection>());
        assert!(size_of::<Session>() <= 192, "a session has {} bytes", size_of::<Session>());
    }
}
