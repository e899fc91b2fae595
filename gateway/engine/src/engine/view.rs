//! What an operator may see of one device.

use holdfast_wire::ids::Epoch;
use holdfast_wire::mqtt::QoS;

use super::Engine;
use crate::input::ConnectionId;

/// One connected device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Its connection.
    pub connection: ConnectionId,
    /// `mqtt-3.1.1`, `mqtt-5` or `json`.
    pub protocol: &'static str,
    /// Over WebSocket.
    pub websocket: bool,
    /// The session's epoch.
    pub epoch: Epoch,
    /// When the session was established here, in ms of Unix time.
    pub connected_at_unix_ms: u64,
    /// Keep alive in seconds; 0: none.
    pub keep_alive_s: u16,
    /// Session expiry in seconds; 0: it ends with the connection.
    pub session_expiry_s: u32,
    /// All subscriptions.
    pub subscriptions: Vec<SubscriptionView>,
    /// Publications of the device that are not acknowledged yet.
    pub owed: usize,
    /// Messages sent to it and not acknowledged.
    pub inflight: usize,
    /// Messages accepted for it and not sent.
    pub pending: usize,
    /// It does not read as fast as it is sent to.
    pub blocked: bool,
    /// It is not read, because the bridges take no more.
    pub paused: bool,
}

/// One subscription of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    /// As the client gave it.
    pub filter: Box<str>,
    /// Granted.
    pub qos: QoS,
}

impl Engine {
    /// The device with this client id, if it is connected here.
    pub fn device(&self, client: &str) -> Option<DeviceView> {
        let id = self.find_client(client)?;
        let connection = self.connections.find(id)?;
        let session = connection.session()?;
        let (inflight, pending) = session.queued();
        Some(DeviceView {
            connection: id,
            protocol: session.protocol.name(),
            websocket: connection.websocket.is_some(),
            epoch: session.epoch,
            connected_at_unix_ms: session.connected_at_unix_ms,
            keep_alive_s: session.keep_alive_s,
            session_expiry_s: session.expiry_s,
            subscriptions: session
                .subscriptions
                .iter()
                .map(|subscription| SubscriptionView {
                    filter: subscription.filter.clone(),
                    qos: subscription.options.qos,
                })
                .collect(),
            owed: session.receiving.owed(),
            inflight,
            pending,
            blocked: connection.blocked,
            paused: connection.stalled || connection.waiting,
        })
    }
}
