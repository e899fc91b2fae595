//! A running bridge: its start and its end.

mod runtime;
mod turns;

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_store::Store;
use holdfast_wire::ids::BridgeId;
use holdfast_wire::store::{Reply, Request};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::BridgeConfig;
use crate::core::Core;
use crate::fanout::InterestTable;
use crate::link::{LinkStream, accept_links, converse};
use crate::push::{PushAnswer, PushError, PushRequest, answer_within};
use crate::reaper::keep_reaping;
use crate::sink::Sink;
use crate::store_loss::keep_noticing;
use crate::store_pulse::keep_asking;
use crate::store_requests::ask_until_answered;
use crate::uplink::topic_map::TopicMapError;
use runtime::Runtime;
use turns::Turns;

/// For whoever asks for what there is not.
const LOOK: &str = "GET /v1/openapi.json at push.listen says what there is";

/// Why a bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topic map is not one.
    #[error(transparent)]
    TopicMap(#[from] TopicMapError),
    /// The system gives us no threads.
    #[error("the bridge's runtime cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// A bridge before it runs.
#[derive(Debug)]
pub struct Bridge;

impl Bridge {
    /// Starts a bridge on threads of its own. Links that are accepted wait until the store has said which filters persistent sessions hold.
    /// Counts with the metrics recorder that is installed by then.
    pub fn start(
        config: BridgeConfig,
        store: Arc<dyn Store>,
        sink: Arc<dyn Sink>,
    ) -> Result<BridgeHandle, StartError> {
        let (links_open, links_closed) = mpsc::channel(1);
        let core = Arc::new(Core::new(config, store, sink, links_open)?);
        let turns = Arc::new(Turns::new(Arc::clone(&core.pace), Arc::clone(&core.sink)));
        let ended = Arc::clone(&turns);
        let runtime = Runtime::start(core.config.worker_threads, move || ended.end(Instant::now()))?;
        runtime.handle().spawn(turns.bound());
        runtime.handle().spawn(know_durable_filters(Arc::clone(&core)));
        runtime.handle().spawn(keep_reaping(Arc::clone(&core)));
        runtime.handle().spawn(keep_asking(Arc::clone(&core)));
        if core.config.notices_loss {
            runtime.handle().spawn(keep_noticing(Arc::clone(&core)));
        }
        Ok(BridgeHandle(Arc::new(Running {
            core,
            runtime,
            links_closed: Mutex::new(Some(links_closed)),
            servers: Mutex::default(),
            answer_last: watch::Sender::new(false),
        })))
    }
}

/// A running bridge; clones are the same one. When the last clone is dropped it stops where it stands: see
/// [`BridgeHandle::shutdown`] for an orderly end.
#[derive(Clone)]
pub struct BridgeHandle(Arc<Running>);

struct Running {
    core: Arc<Core>,
    runtime: Runtime,
    links_closed: Mutex<Option<mpsc::Receiver<()>>>,
    /// Those that answer HTTP; each ends with its last answer once `answer_last` is true.
    servers: Mutex<Vec<JoinHandle<()>>>,
    answer_last: watch::Sender<bool>,
}

impl std::fmt::Debug for BridgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BridgeHandle").field(&self.id()).finish()
    }
}

impl BridgeHandle {
    /// Which bridge this is; fresh at each start.
    pub fn id(&self) -> BridgeId {
        self.0.core.bridge
    }

    /// Takes a connected stream as a link to a shard. It is closed at once while the bridge drains.
    pub fn accept(&self, stream: impl Into<LinkStream>) {
        let core = Arc::clone(&self.0.core);
        let open = core.links_open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(open) = open else { return };
        let stream = stream.into();
        self.0.runtime.handle().spawn(async move {
            converse(core, stream, None).await;
            drop(open);
        });
    }

    /// Takes links from gateways that dial `listener`, until the bridge drains.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        let listener = on_runtime(&self.0.runtime, listener)?;
        self.0.runtime.handle().spawn(accept_links(Arc::clone(&self.0.core), listener));
        Ok(())
    }

    /// Serves HTTP on `listener` for as long as the bridge runs, also while it drains, up to the answers of the last requests. What no route of
    /// `router` takes is answered with a problem.
    pub fn serve(&self, listener: TcpListener, router: axum::Router) -> io::Result<()> {
        let listener = on_runtime(&self.0.runtime, listener)?;
        let router = holdfast_http::dress(router, LOOK);
        let mut answer_last = self.0.answer_last.subscribe();
        let last = async move {
            // Whoever drops the bridge without a drain stops everything.
            let _ = answer_last.wait_for(|last| *last).await;
        };
        let server = self.0.runtime.handle().spawn(holdfast_http::serve(listener, router, last));
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(())
    }

    /// Pushes, and waits for the outcome as long as the request says. May be called from any runtime.
    pub async fn push(&self, request: PushRequest) -> Result<PushAnswer, PushError> {
        answer_within(&self.0.core, self.0.runtime.handle(), request).await
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        self.0.runtime.handle()
    }

    /// Takes no further pushes by HTTP, and no further lines of batches; `/readyz` says so. What has begun goes on. The first step of a drain.
    pub fn refuse_pushes(&self) {
        self.0.core.pushes.refuse();
    }

    /// Drains: takes no further pushes, and waits for those that have begun for half of the time; then reads no more from shards, settles everything
    /// received, tells them, and closes the links. Pushes that no device has acknowledged by then are kept for their sessions, or refused; last of
    /// all those who asked are answered. `false` if that took longer than `within`; what is unsettled then the shards send to another bridge.
    /// Blocks the calling thread, which must not be one that polls tasks.
    pub fn shutdown(&self, within: Duration) -> bool {
        self.refuse_pushes();
        let links_closed = self.0.links_closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut links_closed) = links_closed else { return true };
        let servers = std::mem::take(&mut *self.0.servers.lock().unwrap_or_else(PoisonError::into_inner));
        let (core, answer_last) = (Arc::clone(&self.0.core), self.0.answer_last.clone());
        let (drained, wait) = std::sync::mpsc::channel();
        self.0.runtime.handle().spawn(async move {
            // While the links stand, as their reports come over them. Whether there was time for all shows below.
            let _ = timeout(within / 2, core.pushes.until_done()).await;
            core.links_open.lock().unwrap_or_else(PoisonError::into_inner).take();
            core.draining.send_replace(true);
            // Nobody ever sends: it ends when the last link has.
            while links_closed.recv().await.is_some() {}
            core.pushes.until_done().await;
            answer_last.send_replace(true);
            for server in servers {
                // They all stop at once, each within two seconds. One that panicked has no answers left.
                let _ = server.await;
            }
            let _ = drained.send(());
        });
        wait.recv_timeout(within).is_ok()
    }
}

fn on_runtime(runtime: &Runtime, listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    let _entered = runtime.handle().enter();
    tokio::net::TcpListener::from_std(listener)
}

/// Loads the filters of persistent sessions, lets links open, and compares with the store from time to time.
async fn know_durable_filters(core: Arc<Core>) {
    let mut known = Vec::new();
    loop {
        match ask_until_answered(&*core.store, Request::DurableFilters).await {
            Ok(Reply::Filters(filters)) => {
                // There may be one for each device; going through them all holds up the fan-out, so only for a reason.
                if filters != known || core.read_interests(InterestTable::is_unconfirmed) {
                    core.change_interests(|interests| interests.durable_filters(&filters));
                }
                known = filters;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "the filters of persistent sessions cannot be read");
                tokio::time::sleep(core.config.durable_filters_every).await;
                continue;
            }
        }
        core.ready.send_replace(true);
        tokio::time::sleep(core.config.durable_filters_every).await;
    }
}
