//! One device: where it is and how it does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_engine::DeviceView;
use holdfast_http::{AskedDevice, Kind, NamedDevice, Problem};
use holdfast_store::contract::{Reply, Request, SessionInfo, StoreError};
use holdfast_wire::ids::ClientId;
use holdfast_wire::presence::{Connection, Device, DeviceRequest, Subscription};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Admin;
use crate::shard::Letter;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// `GET /v1/devices/{client_id}`: asks the shards; for a device that is not connected here, the store.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    NamedDevice(client): NamedDevice,
) -> Result<Json<Device>, Problem> {
    find(&admin, &client).await
}

/// `DELETE /v1/devices/{client_id}`: closes its connection with "administrative action"; its session stays.
pub(super) async fn disconnect(
    State(admin): State<Arc<Admin>>,
    NamedDevice(client): NamedDevice,
) -> Result<StatusCode, Problem> {
    end_connection(&admin, &client).await
}

/// `POST /v1/devices`: one of the above, for a client id that is too long for an address.
pub(super) async fn by_body(
    State(admin): State<Arc<Admin>>,
    AskedDevice(asked): AskedDevice,
) -> Result<Response, Problem> {
    match asked {
        DeviceRequest::Find(client) => Ok(find(&admin, &client).await?.into_response()),
        DeviceRequest::Disconnect(client) => Ok(end_connection(&admin, &client).await?.into_response()),
    }
}

async fn find(admin: &Admin, client: &str) -> Result<Json<Device>, Problem> {
    let find = |answer| Letter::FindDevice { client: client.to_owned(), answer };
    let answers = admin.shards.ask(ANSWER_WITHIN, find).await;
    let here = answers.into_iter().enumerate().find_map(|(shard, answer)| Some((shard, answer??)));
    if let Some((shard, view)) = here {
        return Ok(Json(connected_here(admin, client, shard, &view)));
    }
    match lookup(admin, client).await? {
        Some(session) => Ok(Json(Device::of_session(client, &session))),
        None => Err(Problem::new(Kind::NotFound, "no such session")),
    }
}

async fn end_connection(admin: &Admin, client: &str) -> Result<StatusCode, Problem> {
    let order = |answer| Letter::DisconnectDevice { client: client.to_owned(), answer };
    let answers = admin.shards.ask(ANSWER_WITHIN, order).await;
    if answers.contains(&Some(true)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    // That it was connected here is all that the store may still say of a connection that ends just now.
    let elsewhere = lookup(admin, client).await?.and_then(|session| session.owner);
    let why = match elsewhere.filter(|owner| owner.node != admin.node) {
        Some(owner) => format!("the device is connected to node {}: ask that node, or a bridge", owner.node),
        None => "the device is not connected".to_owned(),
    };
    Err(Problem::new(Kind::NotFound, why))
}

/// No session has an id that no client can have.
async fn lookup(admin: &Admin, client: &str) -> Result<Option<SessionInfo>, Problem> {
    if client.len() > ClientId::BYTES_MAX {
        return Ok(None);
    }
    let (answer, answered) = oneshot::channel();
    let request = Request::Lookup { client: ClientId::new(client) };
    // Whoever asked may have left.
    admin.store.submit(request, Box::new(move |result| drop(answer.send(result))));
    match timeout(ANSWER_WITHIN, answered).await {
        Ok(Ok(Ok(Reply::Session(session)))) => Ok(session),
        Ok(Ok(Ok(_))) => {
            let error = StoreError::Unreadable("it answered another question".to_owned());
            Err(Problem::from(&error))
        }
        Ok(Ok(Err(error))) => Err(Problem::from(&error)),
        _ => Err(Problem::new(Kind::StoreAway, "the session store did not answer in time")),
    }
}

fn connected_here(admin: &Admin, client: &str, shard: usize, view: &DeviceView) -> Device {
    let subscriptions = view
        .subscriptions
        .iter()
        .map(|held| Subscription { filter: held.filter.to_string(), qos: held.qos.into() });
    Device {
        client_id: client.to_owned(),
        connected: true,
        node: Some(admin.node.to_string()),
        shard: u16::try_from(shard).ok(),
        epoch: view.epoch.0,
        persistent: view.session_expiry_s > 0,
        since_ms: view.connected_at_unix_ms,
        rests_until_ms: None,
        pending: view.pending as u64,
        subscriptions: Some(subscriptions.collect()),
        connection: Some(Connection {
            protocol: view.protocol.to_owned(),
            websocket: view.websocket,
            keep_alive_s: view.keep_alive_s,
            session_expiry_s: view.session_expiry_s,
            owed: view.owed as u64,
            inflight: view.inflight as u64,
            blocked: view.blocked,
            paused: view.paused,
        }),
    }
}
