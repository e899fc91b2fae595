//! Clearing away what has ended, and finishing what others began: a turn over all partitions, for ever.
//!
//! Every process that uses the store does it. Two that meet in a partition find different things to do, since whatever one
//! was handed is not handed out again for some seconds.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::dispatch::Worker;
use super::partition::{PARTITIONS, Partition};
use crate::contract::StoreError;
use crate::metrics::{Dropped, count_dropped};

/// Between two steps of a turn.
const STEP_EVERY: Duration = Duration::from_secs(1);
/// Partitions in a step: a turn takes four seconds.
const STEP_PARTITIONS: u16 = PARTITIONS / 4;
/// What one call clears away at most, so that others are served between.
const CLEARED_MAX: u64 = 64;
/// Calls to one partition in a step at most.
const CALLS_MAX: u32 = 16;

impl Worker {
    /// Asks all partitions what they hold.
    pub(super) async fn learn(&self) -> Result<(), StoreError> {
        for swept in join_all(Partition::all().map(|partition| self.sweep(partition))).await {
            swept?;
        }
        Ok(())
    }

    /// Clears away all that has ended by now.
    pub(super) async fn sweep_all(&self) -> Result<(), StoreError> {
        let mut due: Vec<_> = Partition::all().collect();
        while !due.is_empty() {
            let swept = join_all(due.iter().map(|partition| self.sweep(*partition))).await;
            let mut left = Vec::new();
            for (partition, has_more) in due.into_iter().zip(swept) {
                if has_more? {
                    left.push(partition);
                }
            }
            due = left;
        }
        Ok(())
    }

    /// Steps for ever. What fails, or has no answer by the deadline, is due again when the next turn comes round.
    pub(super) async fn keep_sweeping(self: Rc<Self>) {
        let mut next = 0;
        loop {
            sleep(STEP_EVERY).await;
            let step = (next..next + STEP_PARTITIONS).map(|number| self.sweep_often(Partition(number)));
            let swept = async { Ok(join_all(step).await) };
            // A connection may be lost without a word, and would be waited for as long as it has commands.
            let _ = self.by(Instant::now() + self.deadline, swept).await;
            let _ = self.by(Instant::now() + self.deadline, self.make_room()).await;
            next = (next + STEP_PARTITIONS) % PARTITIONS;
        }
    }

    async fn sweep_often(&self, partition: Partition) -> Result<(), StoreError> {
        for _ in 0..CALLS_MAX {
            if !self.sweep(partition).await? {
                break;
            }
        }
        Ok(())
    }

    /// Clears away some of what has ended in a partition. Gives whether there is more.
    async fn sweep(&self, partition: Partition) -> Result<bool, StoreError> {
        let call = self.server.call("sweep", partition).arg(self.now()).arg(CLEARED_MAX);
        let mut answer = self.server.answer(call.arg(self.bounds.stream.age_ms_max)).await?;
        answer.word()?;
        let (sessions, streams, retained) = (answer.number()?, answer.number()?, answer.number()?);
        let (members, wills) = (answer.number()?, answer.number()?);
        {
            let mut room = self.room.borrow_mut();
            room.set_sessions(partition, sessions);
            room.set_stream_bytes(partition, streams);
            room.set_retained_bytes(partition, retained);
            room.set_group_members(partition, members);
            room.set_will_bytes(partition, wills);
        }
        let has_more = answer.number()? == 1;
        let leaves = answer.list()?;
        count_dropped(Dropped::TooOld, answer.number()?);
        let rests = answer.list()?;
        self.leave_all(partition, leaves).await;
        self.tell_groups_again(rests).await?;
        Ok(has_more)
    }
}
