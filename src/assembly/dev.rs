//! Gateway and bridge in one process: what `holdfast dev` is.
//!
//! ```text
//!   store, log ──> bridge ──> a socket pair for each shard ──> node (its admin server carries the bridge's push routes)
//! ```
//!
//! It starts from left to right, so whatever is opened finds what it needs, and stops from right to left: the node says goodbye to
//! its devices while bridge, log and store still settle what they are owed. The link is the same as between two processes.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use holdfast_bridge::sink::{LogSink, Sink};
use holdfast_bridge::{Bridge, BridgeConfig, BridgeHandle, devices, push};
use holdfast_gateway::{
    Addresses, DrainTrigger, Drained, LinkTarget, Node, NodeConfig, NodeHandle, Reloader,
};
use holdfast_store::Store;
use holdfast_wire::ids::NodeId;

use super::StartError;
use super::parts::{make_data_dir, open_log, open_store};
use crate::config::Settings;
use crate::process::Process;

/// A running gateway with its bridge, log and store. Stopped in the order of its fields.
pub(crate) struct DevAssembly {
    node: NodeHandle,
    bridge: BridgeHandle,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    drain_within: Duration,
}

/// What the shards may take to open their links; it is a matter of milliseconds.
const LINKS_WITHIN: Duration = Duration::from_secs(5);

/// What the bridge may take to settle the rest once no device is left.
const BRIDGE_STOP_WITHIN: Duration = Duration::from_secs(5);

impl DevAssembly {
    /// Starts everything; once it returns, devices can connect.
    pub(crate) fn start(settings: Settings, process: &Process) -> Result<Self, StartError> {
        let Settings { data_dir, gateway, sink, bridge, store_url, store, .. } = settings;
        make_data_dir(&data_dir)?;
        let store = open_store(store_url.as_deref(), &data_dir, store)?;
        let log = open_log(&data_dir, sink)?;
        let sink: Arc<dyn Sink> = Arc::new(LogSink::new(Arc::clone(&log)));
        let bridge = BridgeConfig { notices_loss: false, ..bridge };
        let bridge = Bridge::start(bridge, Arc::clone(&store), Arc::clone(&sink))?;
        let mut gateway_ends = Vec::new();
        for _ in 0..gateway.shards {
            let (gateway_end, bridge_end) =
                UnixStream::pair().map_err(|error| StartError::System { what: "a socket pair", error })?;
            gateway_ends.push(gateway_end);
            bridge.accept(bridge_end);
        }
        let drain_within = gateway.drain.deadline;
        let node = NodeConfig {
            metrics: Some(process.recorder()),
            admin_extra: push::router(bridge.clone()).merge(devices::list_router(bridge.clone())),
            open_files_max: process.open_files_max(),
            sink_stores: Some(Box::new(move || !log.is_stalled())),
            ..NodeConfig::new(gateway)
        };
        let mut node = Node::start(node, Arc::clone(&store), vec![LinkTarget::Pair(gateway_ends)])?;
        if !node.await_links(LINKS_WITHIN) {
            tracing::warn!("a shard has no link to the bridge yet");
        }
        node.admit()?;
        Ok(Self { node, bridge, sink, store, drain_within })
    }

    /// How many connections the limit of open files leaves to devices.
    pub(crate) fn connections_max(&self) -> usize {
        self.node.connections_max()
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.node.addresses()
    }

    /// The node's name, new at each start.
    pub(crate) fn node(&self) -> NodeId {
        self.node.node()
    }

    /// What a signal or `POST /drain` sets; then call [`stop`](Self::stop).
    pub(crate) fn drain_trigger(&self) -> DrainTrigger {
        self.node.drain_trigger()
    }

    /// Gives it other limits.
    pub(crate) fn reloader(&self) -> Reloader {
        self.node.reloader()
    }

    /// Says goodbye to all devices, settles what they are owed, and ends every part.
    pub(crate) fn stop(mut self) -> Drained {
        let mut drained = self.node.drain(self.drain_within);
        drained.complete &= self.bridge.shutdown(BRIDGE_STOP_WITHIN);
        // The admin server goes last of the node: a scrape sees the drain to its end.
        self.node.join();
        drop(self.bridge);
        drop(self.sink);
        drop(self.store);
        drained
    }
}
