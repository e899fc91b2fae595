//! One device as an operator sees it: what `GET /v1/devices/{client_id}` answers, of a gateway and of a bridge alike.
//!
//! A gateway knows more of a connection that it holds ([`Connection`]); of all other sessions both say what the store knows.
//! With the feature `schema` the types describe themselves for the OpenAPI document.

use serde::{Deserialize, Serialize};

use crate::store::SessionInfo;

/// A client's session, and its connection if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Device {
    /// Whose session.
    pub client_id: String,
    /// Whether it has a connection.
    pub connected: bool,
    /// The node that holds the connection; null while the session rests.
    pub node: Option<String>,
    /// Which of its shards.
    pub shard: Option<u16>,
    /// The session's epoch: it grows with each change of owner.
    pub epoch: u64,
    /// Whether the session outlives its connection.
    pub persistent: bool,
    /// When the connection began, or when the session began to rest, in ms of Unix time; the store may know it to the second only.
    pub since_ms: u64,
    /// Until when the session rests, in ms of Unix time; null while it is connected, and for one that rests for ever.
    pub rests_until_ms: Option<u64>,
    /// Messages that wait. Of the gateway that holds the connection: those that were accepted for it and not sent. Else those for this client alone
    /// that it has not settled, as the store knows; what waits in the streams of its filters is not counted.
    pub pending: u64,
    /// What it subscribes to; null for a session that ends with its connection, unless asked where it is connected: that node alone knows.
    pub subscriptions: Option<Vec<Subscription>>,
    /// Its connection, if the gateway that holds it is asked.
    #[serde(flatten)]
    pub connection: Option<Connection>,
}

/// A filter that a session holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscription {
    /// As the client gave it.
    pub filter: String,
    /// The QoS that was granted.
    pub qos: u8,
}

/// What only the gateway knows that holds a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connection {
    /// `mqtt-3.1.1`, `mqtt-5` or `json`.
    pub protocol: String,
    /// Whether it came over WebSocket.
    pub websocket: bool,
    /// Keep alive in seconds; 0: none.
    pub keep_alive_s: u16,
    /// Session expiry in seconds; 0: the session ends with the connection, 4294967295: never.
    pub session_expiry_s: u32,
    /// Publications of the device that are not acknowledged yet.
    pub owed: u64,
    /// Messages sent to it that it has not acknowledged.
    pub inflight: u64,
    /// It does not read as fast as it is sent to.
    pub blocked: bool,
    /// It is not read, because the bridges take no more.
    pub paused: bool,
}

/// A device that is named in a body, since an address of HTTP has room for 65,534 bytes only, and a client id may need more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceRequest {
    /// As `GET /v1/devices/{client_id}`.
    Find(String),
    /// As `DELETE /v1/devices/{client_id}`.
    Disconnect(String),
}

impl Device {
    /// What the store knows.
    pub fn of_session(client_id: &str, session: &SessionInfo) -> Self {
        let subscriptions = session
            .subscriptions
            .iter()
            .map(|held| Subscription { filter: held.filter.to_string(), qos: held.qos.into() });
        Self {
            client_id: client_id.to_owned(),
            connected: session.owner.is_some(),
            node: session.owner.map(|owner| owner.node.to_string()),
            shard: session.owner.map(|owner| owner.shard.0),
            epoch: session.epoch.0,
            persistent: session.persistent,
            since_ms: session.since_ms,
            rests_until_ms: session.rests_until_ms.filter(|until| *until != u64::MAX),
            pending: session.pending,
            subscriptions: session.persistent.then(|| subscriptions.collect()),
            connection: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{Epoch, NodeId, Owner, ShardId};
    use crate::mqtt::QoS;
    use crate::session_record::SubscriptionRecord;

    fn session(persistent: bool) -> SessionInfo {
        let held = SubscriptionRecord {
            filter: "a/#".into(),
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        SessionInfo {
            owner: None,
            epoch: Epoch(7),
            persistent,
            subscriptions: if persistent { vec![held] } else { Vec::new() },
            since_ms: 1,
            rests_until_ms: Some(2),
            pending: 3,
        }
    }

    #[test]
    fn a_session_that_rests_says_since_when_and_until_when() {
        let expected = json!({
            "client_id": "d", "connected": false, "node": null, "shard": null, "epoch": 7, "persistent": true, "since_ms": 1,
            "rests_until_ms": 2, "pending": 3, "subscriptions": [{ "filter": "a/#", "qos": 2 }],
        });
        assert_eq!(serde_json::to_value(Device::of_session("d", &session(true))).unwrap(), expected);
        let for_ever = SessionInfo { rests_until_ms: Some(u64::MAX), ..session(true) };
        assert_eq!(
            Device::of_session("d", &for_ever).rests_until_ms,
            None,
            "a rest without an end has none to show"
        );
    }

    #[test]
    fn subscriptions_that_the_store_does_not_hold_are_not_said_to_be_none() {
        let owner = Owner { node: NodeId(0xff), shard: ShardId(1) };
        let connected = SessionInfo { owner: Some(owner), rests_until_ms: None, ..session(false) };
        let told = serde_json::to_value(Device::of_session("d", &connected)).unwrap();
        assert_eq!((&told["node"], &told["shard"]), (&json!("00000000000000ff"), &json!(1)));
        assert_eq!((&told["subscriptions"], &told["rests_until_ms"]), (&json!(null), &json!(null)));
        assert_eq!(told.as_object().unwrap().len(), 10, "nothing is said of the connection");
        let without = SessionInfo { subscriptions: Vec::new(), ..session(true) };
        assert_eq!(Device::of_session("d", &without).subscriptions, Some(Vec::new()));
    }

    #[test]
    fn a_body_names_a_device_and_what_to_do() {
        let read = |text| serde_json::from_str::<DeviceRequest>(text);
        assert_eq!(read(r#"{"find":"a/ü"}"#).unwrap(), DeviceRequest::Find("a/ü".into()));
        assert_eq!(read(r#"{"disconnect":"{}"}"#).unwrap(), DeviceRequest::Disconnect("{}".into()));
        assert!(read(r#"{"find":"a","disconnect":"a"}"#).is_err());
    }
}
