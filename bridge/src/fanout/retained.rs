//! Answers new subscriptions with the retained messages that match, a page at a time.

use std::sync::Arc;

use holdfast_wire::link::{RetainedRead, ToGateway};
use holdfast_wire::store::{Reply, Request};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::link::Peer;
use crate::store_requests::ask_until_answered;

/// Messages read from the store at once, whatever the shard asks for.
const PAGE_MESSAGES_MAX: u32 = 256;
/// A page ends with the message that makes it this long, in bytes: the shard keeps no more for one client at a time.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// A [`RetainedRead`] that outlives its record.
#[derive(Debug)]
pub(crate) struct PageRead {
    token: u64,
    filter: Box<str>,
    after: Option<Box<str>>,
    messages_max: u32,
}

impl From<RetainedRead<'_>> for PageRead {
    fn from(read: RetainedRead<'_>) -> Self {
        Self {
            token: read.token,
            filter: read.filter.into(),
            after: (!read.after.is_empty()).then(|| read.after.into()),
            messages_max: read.messages_max.clamp(1, PAGE_MESSAGES_MAX),
        }
    }
}

/// Answers one link's reads, one after the other, until the link is gone.
pub(crate) async fn answer_reads(core: Arc<Core>, peer: Arc<Peer>, mut reads: mpsc::Receiver<PageRead>) {
    while let Some(PageRead { token, filter, after, messages_max }) = reads.recv().await {
        let request = Request::ReadRetained { filter, after, messages_max };
        let page = match ask_until_answered(&*core.store, request).await {
            Ok(Reply::Retained(page)) => page,
            Ok(_) => Vec::new(),
            Err(error) => {
                // The subscription itself stands; the device goes without what was retained.
                tracing::warn!(%error, "retained messages cannot be read");
                Vec::new()
            }
        };
        let mut sent = 0;
        let mut bytes = 0;
        for message in &page {
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
            let record = ToGateway::RetainedMessage { token, message: message.view() };
            if peer.send_record(&record).await.is_err() {
                return;
            }
            sent += 1;
            bytes += message.as_bytes().len();
        }
        let more = sent < page.len() || page.len() >= messages_max as usize;
        if peer.send_record(&ToGateway::RetainedEnd { token, more }).await.is_err() {
            return;
        }
    }
}
