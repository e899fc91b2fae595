//! `holdfast gateway`: a node whose bridges are processes of their own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_gateway::config::BridgeAddress;
use holdfast_gateway::{
    Addresses, DrainTrigger, Drained, LinkTarget, Node, NodeConfig, NodeHandle, Reloader,
};
use holdfast_store::Store;
use holdfast_wire::ids::NodeId;

use super::StartError;
use super::parts::open_store;
use crate::config::Settings;
use crate::process::Process;

/// A running gateway. Stopped in the order of its fields.
pub(crate) struct GatewayAssembly {
    node: NodeHandle,
    store: Arc<dyn Store>,
    drain_within: Duration,
}

/// How often it is seen whether every shard has a link, before devices are admitted.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A wait for the first bridge that is longer than this is worth a line.
const SAY_AFTER: Duration = Duration::from_secs(2);

impl GatewayAssembly {
    /// Starts it; devices are admitted after [`admit`](Self::admit).
    pub(crate) fn start(settings: Settings, process: &Process) -> Result<Self, StartError> {
        let Settings { data_dir, gateway, store_url, store, .. } = settings;
        let store = open_store(store_url.as_deref(), &data_dir, store)?;
        let target = |bridge: &BridgeAddress| match bridge {
            BridgeAddress::Fixed(address) => LinkTarget::Address(*address),
            BridgeAddress::Name(name) => LinkTarget::Name(name.clone()),
        };
        let links = gateway.bridges.iter().map(target).collect();
        let drain_within = gateway.drain.deadline;
        let node = NodeConfig {
            metrics: Some(process.recorder()),
            open_files_max: process.open_files_max(),
            ..NodeConfig::new(gateway)
        };
        let node = Node::start(node, Arc::clone(&store), links)?;
        Ok(Self { node, store, drain_within })
    }

    /// Waits until every shard has a link to a bridge, and admits devices from then on. Before that nothing they send would get anywhere, and
    /// another node may serve them. False if the process is told to drain meanwhile.
    pub(crate) fn admit(&mut self) -> Result<bool, StartError> {
        let begun = Instant::now();
        let mut said = false;
        while !self.node.has_links() {
            if self.node.drain_trigger().is_requested() {
                return Ok(false);
            }
            if !said && begun.elapsed() > SAY_AFTER {
                said = true;
                tracing::warn!(
                    "no bridge can be reached yet (link.bridges); devices are admitted once one can"
                );
            }
            thread::sleep(LOOK_EVERY);
        }
        self.node.admit()?;
        Ok(true)
    }

    /// Whether every shard has a link to a bridge.
    pub(crate) fn has_links(&self) -> bool {
        self.node.has_links()
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
        let drained = self.node.drain(self.drain_within);
        self.node.join();
        drop(self.store);
        drained
    }
}
