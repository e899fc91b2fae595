//! `holdfast bridge`: links of gateways on one side, the sink on the other, pushes between them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_bridge::admin::{self, Admin};
use holdfast_bridge::kafka::{KafkaPushes, keep_events};
use holdfast_bridge::sink::{LogSink, Sink};
use holdfast_bridge::{Bridge, BridgeHandle, devices, push};
use holdfast_gateway::DrainTrigger;
use holdfast_store::Store;
use holdfast_wire::ids::BridgeId;
use metrics_exporter_prometheus::PrometheusHandle;

use super::StartError;
use super::parts::{make_data_dir, open_kafka, open_log, open_store, remember_what_is_in_doubt};
use crate::config::{BridgeListen, Settings, SinkKind};

/// A running bridge. Stopped in the order of its fields.
pub(crate) struct BridgeAssembly {
    pushes: KafkaPushes,
    bridge: BridgeHandle,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    drain: DrainTrigger,
    addresses: BridgeListen,
    drain_within: Duration,
}

impl BridgeAssembly {
    /// Starts everything; once it returns, gateways can link.
    pub(crate) fn start(settings: Settings, metrics: PrometheusHandle) -> Result<Self, StartError> {
        let Settings {
            data_dir,
            gateway,
            sink_kind,
            sink,
            kafka,
            outage,
            bridge_listen,
            mut bridge,
            pushes,
            events,
            store_url,
            store,
            ..
        } = settings;
        remember_what_is_in_doubt(&mut bridge, &gateway);
        // Every address is taken before anything is served.
        let (link, link_address) = listen("bridge.listen", bridge_listen.link)?;
        let (admin, admin_address) = listen("bridge.admin", bridge_listen.admin)?;
        let push_listener = bridge_listen.push.map(|address| listen("push.listen", address)).transpose()?;

        make_data_dir(&data_dir)?;
        let store = open_store(store_url.as_deref(), &data_dir, store)?;
        let sink: Arc<dyn Sink> = match sink_kind {
            SinkKind::Log => Arc::new(LogSink::new(open_log(&data_dir, sink)?)),
            SinkKind::Kafka => open_kafka(&data_dir, kafka.clone(), &outage)?,
        };
        let bridge = Bridge::start(bridge, Arc::clone(&store), Arc::clone(&sink))?;
        let drain = DrainTrigger::default();
        let on_drain = drain.clone();
        let routes = Admin {
            metrics: Box::new(move || metrics.render()),
            drain: Box::new(move || on_drain.request()),
        };
        let routes = admin::router(bridge.clone(), routes);
        let push_routes = push::router(bridge.clone()).merge(devices::router(bridge.clone()));
        let refused = |error| StartError::System { what: "a listener", error };
        let push_address = match push_listener {
            Some((push, address)) => {
                bridge.serve(admin, routes).map_err(refused)?;
                bridge.serve(push, push_routes).map_err(refused)?;
                address
            }
            None => {
                bridge.serve(admin, routes.merge(push_routes)).map_err(refused)?;
                admin_address
            }
        };
        keep_events(&bridge, &kafka, &events)?;
        let pushes = KafkaPushes::start(&bridge, &kafka, &pushes)?;
        bridge.listen(link).map_err(refused)?;
        let addresses = BridgeListen { link: link_address, admin: admin_address, push: Some(push_address) };
        Ok(Self { pushes, bridge, sink, store, drain, addresses, drain_within: gateway.drain.deadline })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> BridgeListen {
        self.addresses
    }

    /// The bridge's name, new at each start.
    pub(crate) fn id(&self) -> BridgeId {
        self.bridge.id()
    }

    /// What a signal or `POST /drain` sets; then call [`stop`](Self::stop).
    pub(crate) fn drain_trigger(&self) -> DrainTrigger {
        self.drain.clone()
    }

    /// Settles what was received, closes the links, and ends every part. False if that took longer than the drain may: gateways send
    /// what is unsettled to another bridge.
    pub(crate) fn stop(self) -> bool {
        let begun = Instant::now();
        // While the links stand; frames have at least the other half of the time.
        if !self.pushes.stop(self.drain_within / 2) {
            tracing::warn!("pushes by Kafka that have no outcome yet are left to the bridge that reads on");
        }
        let settled = self.bridge.shutdown(self.drain_within.saturating_sub(begun.elapsed()));
        drop(self.bridge);
        drop(self.sink);
        drop(self.store);
        settled
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::Listen { key, address, error };
    let listener = TcpListener::bind(address).map_err(refused)?;
    let taken = listener.local_addr().map_err(refused)?;
    Ok((listener, taken))
}
