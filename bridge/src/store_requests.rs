//! Asking the session store from asynchronous code.

use std::time::Duration;

use holdfast_store::Store;
use holdfast_wire::store::{Reply, Request, StoreError};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::metrics as names;

/// Bounds of the wait before a request is tried again on a store that could not answer it.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The waits before a request is tried again, one after the other: each twice as long as the former, from 50 ms to 2 s.
#[derive(Debug)]
pub(crate) struct Retries {
    next: Duration,
}

impl Retries {
    pub(crate) fn new() -> Self {
        Self { next: RETRY_MIN }
    }

    /// How long to wait this time. Counted as one more try.
    pub(crate) fn next_wait(&mut self) -> Duration {
        metrics::counter!(names::STORE_RETRIES).increment(1);
        let longer = (self.next * 2).min(RETRY_MAX);
        std::mem::replace(&mut self.next, longer)
    }

    /// Waits, since the store cannot answer or has enough to do.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

/// Whether the same request may be answered later: the store is away, or has no room until something is read or expires.
pub(crate) fn is_temporary(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Full(_))
}

/// Asks once.
pub(crate) async fn ask(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let (reply, mut replied) = oneshot::channel();
    store.submit(
        request,
        Box::new(move |answer| {
            let _ = reply.send(answer);
        }),
    );
    // A store in this process has answered a question by now.
    let answer = match replied.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Empty) => replied.await.ok(),
        Err(TryRecvError::Closed) => None,
    };
    answer.unwrap_or_else(|| Err(StoreError::Unavailable("it closed without an answer".to_owned())))
}

/// Asks until the store is there to answer, for as long as the caller waits; that it is full is an answer.
pub(crate) async fn ask_until_answered(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    ask_while(store, request, |error| matches!(error, StoreError::Unavailable(_))).await
}

/// Asks until the store is there and has room, for as long as the caller waits.
pub(crate) async fn ask_until_taken(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    ask_while(store, request, is_temporary).await
}

async fn ask_while(
    store: &dyn Store,
    request: Request,
    is_worth_waiting: impl Fn(&StoreError) -> bool,
) -> Result<Reply, StoreError> {
    let mut retries = Retries::new();
    loop {
        match ask(store, request.clone()).await {
            Err(error) if is_worth_waiting(&error) => retries.wait().await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::ReplyTo;

    use super::*;

    /// A store that is closed before it answers.
    struct Closing;

    impl Store for Closing {
        fn submit(&self, _request: Request, _reply: ReplyTo) {}
    }

    #[tokio::test]
    async fn a_store_that_closes_without_an_answer_is_unavailable() {
        let answer = ask(&Closing, Request::DurableFilters).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
}
