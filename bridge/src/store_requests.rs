//! Asking the session store from asynchronous code.

use std::time::Duration;

use holdfast_store::Store;
use holdfast_wire::store::{Reply, Request, StoreError};
use tokio::sync::oneshot;

use crate::metrics as names;

/// Bounds of the wait before a request is tried again on a store that is unavailable.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(50);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(2);

/// Asks once.
pub(crate) async fn ask(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let (reply, replied) = oneshot::channel();
    store.submit(
        request,
        Box::new(move |answer| {
            let _ = reply.send(answer);
        }),
    );
    replied.await.unwrap_or_else(|_| Err(StoreError::Unavailable("it closed without an answer".to_owned())))
}

/// Asks until the store is there to answer, for as long as the caller waits.
pub(crate) async fn ask_until_answered(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let mut retry_after = RETRY_MIN;
    loop {
        match ask(store, request.clone()).await {
            Err(StoreError::Unavailable(_)) => {
                metrics::counter!(names::STORE_RETRIES).increment(1);
                tokio::time::sleep(retry_after).await;
                retry_after = (retry_after * 2).min(RETRY_MAX);
            }
            answer => return answer,
        }
    }
}

/// The MQTT 5 reason code that a publisher hears when the store refuses its message for good.
pub(crate) fn reason_code(error: &StoreError) -> u8 {
    use holdfast_wire::mqtt::ReasonCode;
    match error {
        StoreError::Full(_) => ReasonCode::QuotaExceeded as u8,
        _ => ReasonCode::ImplementationSpecificError as u8,
    }
}
