//! One device: where it is and how it does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_engine::DeviceView;
use holdfast_store::contract::{Reply, Request, SessionInfo, StoreError};
use holdfast_wire::ids::ClientId;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Admin;
use super::problem::Problem;
use crate::shard::Letter;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// `GET /v1/devices/{client_id}`: asks the shards; for a device that is not connected here, the store.
pub(super) async fn show(State(admin): State<Arc<Admin>>, client: ClientPath) -> Response {
    let Ok(Path(client)) = client else { return not_a_client_id() };
    if client.len() > ClientId::BYTES_MAX {
        return no_such_session();
    }
    let find = |answer| Letter::FindDevice { client: client.clone(), answer };
    let answers = admin.shards.ask(ANSWER_WITHIN, find).await;
    let here = answers.into_iter().enumerate().find_map(|(shard, answer)| Some((shard, answer??)));
    if let Some((shard, view)) = here {
        return Json(connected_here(&admin, &client, shard, &view)).into_response();
    }
    match lookup(&admin, &client).await {
        Ok(Some(session)) => Json(elsewhere(&client, &session)).into_response(),
        Ok(None) => no_such_session(),
        Err(error) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// `DELETE /v1/devices/{client_id}`: closes its connection with "administrative action"; its session stays.
pub(super) async fn disconnect(State(admin): State<Arc<Admin>>, client: ClientPath) -> Response {
    let Ok(Path(client)) = client else { return not_a_client_id() };
    let order = |answer| Letter::DisconnectDevice { client: client.clone(), answer };
    let answers = admin.shards.ask(ANSWER_WITHIN, order).await;
    if answers.contains(&Some(true)) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Problem::new(StatusCode::NOT_FOUND, "the device is not connected to this node").into_response()
    }
}

/// The last part of the address.
type ClientPath = Result<Path<String>, PathRejection>;

fn not_a_client_id() -> Response {
    Problem::new(StatusCode::BAD_REQUEST, "a client id is UTF-8 text (MQTT-1.5.4-1)").into_response()
}

fn no_such_session() -> Response {
    Problem::new(StatusCode::NOT_FOUND, "no such session").into_response()
}

async fn lookup(admin: &Admin, client: &str) -> Result<Option<SessionInfo>, StoreError> {
    let (answer, answered) = oneshot::channel();
    let request = Request::Lookup { client: ClientId::new(client) };
    // Whoever asked may have left.
    admin.store.submit(request, Box::new(move |result| drop(answer.send(result))));
    match timeout(ANSWER_WITHIN, answered).await {
        Ok(Ok(Ok(Reply::Session(session)))) => Ok(session),
        Ok(Ok(Err(error))) => Err(error),
        _ => Err(StoreError::Unavailable("no answer in time".to_owned())),
    }
}

fn connected_here(admin: &Admin, client: &str, shard: usize, view: &DeviceView) -> Value {
    json!({
        "client_id": client,
        "connected": true,
        "node": admin.node.to_string(),
        "shard": shard,
        "epoch": view.epoch.0,
        "protocol": view.protocol,
        "websocket": view.websocket,
        "connected_since_ms": view.connected_at_unix_ms,
        "keep_alive_s": view.keep_alive_s,
        "session_expiry_s": view.session_expiry_s,
        "subscriptions": view.subscriptions.iter().map(|held| json!({
            "filter": &*held.filter,
            "qos": u8::from(held.qos),
        })).collect::<Vec<_>>(),
        "owed": view.owed,
        "inflight": view.inflight,
        "pending": view.pending,
        "blocked": view.blocked,
        "paused": view.paused,
    })
}

/// A session at rest, or on another node.
fn elsewhere(client: &str, session: &SessionInfo) -> Value {
    json!({
        "client_id": client,
        "connected": session.owner.is_some(),
        "node": session.owner.map(|owner| owner.node.to_string()),
        "shard": session.owner.map(|owner| owner.shard.0),
        "epoch": session.epoch.0,
        "persistent": session.persistent,
        // What ends with its connection only the node that holds it knows.
        "subscriptions": session.persistent.then(|| session.subscriptions.iter().map(|held| json!({
            "filter": &*held.filter,
            "qos": u8::from(held.qos),
        })).collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::Epoch;

    use super::*;

    #[test]
    fn subscriptions_that_the_store_does_not_hold_are_not_said_to_be_none() {
        let session = |persistent| SessionInfo {
            owner: None,
            epoch: Epoch(1),
            persistent,
            subscriptions: Vec::new(),
            since_ms: 0,
            rests_until_ms: None,
            pending: 0,
        };
        assert_eq!(elsewhere("d", &session(false))["subscriptions"], Value::Null);
        assert_eq!(elsewhere("d", &session(true))["subscriptions"], json!([]));
    }
}
