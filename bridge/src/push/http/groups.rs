//! `/v1/groups/{group}`: named sets of clients, kept in the session store.
//!
//! Members come as one list of JSON, or as lines, which may be as many as you like: they are handed to the store a page at a time. Adding one that is
//! there, and removing one that is not, does no harm, so a request that went wrong is simply made again.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use holdfast_http::reading::{self, NO_PAGE};
use holdfast_http::{Form, Kind, Operation, Problem, form, whole};
use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Reply, Request as Question, StoreError};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::lines::{Broken, Line, LineReader};
use super::too_large;
use crate::bridge::BridgeHandle;
use crate::core::Core;
use crate::push::request::{check_client, check_group};
use crate::store_requests::ask;

/// Members that the store is asked to change at once: so many, or so many bytes of them.
const PAGE_MEMBERS: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;
/// Members on a page of the list, unless the query says otherwise, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;
/// Longest line: a client id of 65,535 bytes, each of which JSON may write in six.
const LINE_BYTES_MAX: usize = 6 * ClientId::BYTES_MAX + 2;

/// Clients that come into a group or leave it.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
struct Clients(Vec<String>);

/// What was changed.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    group: String,
    /// Client ids that the request named.
    given: u64,
    /// Those that were not in the group before and are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<u64>,
    /// Those that were in it and are not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
}

/// A page of a group's members, in no particular order.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Members")]
struct Page {
    group: String,
    /// Client ids.
    members: Vec<String>,
    /// `page` of the request for the next page; null behind the last.
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<String>,
    page: Option<String>,
}

type Group = Result<Path<String>, PathRejection>;

pub(super) async fn list(
    State(bridge): State<BridgeHandle>,
    group: Group,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let group = name(group)?;
    let ListQuery { limit, page } = reading::query(query)?;
    let invalid = |why: String| Problem::new(Kind::Invalid, why);
    let members_max = reading::limit(limit.as_deref(), LIMIT, LIMIT_MAX).map_err(invalid)?;
    let page = reading::page(page.as_deref()).map_err(invalid)?;
    let is_first = page.is_none();
    let question = Question::GroupMembers { group: (*group).into(), page, members_max };
    match ask(&*bridge.core().store, question).await {
        Ok(Reply::Members { clients, next: None }) if is_first && clients.is_empty() => {
            Err(Problem::new(Kind::NotFound, "no such group: it has no members"))
        }
        Ok(Reply::Members { clients, next }) => {
            let members = clients.iter().map(ToString::to_string).collect();
            let next = next.as_ref().map(reading::name_page);
            Ok(Json(Page { group, members, next }).into_response())
        }
        Err(StoreError::Unreadable(_)) if !is_first => Err(Problem::new(Kind::Invalid, NO_PAGE)),
        Ok(_) => Err(Problem::new(Kind::StoreUnreadable, "the store answered another question")),
        Err(error) => Err(Problem::from(&error)),
    }
}

pub(super) async fn add(
    State(bridge): State<BridgeHandle>,
    group: Group,
    request: Request,
) -> Result<Response, Problem> {
    change(bridge, group, request, Way::In).await
}

pub(super) async fn remove(
    State(bridge): State<BridgeHandle>,
    group: Group,
    request: Request,
) -> Result<Response, Problem> {
    change(bridge, group, request, Way::Out).await
}

pub(super) async fn end(
    State(bridge): State<BridgeHandle>,
    group: Group,
    address: Uri,
) -> Result<StatusCode, Problem> {
    let group = name(group)?.into();
    reading::no_query(&address)?;
    match ask(&*bridge.core().store, Question::DropGroup { group }).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(Problem::from(&error)),
    }
}

fn name(group: Group) -> Result<String, Problem> {
    // One that is not UTF-8 is refused as one that is not there.
    let group = group.map_or_else(|_| String::new(), |Path(group)| group);
    check_group(&group).map_err(|why| Problem::new(Kind::Invalid, why))?;
    Ok(group)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// Takes the request's members in or out.
async fn change(bridge: BridgeHandle, group: Group, request: Request, way: Way) -> Result<Response, Problem> {
    let group = name(group)?;
    reading::no_query(request.uri())?;
    let known = [Form::Json, Form::JsonLines, Form::TextLines];
    let form = form(request.headers(), &known)?;
    let change =
        Change { bridge: bridge.clone(), group, way, page: Vec::new(), page_bytes: 0, given: 0, changed: 0 };
    if matches!(form, Form::Unsaid | Form::Json) {
        let body_bytes_max = bridge.core().config.push.body_bytes_max;
        let body = whole(request, body_bytes_max, too_large(body_bytes_max)).await.map_err(|problem| {
            problem.after("; as lines (application/x-ndjson, text/plain) there may be more")
        })?;
        return change.list(&body).await;
    }
    let lines = LineReader::new(request.into_body(), LINE_BYTES_MAX);
    // Timers are those of the bridge's runtime.
    let changing = bridge.runtime().spawn(change.lines(lines, form));
    changing.await.unwrap_or_else(|_| Err(Problem::new(Kind::Stopping, "the bridge is stopping")))
}

/// A change of a group that goes on page by page.
struct Change {
    bridge: BridgeHandle,
    group: String,
    way: Way,
    page: Vec<ClientId>,
    page_bytes: usize,
    /// Client ids that the store was handed.
    given: u64,
    changed: u64,
}

impl Change {
    async fn list(mut self, body: &[u8]) -> Result<Response, Problem> {
        let Clients(clients) =
            reading::json(body).map_err(|error| Problem::from(error).after("; give a list of client ids"))?;
        for client in &clients {
            check_client(client).map_err(|why| Problem::new(Kind::Invalid, why))?;
        }
        for client in &clients {
            self.take(client).await?;
        }
        self.done().await
    }

    async fn lines(mut self, mut lines: LineReader, form: Form) -> Result<Response, Problem> {
        loop {
            let Line { number, text } = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return self.done().await,
                Err(broken) => {
                    let problem = match broken {
                        Broken::Body => Problem::new(Kind::Malformed, "the body ends before its end"),
                        Broken::Silent => Problem::new(Kind::Timeout, "no further line came"),
                    };
                    return Err(problem.after(&self.so_far()));
                }
            };
            let client = text
                .map_err(|_| Problem::new(Kind::TooLarge, "the line is longer than any client id"))
                .and_then(|text| client(text, form));
            match client {
                Ok(client) => self.take(&client).await?,
                Err(problem) => return Err(problem.at_line(number).after(&self.so_far())),
            }
        }
    }

    async fn take(&mut self, client: &str) -> Result<(), Problem> {
        self.page.push(ClientId::new(client));
        self.page_bytes += client.len();
        if self.page.len() >= PAGE_MEMBERS || self.page_bytes >= PAGE_BYTES {
            self.turn().await?;
        }
        Ok(())
    }

    /// Hands a page to the store.
    async fn turn(&mut self) -> Result<(), Problem> {
        let clients = std::mem::take(&mut self.page);
        self.page_bytes = 0;
        let count = clients.len() as u64;
        if count == 0 {
            return Ok(());
        }
        self.given += count;
        let core: &Core = self.bridge.core();
        let (add, remove) = match self.way {
            Way::In => (clients, Vec::new()),
            Way::Out => (Vec::new(), clients),
        };
        let question = Question::ChangeGroup { group: (*self.group).into(), add, remove };
        match ask(&*core.store, question).await {
            Ok(Reply::GroupChanged { added, removed }) => {
                self.changed += u64::from(if self.way == Way::In { added } else { removed });
                Ok(())
            }
            Ok(_) => Err(Problem::new(Kind::StoreUnreadable, "the store answered another question")),
            Err(error) => {
                // A page whose answer is lost may have been carried out.
                let doubt = if matches!(error, StoreError::Unavailable(_)) { ", if not more" } else { "" };
                Err(Problem::from(&error).after(&self.so_far()).after(doubt))
            }
        }
    }

    async fn done(mut self) -> Result<Response, Problem> {
        self.turn().await?;
        let Self { group, given, changed, way, .. } = self;
        let (added, removed) = match way {
            Way::In => (Some(changed), None),
            Way::Out => (None, Some(changed)),
        };
        Ok(Json(Changed { group, given, added, removed }).into_response())
    }

    fn so_far(&self) -> String {
        let way = if self.way == Way::In { "added" } else { "removed" };
        format!("; the store was given {} client ids, and {} were {way}", self.given, self.changed)
    }
}

/// The client id in a line.
fn client(text: Vec<u8>, form: Form) -> Result<String, Problem> {
    let client = if form == Form::JsonLines {
        reading::json(&text)
            .map_err(|error| Problem::from(error).after("; give a client id as a JSON string"))?
    } else {
        String::from_utf8(text).map_err(|_| Problem::new(Kind::Malformed, "it is not UTF-8"))?
    };
    check_client(&client).map_err(|why| Problem::new(Kind::Invalid, why))?;
    Ok(client)
}

pub(super) fn operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    const MEMBERS: &str = "/v1/groups/{group}/members";
    let store = [Kind::Invalid, Kind::StoreAway, Kind::StoreUnreadable, Kind::StoreFull];
    let list = "In no particular order. One that is there all the while is on one page; one that comes or goes meanwhile may be. A group without \
        members does not exist.";
    let about = "As a list, of at most `push.body_bytes_max` bytes, or as any number of lines; a request that went wrong may be made again.";
    let mut changes = Vec::new();
    for (method, name, title, done) in [
        ("put", "addMembers", "Take clients into a group", "they are in it"),
        ("delete", "removeMembers", "Take clients out of a group", "they are not in it"),
    ] {
        let problems =
            [Kind::Malformed, Kind::Timeout, Kind::TooLarge, Kind::UnsupportedMediaType, Kind::Stopping];
        let change = Operation::new(method, MEMBERS, name, title, about)
            .takes::<Clients>(schemas, Form::Json.content_type())
            .takes::<String>(schemas, Form::JsonLines.content_type())
            .takes::<String>(schemas, Form::TextLines.content_type())
            .answers::<Changed>(schemas, 200, done)
            .problems(schemas, &[&store[..], &problems].concat());
        changes.push(change);
    }
    let list = Operation::new("get", MEMBERS, "listMembers", "List a group's members", list)
        .query::<u32>(schemas, "limit", "Members on the page, 1 to 1000; 100 if not given.")
        .query::<String>(schemas, "page", "The former answer's `next`.")
        .answers::<Page>(schemas, 200, "a page")
        .problems(schemas, &[&store[..], &[Kind::NotFound]].concat());
    let end = Operation::new(
        "delete",
        "/v1/groups/{group}",
        "endGroup",
        "End a group",
        "Its members are no group any more.",
    )
    .answers_nothing(204, "it is not there (any more)")
    .problems(schemas, &store);
    [list].into_iter().chain(changes).chain([end]).collect()
}
