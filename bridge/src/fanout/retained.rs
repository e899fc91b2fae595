//! Answers new subscriptions with the retained messages that match.

use std::sync::Arc;

use holdfast_wire::link::ToGateway;
use holdfast_wire::store::{Reply, Request};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::link::Peer;
use crate::store_requests::ask_until_answered;

/// Messages read from the store at once.
const PAGE: u32 = 256;

/// Answers one link's reads, one after the other, until the link is gone.
pub(crate) async fn answer_reads(
    core: Arc<Core>,
    peer: Arc<Peer>,
    mut reads: mpsc::Receiver<(u64, Box<str>)>,
) {
    while let Some((token, filter)) = reads.recv().await {
        let mut after: Option<Box<str>> = None;
        loop {
            let request =
                Request::ReadRetained { filter: filter.clone(), after: after.take(), messages_max: PAGE };
            let page = match ask_until_answered(&*core.store, request).await {
                Ok(Reply::Retained(page)) => page,
                Ok(_) => Vec::new(),
                Err(error) => {
                    // The subscription itself stands; the device goes without what was retained.
                    tracing::warn!(%error, "retained messages cannot be read");
                    Vec::new()
                }
            };
            for message in &page {
                let record = ToGateway::RetainedMessage { token, message: message.view() };
                if peer.send_record(&record).await.is_err() {
                    return;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.view().topic.into()),
                _ => break,
            }
        }
        if peer.send_record(&ToGateway::RetainedEnd(token)).await.is_err() {
            return;
        }
    }
}
