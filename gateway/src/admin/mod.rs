//! The admin server: metrics, health, device lookup, drain.
//!
//! The one part of the gateway on tokio; it asks the shards by mailbox and never touches what is theirs. Whoever looks for pushes, groups or the list of
//! devices on a gateway of its own is sent to a bridge. What is wrong with a request is judged and told by `holdfast_http`, as at a bridge. Routes:
//!
//! | route | answers |
//! | --- | --- |
//! | `GET /metrics` | Prometheus text |
//! | `GET /livez` | 200 while every shard's loop turns |
//! | `GET /readyz` | 200 while the node can admit devices and serve them |
//! | `GET /v1/devices/{client_id}` | where the device is and how it does |
//! | `DELETE /v1/devices/{client_id}` | disconnects it |
//! | `POST /v1/devices` | one of these two, for a client id that is too long for an address |
//! | `POST /drain` | asks the process to drain and end |
//! | `GET /v1/problems/{problem}` | what a problem means |
//!
//! Start with [`router`].

mod devices;
mod health;
mod shards;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use holdfast_http::{AskedDevice, Kind, Problem};
use holdfast_store::contract::Store;
use holdfast_wire::ids::NodeId;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::drain::DrainTrigger;
use crate::lease::Lease;
pub(crate) use shards::Shards;

/// What the handlers know.
pub(crate) struct Admin {
    /// This node.
    pub(crate) node: NodeId,
    /// Its shards.
    pub(crate) shards: Shards,
    /// For sessions that are not connected here.
    pub(crate) store: Arc<dyn Store>,
    /// Whether the store answers.
    pub(crate) lease: Arc<Lease>,
    /// Whether devices' listeners have been opened.
    pub(crate) admits: Arc<AtomicBool>,
    /// Whether a drain was asked for.
    pub(crate) drain: DrainTrigger,
    /// What `/metrics` shows; none if the process installed no recorder.
    pub(crate) metrics: Option<PrometheusHandle>,
    /// Whether the sink stores, where it is in this process.
    pub(crate) sink_stores: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// All routes, with `extra` beside them. Panics if `extra` has one of them too: that is a mistake of the assembly.
pub(crate) fn router(admin: Arc<Admin>, extra: Router) -> Router {
    let look = if extra.has_routes() {
        "GET /v1/openapi.json says what there is"
    } else {
        "this is a gateway, and a bridge lists devices, takes pushes and groups, and says what it takes: GET /v1/openapi.json at its push.listen"
    };
    let routes = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/v1/devices", post(devices::by_body).layer(AskedDevice::bound()))
        .route("/v1/devices/{client_id}", get(devices::show).delete(devices::disconnect))
        .route("/drain", post(request_drain))
        .with_state(admin)
        .merge(extra);
    holdfast_http::dress(routes, look)
}

/// Serves until `stop` comes, and for two seconds more at most.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    holdfast_http::serve(listener, router, stop).await;
    Ok(())
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    match &admin.metrics {
        Some(metrics) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
                .into_response()
        }
        None => Problem::new(Kind::NotFound, "this process records no metrics").into_response(),
    }
}

async fn request_drain(State(admin): State<Arc<Admin>>) -> StatusCode {
    admin.drain.request();
    StatusCode::ACCEPTED
}
