//! Answers new subscriptions with the retained messages that match, a page at a time.
//!
//! ```text
//! asked ──> fresh ──(a few side by side)──> the store answers ──> messages, RetainedEnd
//!              └──── it is away, or a part of it ──> put off ──(a few side by side, until it answers)──^
//! ```
//! Whoever asks waits for as long as its link stands, and nobody else does: neither the link, nor a read that the store can answer behind one that it cannot.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use holdfast_wire::link::{RetainedRead, ToGateway};
use holdfast_wire::store::{Reply, Request, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::core::Core;
use crate::link::{Peer, PeerGone};
use crate::metrics as names;
use crate::store_requests::{ask, ask_until_answered};

/// Messages read from the store at once, whatever the shard asks for.
const PAGE_MESSAGES_MAX: u32 = 256;
/// A page ends with the message that makes it this long, in bytes: the shard keeps no more for one client at a time, and the bridge reads no more.
const PAGE_BYTES_MAX: u32 = 256 * 1024;
/// Fresh reads that the store is asked at once for one link, and as many that were put off. So many pages stand in memory, each of
/// [`PAGE_BYTES_MAX`] and one message.
const PAGES_AT_ONCE: usize = 4;
/// Bytes of reads that one link may have waiting. A shard asks for one page of each connection at a time, so a hundred thousand of them have room; reads of
/// connections that have left are in here too. When full, whoever asks is told at once that nothing is retained.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// One link's reads.
pub(crate) struct RetainedReads {
    core: Arc<Core>,
    peer: Arc<Peer>,
    room: Arc<Semaphore>,
    fresh: mpsc::UnboundedSender<PageRead>,
}

/// A [`RetainedRead`] that outlives its record.
#[derive(Debug)]
struct PageRead {
    token: u64,
    filter: Box<str>,
    after: Option<Box<str>>,
    messages_max: u32,
    _room: OwnedSemaphorePermit,
}

impl PageRead {
    fn request(&self) -> Request {
        let (filter, after) = (self.filter.clone(), self.after.clone());
        Request::ReadRetained { filter, after, messages_max: self.messages_max, bytes_max: PAGE_BYTES_MAX }
    }
}

impl RetainedReads {
    /// Those of an open link; they end with it. Within the runtime.
    pub(crate) fn new(core: &Arc<Core>, peer: &Arc<Peer>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "`WAITING_BYTES_MAX` bounds it")]
        let (fresh, reads) = mpsc::unbounded_channel();
        tokio::spawn(answer(Arc::clone(core), Arc::clone(peer), reads));
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        Self { core: Arc::clone(core), peer: Arc::clone(peer), room, fresh }
    }

    /// Takes a read, to be answered later on.
    pub(crate) fn ask(&self, read: RetainedRead<'_>) {
        let bytes = (size_of::<PageRead>() + read.filter.len() + read.after.len()) as u32;
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else {
            self.peer
                .send_at_once(|out| ToGateway::RetainedEnd { token: read.token, more: false }.encode(out));
            return goes_without(&self.core, &"too many wait for theirs");
        };
        // An error would mean that the link is closed.
        let _ = self.fresh.send(PageRead {
            token: read.token,
            filter: read.filter.into(),
            after: (!read.after.is_empty()).then(|| read.after.into()),
            messages_max: read.messages_max.clamp(1, PAGE_MESSAGES_MAX),
            _room: room,
        });
    }
}

/// Answers reads until the link is closed.
async fn answer(core: Arc<Core>, peer: Arc<Peer>, reads: mpsc::UnboundedReceiver<PageRead>) {
    #[expect(clippy::disallowed_methods, reason = "`WAITING_BYTES_MAX` bounds it")]
    let (put_off, to_try_again) = mpsc::unbounded_channel();
    let (core, peer, put_off) = (&*core, &*peer, &put_off);
    let fresh = each(reads, |read| async move {
        match ask(&*core.store, read.request()).await {
            // An error would mean that the link is closed.
            Err(StoreError::Unavailable(_)) => drop(put_off.send(read)),
            answer => tell(core, peer, &read, answer).await,
        }
    });
    let again = each(to_try_again, |read| async move {
        let answer = ask_until_answered(&*core.store, read.request()).await;
        tell(core, peer, &read, answer).await;
    });
    tokio::select! {
        _ = peer.until_closed() => {}
        _ = async { tokio::join!(fresh, again) } => {}
    }
}

async fn each<F: Future<Output = ()>>(
    mut reads: mpsc::UnboundedReceiver<PageRead>,
    see_to: impl Fn(PageRead) -> F,
) {
    stream::poll_fn(move |context| reads.poll_recv(context)).for_each_concurrent(PAGES_AT_ONCE, see_to).await;
}

/// Sends a page, waiting for room.
async fn tell(core: &Core, peer: &Peer, read: &PageRead, answer: Result<Reply, StoreError>) {
    let page = match answer {
        Ok(Reply::Retained(page)) => page,
        Ok(_) => Vec::new(),
        Err(error) => {
            goes_without(core, &error);
            Vec::new()
        }
    };
    let token = read.token;
    let sending = async {
        for message in &page {
            peer.send_record(&ToGateway::RetainedMessage { token, message: message.view() }).await?;
        }
        let bytes: usize = page.iter().map(|message| message.as_bytes().len()).sum();
        let more = page.len() >= read.messages_max as usize || bytes >= PAGE_BYTES_MAX as usize;
        peer.send_record(&ToGateway::RetainedEnd { token, more }).await
    };
    // Nobody wants it on a link that is gone.
    let _: Result<(), PeerGone> = sending.await;
}

/// The subscription itself stands; its device goes without what was retained.
fn goes_without(core: &Core, why: &dyn Display) {
    metrics::counter!(names::RETAINED_UNREAD).increment(1);
    if let Some(suppressed) = core.complaints.admit("retained", Instant::now()) {
        let suppressed = Some(suppressed).filter(|lines| *lines > 0);
        tracing::warn!(%why, suppressed, "a new subscription goes without its retained messages");
    }
}
