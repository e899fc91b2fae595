//! Liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Admin;
use crate::shard::{Letter, ShardReport};

/// A loop that has not turned for so long is stuck, and restarting the process is the cure.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// A load balancer wants its answer sooner.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// `GET /livez`: every shard answered a letter, which takes a turn of its loop.
pub(super) async fn live(State(admin): State<Arc<Admin>>) -> Response {
    let reports = admin.shards.ask(LIVE_WITHIN, Letter::Report).await;
    let stuck = stuck(&reports);
    answer(stuck.is_empty(), &json!({ "live": stuck.is_empty(), "stuck_shards": stuck }))
}

/// `GET /readyz`: the node can admit devices of every kind. A bridge or store that is away for all nodes at once shows in the body of each; the
/// load balancer's own minimum of healthy targets decides what happens then. A sink that stores nothing shows in the body alone: devices are held
/// back and kept, and would be no better off elsewhere.
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let reports = admin.shards.ask(READY_WITHIN, Letter::Report).await;
    let stuck = stuck(&reports);
    let draining = admin.drain.is_requested();
    let without_link: Vec<usize> = reports
        .iter()
        .enumerate()
        .filter(|(_, report)| report.is_some_and(|report| report.links_up == 0))
        .map(|(shard, _)| shard)
        .collect();
    let links = without_link.is_empty();
    let is_store_partly_away = admin.store.is_partly_away();
    // The lease may be with the servers that are away: what the others have is served all the same.
    let store_answers = is_store_partly_away || admin.lease.is_fresh();
    let store = store_answers && !admin.store.is_refusing();
    let sink = admin.sink_stores.as_ref().map(|stores| stores());
    let reason = if draining {
        "the node drains"
    } else if !stuck.is_empty() {
        "shards do not answer"
    } else if !admin.admits.load(Ordering::Acquire) {
        "devices are not admitted yet: every shard needs a link to a bridge first"
    } else if !links {
        "shards have no link to any bridge: devices are kept and not read"
    } else if !store_answers {
        "the session store does not answer"
    } else if !store {
        "the session store cannot store: sessions that outlive their connection are refused"
    } else {
        ""
    };
    let ready = reason.is_empty();
    let reason = match sink {
        _ if !ready => reason,
        _ if is_store_partly_away => {
            "ready, but a part of the session store does not answer: devices whose sessions are there are not admitted"
        }
        Some(false) => "ready, but the sink cannot store: nothing is acknowledged until it can",
        _ => reason,
    };
    let connections: u64 = reports.iter().flatten().map(|report| u64::from(report.connections)).sum();
    answer(
        ready,
        &json!({
            "ready": ready,
            "reason": reason,
            "node": admin.node.to_string(),
            "draining": draining,
            "links": links,
            "store": store,
            "sink": sink,
            "stuck_shards": stuck,
            "shards_without_link": without_link,
            "connections": connections,
        }),
    )
}

fn stuck(reports: &[Option<ShardReport>]) -> Vec<usize> {
    reports.iter().enumerate().filter(|(_, report)| report.is_none()).map(|(shard, _)| shard).collect()
}

fn answer(well: bool, body: &serde_json::Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
