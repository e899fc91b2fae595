//! Results as lines of JSON, as they come, on a body that is read at the pace of its reader.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use holdfast_http::Problem;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::push::outcome::Told;
use crate::push::walk::LISTENER_STUCK_AFTER;

/// Lines that wait for their reader. Full: what makes them waits.
const LINES_MAX: usize = 256;

/// Which results are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
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
    #[serde(default, deserialize_with = "results")]
    pub(super) results: Option<Results>,
}

fn results<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Results>, D::Error> {
    match &*String::deserialize(from)? {
        "stream" => Ok(Some(Results::Stream)),
        "counts" => Ok(Some(Results::Counts)),
        other => Err(D::Error::custom(format!("must be stream or counts, not {other:?}"))),
    }
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

/// Where lines go. Closed once their reader is gone, or has taken nothing for [`LISTENER_STUCK_AFTER`] while lines waited.
#[derive(Clone)]
pub(super) struct Lines {
    tell: mpsc::Sender<Vec<u8>>,
    reader: Arc<Reader>,
}

/// What is known of whoever reads.
struct Reader {
    /// How often it took what was there.
    times: AtomicU64,
    stuck_after: Duration,
    is_stuck: watch::Sender<bool>,
}

impl Lines {
    /// The lines and the answer that they stand in.
    pub(super) fn begin() -> (Self, Response) {
        Self::begin_with(LISTENER_STUCK_AFTER)
    }

    fn begin_with(stuck_after: Duration) -> (Self, Response) {
        let (tell, told) = mpsc::channel(LINES_MAX);
        let reader =
            Arc::new(Reader { times: AtomicU64::new(0), stuck_after, is_stuck: watch::Sender::new(false) });
        let reading = (told, Arc::clone(&reader));
        let body =
            stream::unfold(reading, async |(mut told, reader): (mpsc::Receiver<Vec<u8>>, Arc<Reader>)| {
                let mut lines = Vec::new();
                // What has come meanwhile leaves together.
                let count = told.recv_many(&mut lines, LINES_MAX).await;
                reader.times.fetch_add(1, Ordering::Relaxed);
                (count > 0).then(|| (Ok::<_, std::convert::Infallible>(lines.concat()), (told, reader)))
            });
        let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
        (Self { tell, reader }, (kind, Body::from_stream(body)).into_response())
    }

    /// False once nobody reads. Needs a runtime with timers.
    pub(super) async fn tell(&self, line: &impl Serialize) -> bool {
        // Texts and numbers alone: there is nothing that could not be written.
        let mut bytes = serde_json::to_vec(line).unwrap_or_default();
        bytes.push(b'\n');
        let Reader { times, stuck_after, is_stuck } = &*self.reader;
        if *is_stuck.borrow() {
            return false;
        }
        let mut room = pin!(self.tell.reserve());
        let mut before = times.load(Ordering::Relaxed);
        loop {
            match timeout(*stuck_after, &mut room).await {
                Ok(Ok(room)) => {
                    room.send(bytes);
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) => {
                    // A slow reader may take a long time for all that waits before this line.
                    let now = times.load(Ordering::Relaxed);
                    if now == before {
                        is_stuck.send_replace(true);
                        return false;
                    }
                    before = now;
                }
            }
        }
    }

    /// Until nobody reads any more.
    pub(super) async fn closed(&self) {
        let mut is_stuck = self.reader.is_stuck.subscribe();
        tokio::select! {
            () = self.tell.closed() => {}
            // Its sender is at hand, so this is no error.
            _ = is_stuck.wait_for(|is_stuck| *is_stuck) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn whoever_reads_nothing_is_given_up() {
        run(async {
            let (lines, response) = Lines::begin_with(Duration::from_millis(50));
            for number in 0..LINES_MAX {
                assert!(lines.tell(&number).await);
            }
            assert!(!lines.tell(&"one more than waits").await);
            lines.closed().await;
            assert!(!lines.tell(&"later").await);
            // What it finds if it reads after all: all that was taken, and an end.
            drop(lines);
            let pieces: Vec<_> = response.into_body().into_data_stream().collect().await;
            let text: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
            assert_eq!(text.split(|&byte| byte == b'\n').count(), LINES_MAX + 1);
        });
    }

    #[test]
    fn whoever_reads_is_waited_for() {
        run(async {
            let (lines, response) = Lines::begin_with(Duration::from_mins(10));
            let mut body = response.into_body().into_data_stream();
            for number in 0..LINES_MAX {
                assert!(lines.tell(&number).await);
            }
            let (told, read) = tokio::join!(lines.tell(&"one more"), body.next());
            assert!(told && read.is_some());
        });
    }

    #[test]
    fn whoever_hangs_up_is_gone() {
        run(async {
            let (lines, response) = Lines::begin();
            drop(response);
            lines.closed().await;
            assert!(!lines.tell(&1).await);
        });
    }
}
