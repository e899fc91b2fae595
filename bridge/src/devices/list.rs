//! `GET /v1/devices`: sessions page by page, as the store hands them out.
//!
//! What `connected` leaves out was on the page, and the store looks for those of a `node` for a bounded time: so a page may have fewer sessions, or none, and
//! is not the last before `next` is null. It costs one question to the store, however many sessions there are.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use holdfast_http::reading::{self, NO_PAGE};
use holdfast_http::{Kind, Problem};
use holdfast_wire::ids::NodeId;
use holdfast_wire::store::{Page, Reply, Request, SessionEntry, StoreError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::foreign_answer;
use crate::bridge::BridgeHandle;
use crate::store_requests::ask;

/// Sessions on a page, unless the query says otherwise.
const LIMIT: u32 = 100;
/// Most sessions on a page.
pub(super) const LIMIT_MAX: u32 = 1_000;

/// A page of sessions, in no particular order.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Devices {
    /// At most `limit`; there may be fewer, or none, on a page that is not the last.
    devices: Vec<DeviceEntry>,
    /// `page` of the request for the next page; null behind the last.
    next: Option<String>,
}

/// A session on a page.
#[derive(Debug, Serialize, JsonSchema)]
struct DeviceEntry {
    /// Whose session.
    client_id: String,
    /// Whether it has a connection.
    connected: bool,
    /// The node that holds the connection; null while the session rests.
    node: Option<String>,
    /// Which of its shards.
    shard: Option<u16>,
    /// The session's epoch: it grows with each change of owner.
    epoch: u64,
    /// Whether the session outlives its connection.
    persistent: bool,
    /// When the connection began, or when the session began to rest, in ms of Unix time; the store may know it to the second only.
    since_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<String>,
    page: Option<String>,
    node: Option<String>,
    connected: Option<String>,
}

pub(super) async fn show(
    State(bridge): State<BridgeHandle>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Devices>, Problem> {
    let read = read(&reading::query(query)?);
    let ListRequest { owner, page, sessions_max, connected } =
        read.map_err(|why| Problem::new(Kind::Invalid, why))?;
    let is_first = page.is_none();
    match ask(&*bridge.core().store, Request::Sessions { owner, page, sessions_max }).await {
        Ok(Reply::Sessions { sessions, next }) => {
            let wanted = |session: &&SessionEntry| connected.is_none_or(|is| is == session.owner.is_some());
            let devices = sessions.iter().filter(wanted).map(entry).collect();
            let next = next.as_ref().map(reading::name_page);
            Ok(Json(Devices { devices, next }))
        }
        Ok(_) => Err(foreign_answer()),
        // What it does not understand may be the page.
        Err(StoreError::Unreadable(_)) if !is_first => Err(Problem::new(Kind::Invalid, NO_PAGE)),
        Err(error) => Err(Problem::from(&error)),
    }
}

fn entry(session: &SessionEntry) -> DeviceEntry {
    DeviceEntry {
        client_id: session.client.to_string(),
        connected: session.owner.is_some(),
        node: session.owner.map(|owner| owner.node.to_string()),
        shard: session.owner.map(|owner| owner.shard.0),
        epoch: session.epoch.0,
        persistent: session.persistent,
        since_ms: session.since_ms,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ListRequest {
    owner: Option<NodeId>,
    page: Option<Page>,
    sessions_max: u32,
    connected: Option<bool>,
}

fn read(query: &ListQuery) -> Result<ListRequest, String> {
    let sessions_max = reading::limit(query.limit.as_deref(), LIMIT, LIMIT_MAX)?;
    let page = reading::page(query.page.as_deref())?;
    let owner = match &query.node {
        // The sign that a number may have is none of a name.
        Some(node) => match u64::from_str_radix(node, 16) {
            Ok(id) if node.len() == 16 && !node.starts_with('+') => Some(NodeId(id)),
            _ => return Err(format!("node = {node:?}: a node is named by 16 hexadecimal digits")),
        },
        None => None,
    };
    let connected = match query.connected.as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => return Err(format!("connected = {other:?}: must be true or false")),
    };
    Ok(ListRequest { owner, page, sessions_max, connected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: Option<u32>, page: Option<&str>, node: Option<&str>) -> Result<ListRequest, String> {
        read(&ListQuery {
            limit: limit.map(|limit| limit.to_string()),
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
