//! The push API by HTTP: JSON or lines in, JSON or lines out, errors as problem details.
//!
//! | route | answers |
//! | --- | --- |
//! | `POST /v1/push` | `single`: one push, to a device, a topic or a group |
//! | `POST /v1/push/batch` | `batch`: a push a line |
//! | `GET, PUT, DELETE /v1/groups/{group}/members`, `DELETE /v1/groups/{group}` | `groups` |
//! | `GET /v1/openapi.json` | `openapi`: what all of them take and answer |
//!
//! The words for what is wrong are those of `holdfast_http`; each server that these routes are mounted on is dressed with the rest of them.

mod batch;
mod groups;
mod lines;
pub mod openapi;
mod problem;
mod results;
mod single;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};

use crate::bridge::BridgeHandle;

/// The push API, to be mounted on whatever address the operator gave it.
pub fn router(bridge: BridgeHandle) -> Router {
    let body_bytes_max = bridge.core().config.push.body_bytes_max;
    Router::new()
        .route("/v1/push", post(single::handle))
        .route("/v1/push/batch", post(batch::handle))
        .route("/v1/groups/{group}", delete(groups::end))
        .route("/v1/groups/{group}/members", get(groups::list).put(groups::add).delete(groups::remove))
        .route("/v1/openapi.json", get(openapi::show))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(bridge)
}

/// What a body, or a line of one, may have.
fn too_large(bytes_max: usize) -> String {
    format!("at most {bytes_max} bytes (push.body_bytes_max)")
}
