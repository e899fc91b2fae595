//! What all partitions hold together, as far as this process knows, and making room when it is too much.
//!
//! No slot knows what the others hold. Each answer says what its own partition holds now, and each sweep asks all of them in
//! turn, so this is behind by what other processes added within a few seconds.

use futures_util::future::join_all;
use tracing::warn;

use super::dispatch::Worker;
use super::partition::{PARTITIONS, Partition};
use crate::contract::StoreError;
use crate::metrics::{Dropped, count_dropped};

/// How many partitions' worth of one number.
struct Tally {
    each: Vec<u64>,
    total: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { each: vec![0; usize::from(PARTITIONS)], total: 0 }
    }
}

impl Tally {
    fn set(&mut self, partition: Partition, value: u64) {
        let each = &mut self.each[partition.index()];
        self.total = self.total - *each + value;
        *each = value;
    }
}

/// What is known of all partitions.
#[derive(Default)]
pub(super) struct Room {
    sessions: Tally,
    stream_bytes: Tally,
    retained_bytes: Tally,
    group_members: Tally,
    will_bytes: Tally,
    /// Messages that gave way because the store was full.
    cut: u64,
}

impl Room {
    pub(super) fn set_sessions(&mut self, partition: Partition, count: u64) {
        self.sessions.set(partition, count);
    }

    pub(super) fn set_stream_bytes(&mut self, partition: Partition, bytes: u64) {
        self.stream_bytes.set(partition, bytes);
    }

    pub(super) fn set_retained_bytes(&mut self, partition: Partition, bytes: u64) {
        self.retained_bytes.set(partition, bytes);
    }

    pub(super) fn set_group_members(&mut self, partition: Partition, count: u64) {
        self.group_members.set(partition, count);
    }

    pub(super) fn set_will_bytes(&mut self, partition: Partition, bytes: u64) {
        self.will_bytes.set(partition, bytes);
    }

    /// Bytes of all wills that wait to be published.
    pub(super) fn will_bytes(&self) -> u64 {
        self.will_bytes.total
    }

    /// Members of all groups.
    pub(super) fn group_members(&self) -> u64 {
        self.group_members.total
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.total
    }

    pub(super) fn retained_bytes(&self) -> u64 {
        self.retained_bytes.total
    }

    /// Bytes of retained messages in all other partitions.
    pub(super) fn retained_bytes_beside(&self, partition: Partition) -> u64 {
        self.retained_bytes.total - self.retained_bytes.each[partition.index()]
    }

    /// How many bytes are too many.
    fn excess(&self, bytes_max: u64) -> u64 {
        (self.stream_bytes.total + self.retained_bytes.total).saturating_sub(bytes_max)
    }
}

/// The heaviest stream of a partition.
struct Heaviest {
    partition: Partition,
    stream: Vec<u8>,
    bytes: u64,
    next: u64,
}

impl Worker {
    /// Cuts the oldest messages of whichever stream is the heaviest until all fit again (rule 5 of the contract).
    pub(super) async fn make_room(&self) -> Result<(), StoreError> {
        let bytes_max = self.bounds.message_bytes_max;
        let pressed = self.server.take_pressure();
        if (self.room.borrow().excess(bytes_max) == 0 && !pressed) || self.relieving.replace(true) {
            return Ok(());
        }
        let _relieving = Relieving(self);
        // A little more than must be, so that a full store is not asked for its heaviest stream with each message.
        let slack = bytes_max / 64;
        let mut tops = Vec::new();
        for top in join_all(Partition::all().map(|partition| self.heaviest(partition))).await {
            tops.push(top?);
        }
        let mut wanted = if pressed { slack } else { 0 };
        loop {
            let excess = self.room.borrow().excess(bytes_max).max(wanted);
            if excess == 0 {
                return Ok(());
            }
            let Some(at) = (0..tops.len()).max_by_key(|at| tops[*at].bytes).filter(|at| tops[*at].bytes > 0)
            else {
                return Ok(());
            };
            let others = tops.iter().enumerate().filter(|(other, _)| *other != at);
            let next = others.map(|(_, top)| top.bytes).max().unwrap_or_default().max(tops[at].next);
            let top = &tops[at];
            let enough = (excess + slack).min((top.bytes - next).max(1));
            let (partition, before) = (top.partition, top.bytes);
            self.cut(partition, &top.stream, enough).await?;
            tops[at] = self.heaviest(partition).await?;
            wanted = wanted.saturating_sub(before.saturating_sub(tops[at].bytes).max(1));
        }
    }

    async fn heaviest(&self, partition: Partition) -> Result<Heaviest, StoreError> {
        let mut answer = self.server.answer(self.server.call("heaviest", partition)).await?;
        answer.word()?;
        let (stream, bytes, next) = (answer.bytes()?, answer.number()?, answer.number()?);
        self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        Ok(Heaviest { partition, stream, bytes, next })
    }

    async fn cut(&self, partition: Partition, stream: &[u8], bytes: u64) -> Result<(), StoreError> {
        let call = self.server.call("cut", partition).arg(stream).arg(bytes);
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        let gone = answer.number()?;
        count_dropped(Dropped::StoreFull, gone);
        let mut room = self.room.borrow_mut();
        room.set_stream_bytes(partition, answer.number()?);
        let before = room.cut;
        room.cut += gone;
        // Anyone can fill the store, so it is said at the first message, the second, the fourth, and so on.
        if before.checked_ilog2() != room.cut.checked_ilog2() {
            warn!(
                messages = room.cut,
                "the store is full; its largest streams have lost their oldest messages"
            );
        }
        Ok(())
    }
}

/// Says that someone makes room, until dropped.
struct Relieving<'a>(&'a Worker);

impl Drop for Relieving<'_> {
    fn drop(&mut self) {
        self.0.relieving.set(false);
    }
}
