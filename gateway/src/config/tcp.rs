//! How client sockets are set up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, within};

/// `[tcp]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up, in ms; 0 leaves it to
    /// the kernel (about 15 minutes). Default 30,000.
    pub user_timeout_ms: u32,
    /// Send buffer of the kernel per connection, in bytes; 0 lets the kernel tune it. Default 0.
    pub send_buffer_bytes: u32,
    /// Receive buffer of the kernel per connection, in bytes; 0 lets the kernel tune it. Default 0.
    pub receive_buffer_bytes: u32,
    /// Connections waiting to be accepted, per listener and shard; 0 takes as many as the kernel allows
    /// (`net.core.somaxconn`). Default 0.
    pub backlog: u32,
    /// Bytes per connection that wait in the gateway because the device does not read, beyond one packet of
    /// `mqtt.maximum_packet_size`. More than that closes the connection as a slow consumer. Default 1 MiB.
    pub unsent_bytes_max: u32,
    /// How long a shard that is woken often for little waits for more to come before it looks again, in us, at most
    /// 10,000; 0 never waits. Five times as long while nothing but QoS 0 comes, for which nobody waits; not at all while messages are
    /// delivered, nor when it is woken seldom. Saves CPU time at the price of as much latency of acknowledgements under load. Default 400.
    pub batch_us: u32,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            user_timeout_ms: 30_000,
            send_buffer_bytes: 0,
            receive_buffer_bytes: 0,
            backlog: 0,
            unsent_bytes_max: 1 << 20,
            batch_us: 400,
        }
    }
}

/// [`TcpConfig`] understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `TCP_USER_TIMEOUT`; none leaves the kernel's default.
    pub user_timeout: Option<Duration>,
    /// `SO_SNDBUF`; none lets the kernel tune it.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF`; none lets the kernel tune it.
    pub receive_buffer_bytes: Option<u32>,
    /// Length of the accept queue; none asks the kernel for its maximum.
    pub backlog: Option<u32>,
    /// Bound of a connection's send buffer in bytes.
    pub unsent_bytes_max: usize,
    /// How long a shard rests that is woken often for little, while frames wait for their acknowledgement.
    pub batch: Duration,
}

impl TcpConfig {
    pub(super) fn check(&self) -> Result<TcpOptions, ConfigError> {
        let optional = |key, value: u32, low: u32, high: u32| {
            if value == 0 { Ok(None) } else { within(key, value, low..=high).map(Some) }
        };
        Ok(TcpOptions {
            user_timeout: optional("tcp.user_timeout_ms", self.user_timeout_ms, 1_000, 3_600_000)?
                .map(|ms| Duration::from_millis(u64::from(ms))),
            send_buffer_bytes: optional("tcp.send_buffer_bytes", self.send_buffer_bytes, 4_096, 1 << 26)?,
            receive_buffer_bytes: optional(
                "tcp.receive_buffer_bytes",
                self.receive_buffer_bytes,
                4_096,
                1 << 26,
            )?,
            backlog: optional("tcp.backlog", self.backlog, 1, 1 << 20)?,
            unsent_bytes_max: within("tcp.unsent_bytes_max", self.unsent_bytes_max, 4_096..=1 << 30)?
                as usize,
            batch: Duration::from_micros(u64::from(within("tcp.batch_us", self.batch_us, 0..=10_000)?)),
        })
    }
}
