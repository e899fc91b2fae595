//! Who is there: sessions as the store knows them, by name or page by page, and an end to a connection wherever it is.
//!
//! | route | answers |
//! | --- | --- |
//! | `GET /v1/devices?limit=&page=&node=&connected=` | `list`: a page of sessions, in no particular order |
//! | `GET /v1/devices/{client_id}` | one session |
//! | `DELETE /v1/devices/{client_id}` | closes its connection with "administrative action"; the session stays |
//! | `POST /v1/devices` | the last two, for a client id that is too long for an address |
//!
//! A gateway answers all but the first for itself, with more about connections of its own.

mod list;
mod operations;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_http::{AskedDevice, Kind, NamedDevice, Problem};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::ToGateway;
use holdfast_wire::presence::{Device, DeviceRequest};
use holdfast_wire::store::{Reply, Request, SessionInfo, StoreError};

use crate::bridge::BridgeHandle;
use crate::core::Core;
use crate::store_requests::ask;
pub(crate) use operations::operations;

/// All routes.
pub fn router(bridge: BridgeHandle) -> Router {
    list_router(bridge.clone()).merge(
        Router::new()
            .route("/v1/devices", post(by_body).layer(AskedDevice::bound()))
            .route("/v1/devices/{client_id}", get(show).delete(disconnect))
            .with_state(bridge),
    )
}

/// The list alone, for a process whose gateway answers for single devices.
pub fn list_router(bridge: BridgeHandle) -> Router {
    Router::new().route("/v1/devices", get(list::show)).with_state(bridge)
}

async fn show(
    State(bridge): State<BridgeHandle>,
    NamedDevice(client): NamedDevice,
) -> Result<Response, Problem> {
    find(bridge.core(), &client).await
}

async fn disconnect(
    State(bridge): State<BridgeHandle>,
    NamedDevice(client): NamedDevice,
) -> Result<Response, Problem> {
    end_connection(bridge.core(), &client).await
}

async fn by_body(
    State(bridge): State<BridgeHandle>,
    AskedDevice(asked): AskedDevice,
) -> Result<Response, Problem> {
    match asked {
        DeviceRequest::Find(client) => find(bridge.core(), &client).await,
        DeviceRequest::Disconnect(client) => end_connection(bridge.core(), &client).await,
    }
}

async fn find(core: &Core, client: &str) -> Result<Response, Problem> {
    match lookup(core, client).await? {
        Some(session) => Ok(Json(Device::of_session(client, &session)).into_response()),
        None => Err(Problem::new(Kind::NotFound, "no such session")),
    }
}

async fn end_connection(core: &Core, client: &str) -> Result<Response, Problem> {
    let Some(SessionInfo { owner: Some(owner), .. }) = lookup(core, client).await? else {
        return Err(Problem::new(Kind::NotFound, "the device is not connected"));
    };
    let told = match core.peers.of_shard(owner) {
        Some(peer) => peer.send_record(&ToGateway::Disconnect(client)).await.is_ok(),
        None => false,
    };
    if told {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        let detail = format!("node {} has no link to this bridge now; try again", owner.node);
        Err(Problem::new(Kind::Busy, detail))
    }
}

/// No session has an id that no client can have.
async fn lookup(core: &Core, client: &str) -> Result<Option<SessionInfo>, Problem> {
    if client.len() > ClientId::BYTES_MAX {
        return Ok(None);
    }
    match ask(&*core.store, Request::Lookup { client: ClientId::new(client) }).await {
        Ok(Reply::Session(session)) => Ok(session),
        Ok(_) => Err(foreign_answer()),
        Err(error) => Err(Problem::from(&error)),
    }
}

fn foreign_answer() -> Problem {
    let error = StoreError::Unreadable("it answered another question".to_owned());
    Problem::from(&error)
}
