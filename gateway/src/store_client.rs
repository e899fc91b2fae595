//! The engine's questions to the session store, and the way of the answers back into the shard.
//!
//! The store may answer on any thread, or on this one before [`Store::submit`] returns. Either way the answer goes through the
//! mailbox: the engine is never entered while it is being drained.

use std::sync::Arc;

use holdfast_engine::RequestId;
use holdfast_store::contract::{Reply, Request, Store, StoreError};

use crate::mailbox::Mailbox;

/// An answer on its way to the engine.
#[derive(Debug)]
pub(crate) struct StoreReply {
    /// The question's number.
    pub(crate) request: RequestId,
    /// The answer.
    pub(crate) result: Result<Reply, StoreError>,
}

/// Submits one shard's requests.
pub(crate) struct StoreClient<L> {
    store: Arc<dyn Store>,
    mailbox: Mailbox<L>,
    open: usize,
}

impl<L: From<StoreReply> + Send + 'static> StoreClient<L> {
    /// Answers arrive in `mailbox`.
    pub(crate) fn new(store: Arc<dyn Store>, mailbox: Mailbox<L>) -> Self {
        Self { store, mailbox, open: 0 }
    }

    /// Asks.
    pub(crate) fn submit(&mut self, request: RequestId, body: Request) {
        self.open += 1;
        let mailbox = self.mailbox.clone();
        self.store.submit(body, Box::new(move |result| mailbox.post(StoreReply { request, result }.into())));
    }

    /// An answer was taken out of the mailbox.
    pub(crate) fn note_reply(&mut self) {
        self.open -= 1;
    }

    /// Questions without an answer. The contract promises one for each, at the latest after the store's own deadline.
    pub(crate) fn open(&self) -> usize {
        self.open
    }
}
