//! A lane while it sends a batch off: it waits for room in the sink, and its link goes on beside it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sink::{Lane, OnSettled, SinkClosed};

/// The lane again, and whether the sink has taken the batch.
pub(crate) type Sent = (Box<dyn Lane>, Result<(), SinkClosed>);

/// One batch at most, with the lane that sends it.
#[derive(Default)]
pub(crate) enum Sending {
    #[default]
    Nothing,
    UnderWay(Pin<Box<dyn Future<Output = Sent> + Send>>),
}

impl Sending {
    /// Sends off what was pushed into the lane. Nothing else may be under way.
    pub(crate) fn begin(&mut self, mut lane: Box<dyn Lane>, settled: OnSettled) {
        debug_assert!(matches!(self, Self::Nothing));
        *self = Self::UnderWay(Box::pin(async move {
            let sent = lane.send(settled).await;
            (lane, sent)
        }));
    }

    /// Waits until the sink has room for the batch; for ever if there is none. Dropping the future loses nothing.
    pub(crate) async fn over(&mut self) -> Sent {
        poll_fn(|context| self.poll_over(context)).await
    }

    /// The same without waiting.
    pub(crate) async fn over_at_once(&mut self) -> Option<Sent> {
        poll_fn(|context| match self.poll_over(context) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Sent> {
        match std::mem::take(self) {
            Self::Nothing => Poll::Pending,
            Self::UnderWay(mut sending) => {
                let sent = sending.as_mut().poll(context);
                if sent.is_pending() {
                    *self = Self::UnderWay(sending);
                }
                sent
            }
        }
    }
}
