//! Gateway and bridge in one process: what `holdfast dev` is.
//!
//! ```text
//!   store, log ──> bridge ──> a socket pair for each shard ──> node (its admin server carries the bridge's push routes)
//! ```
//!
//! It starts from left to right, so whatever is opened finds what it needs, and stops from right to left: the node says goodbye to
//! its devices while bridge, log and store still settle what they are owed. The link is the same as between two processes.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_bridge::log::{Log, LogError};
use holdfast_bridge::sink::LogSink;
use holdfast_bridge::{Bridge, BridgeHandle, push};
use holdfast_gateway::{Addresses, DrainTrigger, Drained, LinkTarget, Node, NodeConfig, NodeHandle};
use holdfast_store::{EmbeddedStore, OpenError, Store};
use holdfast_wire::ids::NodeId;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::Settings;

/// Why it did not start; each displays as one line. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The data directory cannot be made.
    #[error("data_dir = {}: {error}; it must be a directory that this process may write", directory.display())]
    DataDirectory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The store in it cannot be opened.
    #[error("data_dir = {}: {error}", directory.display())]
    Store {
        /// Which data directory.
        directory: PathBuf,
        /// Why, and how to mend it.
        error: OpenError,
    },
    /// The log in it cannot be opened.
    #[error("data_dir = {}: {error}", directory.display())]
    Log {
        /// Which data directory.
        directory: PathBuf,
        /// Why, and how to mend it.
        error: LogError,
    },
    /// The bridge does not start.
    #[error(transparent)]
    Bridge(#[from] holdfast_bridge::StartError),
    /// The gateway does not start: most often an address that is taken.
    #[error(transparent)]
    Node(#[from] holdfast_gateway::StartError),
    /// The system refused the sockets between the two.
    #[error("the system refused a socket pair: {0}")]
    Pair(io::Error),
}

/// A running gateway with its bridge, log and store. Stopped in the order of its fields.
pub(crate) struct Assembly {
    node: NodeHandle,
    bridge: BridgeHandle,
    log: Arc<Log>,
    store: Arc<dyn Store>,
    drain_within: Duration,
}

/// What the shards may take to open their links; it is a matter of milliseconds.
const LINKS_WITHIN: Duration = Duration::from_secs(5);

/// What the bridge may take to settle the rest once no device is left.
const BRIDGE_STOP_WITHIN: Duration = Duration::from_secs(5);

impl Assembly {
    /// Starts everything; once it returns, devices can connect.
    pub(crate) fn start(settings: Settings, metrics: PrometheusHandle) -> Result<Self, StartError> {
        let Settings { data_dir, gateway, sink, mut bridge, store, .. } = settings;
        // A device may send again everything it was not acknowledged (promise P4).
        let in_doubt_max = gateway.engine.mqtt.receive_maximum;
        bridge.dedupe.entries_per_client_max = bridge.dedupe.entries_per_client_max.max(in_doubt_max);
        let directory = || data_dir.clone();
        fs::create_dir_all(&data_dir)
            .map_err(|error| StartError::DataDirectory { directory: directory(), error })?;
        let store = EmbeddedStore::open(&data_dir.join("store"), store)
            .map_err(|error| StartError::Store { directory: directory(), error })?;
        let store: Arc<dyn Store> = Arc::new(store);
        let (log, recovered) = Log::open(&data_dir.join("log"), sink)
            .map_err(|error| StartError::Log { directory: directory(), error })?;
        let log = Arc::new(log);

        let bridge = Bridge::start(bridge, Arc::clone(&store), Arc::new(LogSink::new(Arc::clone(&log))))?;
        let mut gateway_ends = Vec::new();
        for _ in 0..gateway.shards {
            let (gateway_end, bridge_end) = UnixStream::pair().map_err(StartError::Pair)?;
            gateway_ends.push(gateway_end);
            bridge.accept(bridge_end);
        }
        let drain_within = gateway.drain.deadline;
        let node = NodeConfig {
            settings: gateway,
            metrics: Some(metrics),
            admin_extra: push::router(bridge.clone()),
        };
        let mut node = Node::start(node, Arc::clone(&store), vec![LinkTarget::Pair(gateway_ends)])?;
        if !node.await_links(LINKS_WITHIN) {
            tracing::warn!("a shard has no link to the bridge yet");
        }
        node.admit()?;
        // Only now: whoever's start is refused reads one line, the reason.
        tracing::info!(
            data_dir = %data_dir.display(),
            records = recovered.records,
            segments = recovered.segments,
            "the log is open"
        );
        Ok(Self { node, bridge, log, store, drain_within })
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

    /// Says goodbye to all devices, settles what they are owed, and ends every part.
    pub(crate) fn stop(mut self) -> Drained {
        let mut drained = self.node.drain(self.drain_within);
        drained.complete &= self.bridge.shutdown(BRIDGE_STOP_WITHIN);
        // The admin server goes last of the node: a scrape sees the drain to its end.
        self.node.join();
        drop(self.bridge);
        drop(self.log);
        drop(self.store);
        drained
    }
}
