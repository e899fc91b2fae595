//! What other threads may say to a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_engine::{DeviceView, EngineConfig, LeaseWord};
use tokio::sync::oneshot;

use crate::io::listener::Listener;
use crate::store_client::StoreReply;

/// One letter. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The store answered.
    StoreReply(StoreReply),
    /// The store has said something of the node's right to own sessions.
    Lease(LeaseWord),
    /// Is this client connected here?
    FindDevice {
        /// Its client id.
        client: String,
        /// What is known of it, if it is.
        answer: oneshot::Sender<Option<DeviceView>>,
    },
    /// An operator wants this client disconnected.
    DisconnectDevice {
        /// Its client id.
        client: String,
        /// Whether it was connected here.
        answer: oneshot::Sender<bool>,
    },
    /// How does the shard do? An answer also shows that its loop turns.
    Report(oneshot::Sender<ShardReport>),
    /// These are all bridges that are not within the process.
    Bridges(Arc<[SocketAddr]>),
    /// Take connections from now on.
    Admit(Vec<Listener>),
    /// Go on with another configuration; nobody is disconnected.
    Reload(Box<EngineConfig>),
    /// Stop accepting, say goodbye to everyone, and end the thread once nothing is owed any more.
    Drain {
        /// How long all of it may take.
        within: Duration,
    },
    /// End the thread now.
    Stop,
}

/// How a shard does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardReport {
    /// Connections it holds.
    pub(crate) connections: u32,
    /// Links to bridges that stand.
    pub(crate) links_up: usize,
}

impl From<StoreReply> for Letter {
    fn from(reply: StoreReply) -> Self {
        Self::StoreReply(reply)
    }
}
