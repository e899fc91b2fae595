//! Results as lines of JSON, as they come, on a body that is read at the pace of its reader.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::push::outcome::Told;
use crate::push::problem::Problem;

/// Lines that wait for their reader. Full: what makes them waits.
const LINES_MAX: usize = 256;

/// Which results are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Results {
    /// Each as it comes, and their counts at the end.
    Stream,
    /// Their counts alone.
    Counts,
}

/// `?results=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    pub(super) results: Option<Results>,
}

/// What became of a push.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Its id, given or drawn.
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) told: Told,
}

/// A push that has an outcome, or why it has none.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Result {
    Known(Answer),
    Not { problem: Problem },
}

/// Where lines go. Closed once their reader is gone.
#[derive(Clone)]
pub(super) struct Lines(mpsc::Sender<Vec<u8>>);

impl Lines {
    /// The lines and the answer that they stand in.
    pub(super) fn begin() -> (Self, Response) {
        let (tell, told) = mpsc::channel(LINES_MAX);
        let body = stream::unfold(told, async |mut told: mpsc::Receiver<Vec<u8>>| {
            let mut lines = Vec::new();
            // What has come meanwhile leaves together.
            let count = told.recv_many(&mut lines, LINES_MAX).await;
            (count > 0).then(|| (Ok::<_, std::convert::Infallible>(lines.concat()), told))
        });
        let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
        (Self(tell), (kind, Body::from_stream(body)).into_response())
    }

    /// False once nobody reads.
    pub(super) async fn tell(&self, line: &impl Serialize) -> bool {
        // Texts and numbers alone: there is nothing that could not be written.
        let mut bytes = serde_json::to_vec(line).unwrap_or_default();
        bytes.push(b'\n');
        self.0.send(bytes).await.is_ok()
    }

    /// Until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
