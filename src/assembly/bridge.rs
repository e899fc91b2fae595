//! `holdfast bridge`: links of gateways on one side, the sink on the other, pushes between them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_bridge::admin::{self, Admin};
use holdfast_bridge::log::Log;
use holdfast_bridge::sink::{LogSink, Sink};
use holdfast_bridge::spool::Spool;
use holdfast_bridge::{Bridge, BridgeHandle, ReservedAddress, devices, push};
use holdfast_gateway::DrainTrigger;
use holdfast_store::Store;
use holdfast_wire::ids::BridgeId;
use metrics_exporter_prometheus::PrometheusHandle;

use super::StartError;
use super::late_pushes::{Beside, LatePushes};
use super::parts::{KafkaParts, make_data_dir, open_kafka, open_log, open_spool, open_store};
use crate::config::{BridgeListen, Settings, SinkKind};

/// A running bridge. Stopped in the order of its fields.
pub(crate) struct BridgeAssembly {
    pushes: LatePushes,
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
            bridge,
            pushes,
            events,
            store_url,
            store,
            ..
        } = settings;
        // Every address is taken before anything is served.
        let link = Reserved::take("bridge.listen", bridge_listen.link)?;
        let admin = Reserved::take("bridge.admin", bridge_listen.admin)?;
        let push = bridge_listen.push.map(|address| Reserved::take("push.listen", address)).transpose()?;
        let addresses = BridgeListen {
            link: link.address,
            admin: admin.address,
            push: Some(push.as_ref().map_or(admin.address, |push| push.address)),
        };

        make_data_dir(&data_dir)?;
        // What this machine has to give comes before any server is asked, and what only reads before what makes topics.
        let own = match sink_kind {
            SinkKind::Log => Own::Log(open_log(&data_dir, sink)?),
            SinkKind::Kafka => Own::Spool(Box::new(open_spool(&data_dir, &outage)?)),
        };
        let store = open_store(store_url.as_deref(), &data_dir, store)?;
        let (sink, is_awaited): (Arc<dyn Sink>, bool) = match own {
            Own::Log(log) => (Arc::new(LogSink::new(log)), false),
            Own::Spool(spool) => {
                let KafkaParts { sink, is_awaited } = open_kafka(&data_dir, kafka.clone(), *spool)?;
                (sink, is_awaited)
            }
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
        match push {
            Some(push) => {
                bridge.serve(admin.serve()?, routes).map_err(refused)?;
                bridge.serve(push.serve()?, push_routes).map_err(refused)?;
            }
            None => bridge.serve(admin.serve()?, routes.merge(push_routes)).map_err(refused)?,
        }
        let beside = Beside { kafka, pushes, events };
        let pushes = if is_awaited {
            LatePushes::start_later(&bridge, beside)?
        } else {
            LatePushes::start(&bridge, &beside)?
        };
        bridge.listen(link.serve()?).map_err(refused)?;
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
        self.bridge.refuse_pushes();
        // While the links stand. Pushes by HTTP have half of what is left, so frames have at least a quarter of the time.
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

/// What a sink has on this machine.
enum Own {
    Log(Arc<Log>),
    Spool(Box<Spool>),
}

/// An address with the key that names it.
struct Reserved {
    key: &'static str,
    address: SocketAddr,
    place: ReservedAddress,
}

impl Reserved {
    fn take(key: &'static str, address: SocketAddr) -> Result<Self, StartError> {
        let place =
            ReservedAddress::take(address).map_err(|error| StartError::Listen { key, address, error })?;
        Ok(Self { key, address: place.address(), place })
    }

    fn serve(self) -> Result<TcpListener, StartError> {
        let Self { key, address, place } = self;
        place.serve().map_err(|error| StartError::Listen { key, address, error })
    }
}
