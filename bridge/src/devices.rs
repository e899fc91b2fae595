//! Who is there: sessions as the store knows them, by name or page by page, and an end to a connection wherever it is.
//!
//! | route | answers |
//! | --- | --- |
//! | `GET /v1/devices?limit=&page=&node=&connected=` | a page of sessions, in no particular order |
//! | `GET /v1/devices/{client_id}` | one session |
//! | `DELETE /v1/devices/{client_id}` | closes its connection with "administrative action"; the session stays |
//!
//! A gateway answers the last two for itself, with more about connections of its own.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use holdfast_wire::ids::{ClientId, NodeId, Owner};
use holdfast_wire::link::ToGateway;
use holdfast_wire::store::{Page, Reply, Request, SessionEntry, SessionInfo, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bridge::BridgeHandle;
use crate::core::Core;
use crate::push::problem::{Kind, Problem};
use crate::store_requests::ask;

/// Sessions on a page, unless the query says otherwise.
const LIMIT: u32 = 100;
/// Most sessions on a page.
const LIMIT_MAX: u32 = 1_000;

/// All routes.
pub fn router(bridge: BridgeHandle) -> Router {
    list_router(bridge.clone()).merge(
        Router::new().route("/v1/devices/{client_id}", get(show).delete(disconnect)).with_state(bridge),
    )
}

/// The list alone, for a process whose gateway answers for single devices.
pub fn list_router(bridge: BridgeHandle) -> Router {
    Router::new().route("/v1/devices", get(list)).with_state(bridge)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    page: Option<String>,
    node: Option<String>,
    connected: Option<bool>,
}

async fn list(
    State(bridge): State<BridgeHandle>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let request = match query.map_err(|rejected| rejected.body_text()).and_then(|Query(query)| read(query)) {
        Ok(request) => request,
        Err(why) => return Problem::new(Kind::Invalid, why).into_response(),
    };
    let ListRequest { owner, page, sessions_max, connected } = request;
    match ask(&*bridge.core().store, Request::Sessions { owner, page, sessions_max }).await {
        Ok(Reply::Sessions { sessions, next }) => {
            let wanted = |session: &&SessionEntry| connected.is_none_or(|is| is == session.owner.is_some());
            let devices: Vec<_> = sessions.iter().filter(wanted).map(entry).collect();
            let next = next.map(|next| BASE64_URL_SAFE_NO_PAD.encode(next));
            Json(json!({ "devices": devices, "next": next })).into_response()
        }
        Ok(_) => Problem::new(Kind::StoreUnreadable, "the store answered another question").into_response(),
        // Only a page can be what it does not understand.
        Err(StoreError::Unreadable(why)) => Problem::new(Kind::Invalid, why).into_response(),
        Err(error) => Problem::from(&error).into_response(),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ListRequest {
    owner: Option<NodeId>,
    page: Option<Page>,
    sessions_max: u32,
    connected: Option<bool>,
}

fn read(query: ListQuery) -> Result<ListRequest, String> {
    let sessions_max = query.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&sessions_max) {
        return Err(format!("limit = {sessions_max}: a page has 1 to {LIMIT_MAX} sessions"));
    }
    let page = match query.page {
        Some(page) => Some(
            BASE64_URL_SAFE_NO_PAD
                .decode(&page)
                .map_err(|_| "page: give it as the former answer's \"next\"".to_owned())?
                .into_boxed_slice(),
        ),
        None => None,
    };
    let owner = match query.node {
        // The sign that a number may have is none of a name.
        Some(node) => match u64::from_str_radix(&node, 16) {
            Ok(id) if node.len() == 16 && !node.starts_with('+') => Some(NodeId(id)),
            _ => return Err(format!("node = {node:?}: a node is named by 16 hexadecimal digits")),
        },
        None => None,
    };
    Ok(ListRequest { owner, page, sessions_max, connected: query.connected })
}

/// The last part of the address.
type ClientPath = Result<Path<String>, PathRejection>;

async fn show(State(bridge): State<BridgeHandle>, client: ClientPath) -> Response {
    let client = match client_id(client) {
        Ok(client) => client,
        Err((kind, detail)) => return Problem::new(kind, detail).into_response(),
    };
    match lookup(bridge.core(), &client).await {
        Ok(Some(session)) => Json(whole(&client, &session)).into_response(),
        Ok(None) => Problem::new(Kind::NotFound, "no such session").into_response(),
        Err(error) => Problem::from(&error).into_response(),
    }
}

async fn disconnect(State(bridge): State<BridgeHandle>, client: ClientPath) -> Response {
    let client = match client_id(client) {
        Ok(client) => client,
        Err((kind, detail)) => return Problem::new(kind, detail).into_response(),
    };
    let owner = match lookup(bridge.core(), &client).await {
        Ok(Some(SessionInfo { owner: Some(owner), .. })) => owner,
        Ok(_) => return Problem::new(Kind::NotFound, "the device is not connected").into_response(),
        Err(error) => return Problem::from(&error).into_response(),
    };
    let told = match bridge.core().peers.of_shard(owner) {
        Some(peer) => peer.send_record(&ToGateway::Disconnect(&client)).await.is_ok(),
        None => false,
    };
    if told {
        StatusCode::ACCEPTED.into_response()
    } else {
        let detail = format!("node {} has no link to this bridge now; try again", owner.node);
        Problem::new(Kind::Busy, detail).into_response()
    }
}

/// The client, or the problem with it.
fn client_id(client: ClientPath) -> Result<ClientId, (Kind, &'static str)> {
    match client {
        Ok(Path(client)) if client.len() > ClientId::BYTES_MAX => Err((Kind::NotFound, "no such session")),
        Ok(Path(client)) => Ok(ClientId::new(&client)),
        Err(_) => Err((Kind::Invalid, "a client id is UTF-8 text (MQTT-1.5.4-1)")),
    }
}

async fn lookup(core: &Core, client: &ClientId) -> Result<Option<SessionInfo>, StoreError> {
    match ask(&*core.store, Request::Lookup { client: client.clone() }).await? {
        Reply::Session(session) => Ok(session),
        _ => Ok(None),
    }
}

fn entry(session: &SessionEntry) -> Value {
    json!({
        "client_id": &*session.client,
        "connected": session.owner.is_some(),
        "node": session.owner.map(node),
        "shard": session.owner.map(|owner| owner.shard.0),
        "epoch": session.epoch.0,
        "persistent": session.persistent,
        "since_ms": session.since_ms,
    })
}

fn whole(client: &str, session: &SessionInfo) -> Value {
    json!({
        "client_id": client,
        "connected": session.owner.is_some(),
        "node": session.owner.map(node),
        "shard": session.owner.map(|owner| owner.shard.0),
        "epoch": session.epoch.0,
        "persistent": session.persistent,
        "since_ms": session.since_ms,
        // A rest without an end has none to show.
        "rests_until_ms": session.rests_until_ms.filter(|until| *until != u64::MAX),
        "pending": session.pending,
        // What ends with its connection only the node that holds it knows.
        "subscriptions": session.persistent.then(|| session.subscriptions.iter().map(|held| json!({
            "filter": &*held.filter,
            "qos": u8::from(held.qos),
        })).collect::<Vec<_>>()),
    })
}

fn node(owner: Owner) -> String {
    owner.node.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: Option<u32>, page: Option<&str>, node: Option<&str>) -> Result<ListRequest, String> {
        read(ListQuery {
            limit,
            page: page.map(str::to_owned),
            node: node.map(str::to_owned),
            connected: None,
        })
    }

    #[test]
    fn a_query_is_read_within_its_bounds() {
        let read = query(Some(7), Some("AQI"), Some("00000000000000ff")).unwrap();
        let page: Page = [1, 2].into();
        let expected =
            ListRequest { owner: Some(NodeId(255)), page: Some(page), sessions_max: 7, connected: None };
        assert_eq!(read, expected);
        assert_eq!(query(None, None, None).unwrap().sessions_max, LIMIT);
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_its_name() {
        for (refused, name) in [
            (query(Some(0), None, None), "limit"),
            (query(Some(LIMIT_MAX + 1), None, None), "limit"),
            (query(None, Some("?"), None), "page"),
            (query(None, None, Some("ff")), "node"),
            (query(None, None, Some("zzzzzzzzzzzzzzzz")), "node"),
            (query(None, None, Some("+000000000000001")), "node"),
        ] {
            assert!(refused.as_ref().is_err_and(|why| why.starts_with(name)), "{refused:?}");
        }
    }
}
