//! The admin routes of a bridge that is a process of its own: metrics, health, drain.
//!
//! | route | answers |
//! | --- | --- |
//! | `GET /metrics` | Prometheus text |
//! | `GET /livez` | 200 while the bridge's runtime runs |
//! | `GET /readyz` | 200 while it takes links and pushes; an outage of the sink does not change that, since frames are taken all the same: `sink` tells |
//! | `POST /drain` | asks the process to drain and end |

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::bridge::BridgeHandle;
use crate::sink::SinkHealth;
use crate::store_pulse::Answers;

/// What the process gives the admin routes.
pub struct Admin {
    /// Renders the metrics as Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Begins the drain of the process.
    pub drain: Box<dyn Fn() + Send + Sync>,
}

struct Context {
    bridge: BridgeHandle,
    admin: Admin,
}

/// All routes.
pub fn router(bridge: BridgeHandle, admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(async || Json(json!({ "live": true }))))
        .route("/readyz", get(show_readiness))
        .route("/drain", post(request_drain))
        .with_state(Arc::new(Context { bridge, admin }))
}

async fn show_metrics(State(context): State<Arc<Context>>) -> Response {
    let text = (context.admin.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn show_readiness(State(context): State<Arc<Context>>) -> Response {
    let core = context.bridge.core();
    let draining = core.pushes.are_refused();
    let knows_filters = *core.ready.borrow();
    let answers = core.store_pulse.answers(&*core.store);
    let store = knows_filters && answers != Answers::Nothing && !core.store.is_refusing();
    let reason = if draining {
        "the bridge drains"
    } else if answers == Answers::Nothing {
        "the session store does not answer: pushes are refused, and frames that it is to keep for sessions wait"
    } else if !knows_filters {
        "the session store has not said yet which filters persistent sessions hold"
    } else if !store {
        "the session store cannot store: pushes to devices that are away are refused"
    } else {
        ""
    };
    let ready = reason.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let SinkHealth { kind, stores, spool } = core.sink.health();
    let reason = match &spool {
        _ if !ready => reason,
        _ if answers == Answers::Some => {
            "ready, but a part of the session store does not answer: pushes to devices whose sessions are there are refused, and frames that it is to keep for them wait"
        }
        _ if stores => reason,
        Some(spool) if spool.stores && spool.state != "held" => {
            "ready, but Kafka stores nothing: frames are kept in the spool until it does"
        }
        _ => "ready, but nothing can be stored: devices are held back until it can",
    };
    let body = json!({
        "ready": ready,
        "reason": reason,
        "bridge": context.bridge.id().to_string(),
        "draining": draining,
        "store": store,
        "sink": {
            "kind": kind,
            "stores": stores,
            "spool": spool.map(|spool| json!({
                "state": spool.state,
                "records": spool.records,
                "bytes": spool.bytes,
                "stores": spool.stores,
            })),
        },
        "trouble": core.sink.trouble(),
        "links": core.peers.count(),
    });
    (status, Json(body)).into_response()
}

async fn request_drain(State(context): State<Arc<Context>>) -> StatusCode {
    (context.admin.drain)();
    StatusCode::ACCEPTED
}
