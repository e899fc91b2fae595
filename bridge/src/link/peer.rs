//! A shard at the other end of a link, as the rest of the bridge sees it: records can be sent to it, and deliveries reported by it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_wire::ids::Owner;
use holdfast_wire::link::{Outcome, ToGateway};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use crate::fanout::LinkId;

/// Bytes that may wait for a shard that does not read, and one record more of each sender; as many again may be with the writer. When full,
/// senders wait.
pub(crate) const OUT_BYTES_MAX: usize = 8 << 20;

/// Bytes beyond that for what one shard tells another through us while nobody waits for either: takeovers and handovers. Ten seconds of a mass return; by then a
/// shard that takes nothing is given up. When full, it is as if the shard were not linked.
pub(crate) const AHEAD_BYTES_MAX: usize = 8 << 20;

/// The link is closed, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerGone(pub(crate) Closing);

/// Why a link was closed at this end; the first reason stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closing {
    /// Its shard has another one.
    #[error("the shard dialled again")]
    Replaced,
    /// The shard said nothing for too long.
    #[error("the shard gave no sign of life for 15 s")]
    Silent,
    /// The shard read nothing for too long.
    #[error("the shard takes nothing any more")]
    Stuck,
    /// Nothing can be written to it.
    #[error("it cannot be written to any more")]
    Broken,
    /// Its conversation has ended.
    #[error("its conversation has ended")]
    Ended,
}

/// One open link.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: LinkId,
    pub(crate) shard: Owner,
    out: Mutex<Out>,
    /// There is something to write, or the link is closed.
    written: Notify,
    /// There is room again, or the link is closed.
    room: Notify,
    closed: Notify,
    /// The shard said something since the last look.
    heard: AtomicBool,
    /// What the shard says is being waited for.
    listening: AtomicBool,
    /// Who waits for reports. Bounded by those who ask for them: pushes and group deliveries in flight.
    reports: Mutex<FxHashMap<u64, oneshot::Sender<Outcome>>>,
    next_delivery: AtomicU64,
}

#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    closed: Option<Closing>,
    /// Something was written since the last sign of life was due.
    said: bool,
}

impl Peer {
    pub(crate) fn new(link: LinkId, shard: Owner) -> Self {
        Self {
            link,
            shard,
            out: Mutex::default(),
            written: Notify::new(),
            room: Notify::new(),
            closed: Notify::new(),
            heard: AtomicBool::new(true),
            listening: AtomicBool::new(false),
            reports: Mutex::default(),
            next_delivery: AtomicU64::new(1),
        }
    }

    /// Sends encoded records, waiting for room.
    pub(crate) async fn send(&self, records: &[u8]) -> Result<(), PeerGone> {
        self.ready().await?;
        self.write(|out| out.extend_from_slice(records))
    }

    /// Sends one record, waiting for room.
    pub(crate) async fn send_record(&self, record: &ToGateway<'_>) -> Result<(), PeerGone> {
        self.ready().await?;
        self.write(|out| record.encode(out))
    }

    /// Sends one record without waiting, also where others wait for room. False if it cannot be sent.
    pub(crate) fn send_ahead(&self, record: &ToGateway<'_>) -> bool {
        let bytes = self.out().bytes.len();
        bytes < OUT_BYTES_MAX + AHEAD_BYTES_MAX && self.write(|out| record.encode(out)).is_ok()
    }

    /// Sends without waiting: for settlements, which the link's window bounds, and for short answers to what the shard has just said, as it is not listened to
    /// where there is no room.
    pub(crate) fn send_at_once(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        // A shard that is gone has no use for them.
        let _ = self.write(encode);
    }

    /// Waits until the shard has read enough to be sent more.
    pub(crate) async fn ready(&self) -> Result<(), PeerGone> {
        while !self.has_room()? {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before looking again, so that a writer that makes room in between is not missed.
            room.as_mut().enable();
            if !self.has_room()? {
                room.await;
            }
        }
        Ok(())
    }

    fn has_room(&self) -> Result<bool, PeerGone> {
        let out = self.out();
        out.closed.map_or_else(|| Ok(out.bytes.len() < OUT_BYTES_MAX), |why| Err(PeerGone(why)))
    }

    fn write(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), PeerGone> {
        let mut out = self.out();
        if let Some(why) = out.closed {
            return Err(PeerGone(why));
        }
        // The writer takes all there is; it was told when there was nothing.
        let is_first = out.bytes.is_empty();
        encode(&mut out.bytes);
        out.said = true;
        drop(out);
        if is_first {
            self.written.notify_one();
        }
        Ok(())
    }

    /// Says that the bridge lives, if nothing was said since the last call.
    pub(crate) fn give_sign(&self) -> Result<(), PeerGone> {
        let mut out = self.out();
        if let Some(why) = out.closed {
            return Err(PeerGone(why));
        }
        let is_quiet = !std::mem::replace(&mut out.said, false) && out.bytes.is_empty();
        if is_quiet {
            ToGateway::Alive.encode(&mut out.bytes);
            drop(out);
            self.written.notify_one();
        }
        Ok(())
    }

    /// Whether the shard said nothing since the last call although it was listened to.
    pub(crate) fn was_silent(&self) -> bool {
        !self.heard.swap(false, Ordering::Relaxed) && self.listening.load(Ordering::Relaxed)
    }

    /// For the reader: the shard said something.
    pub(crate) fn note_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// For the reader: it waits for the shard to say something, or is busy with something else.
    pub(crate) fn note_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// For the writer: waits for something to write and swaps it with `buffer`, which is empty. An error once the link is closed
    /// and everything was given out.
    pub(crate) async fn take(&self, buffer: &mut Vec<u8>) -> Result<(), PeerGone> {
        loop {
            {
                let mut out = self.out();
                if !out.bytes.is_empty() {
                    std::mem::swap(&mut out.bytes, buffer);
                    drop(out);
                    self.room.notify_waiters();
                    return Ok(());
                }
                if let Some(why) = out.closed {
                    return Err(PeerGone(why));
                }
            }
            self.written.notified().await;
        }
    }

    /// A delivery that is to be reported: its number, and where the outcome arrives. An error there means that the link was lost.
    pub(crate) fn expect_report(&self) -> (u64, oneshot::Receiver<Outcome>) {
        let delivery = self.next_delivery.fetch_add(1, Ordering::Relaxed);
        let (report, reported) = oneshot::channel();
        self.reports().insert(delivery, report);
        if self.is_closed() {
            self.reports().clear();
        }
        (delivery, reported)
    }

    /// The shard reported; a number that nobody waits for does no harm.
    pub(crate) fn reported(&self, delivery: u64, outcome: Outcome) {
        if let Some(report) = self.reports().remove(&delivery) {
            let _ = report.send(outcome);
        }
    }

    /// Nobody waits for this report any more.
    pub(crate) fn forget_report(&self, delivery: u64) {
        self.reports().remove(&delivery);
    }

    /// Closes the link: nothing more is taken, what was taken may still be written, and whoever waits hears of it.
    pub(crate) fn close(&self, why: Closing) {
        self.out().closed.get_or_insert(why);
        self.reports().clear();
        self.written.notify_one();
        self.room.notify_waiters();
        self.closed.notify_waiters();
    }

    /// Whether someone closed the link.
    pub(crate) fn is_closed(&self) -> bool {
        self.out().closed.is_some()
    }

    /// Waits until someone closes the link.
    pub(crate) async fn until_closed(&self) -> PeerGone {
        let closed = self.closed.notified();
        tokio::pin!(closed);
        // Registered before looking, so that a closing in between is not missed.
        closed.as_mut().enable();
        if !self.is_closed() {
            closed.await;
        }
        self.gone()
    }

    /// Why the link is closed, for whoever knows that it is.
    pub(crate) fn gone(&self) -> PeerGone {
        PeerGone(self.out().closed.unwrap_or(Closing::Ended))
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> MutexGuard<'_, FxHashMap<u64, oneshot::Sender<Outcome>>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
