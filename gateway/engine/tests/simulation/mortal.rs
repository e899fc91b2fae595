//! Clients that live once: they connect with a will, vanish, and are not seen again, unless within the will's delay and then without a will.
//!
//! So each owes the world one will, or none if it came back in time.

use holdfast_engine::ConnectionId;
use holdfast_wire::mqtt::{Connect, ConnectProperties, ProtocolVersion, QoS, Will, WillProperties};

/// So many at a time.
pub(crate) const MORTALS: usize = 3;

/// One connection of such a client.
pub(crate) struct Mortal {
    pub(crate) client: String,
    pub(crate) shard: usize,
    pub(crate) id: ConnectionId,
    /// CONNACK came.
    pub(crate) connected: bool,
    /// It has come back, and brings no will.
    pub(crate) is_second_life: bool,
}

/// What is known of its will.
#[derive(Debug, Default)]
pub(crate) struct LastWord {
    /// When its first connection was lost.
    pub(crate) died_ms: Option<u64>,
    pub(crate) delay_ms: u64,
    /// The gateway knows that the connection is lost, and is to publish the will: this shard.
    pub(crate) held_by: Option<usize>,
    /// It came back by this shard, which publishes the will if it falls due by that.
    pub(crate) opened_by: Option<usize>,
    /// It came back within the delay.
    pub(crate) is_cancelled: bool,
    /// The gateway that held it died, so it may be lost; or its client came back late ...
    pub(crate) may_be_lost: bool,
    /// ... or was published by it, and by the reaper as well, as the store had not heard of the end.
    pub(crate) may_be_doubled: bool,
    pub(crate) published: u32,
}

/// The greeting of its first life, or of its second.
pub(crate) fn greeting(client: &str, delay_s: u32, persistent: bool, is_second_life: bool) -> Vec<u8> {
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "wills",
        payload: client.as_bytes(),
        properties: WillProperties {
            delay_interval_s: Some(delay_s).filter(|delay_s| *delay_s > 0),
            ..WillProperties::default()
        },
    };
    let properties = ConnectProperties {
        session_expiry_interval_s: persistent.then_some(100),
        ..ConnectProperties::default()
    };
    let connect = Connect {
        version: ProtocolVersion::V5,
        clean_start: false,
        keep_alive_s: 1,
        client_id: client,
        will: (!is_second_life).then_some(will),
        username: None,
        password: None,
        properties,
    };
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    bytes
}
