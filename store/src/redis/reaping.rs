//! What dead nodes leave: sessions that are taken from them, and wills that wait until someone has published them; and sessions that expired.

use futures_util::future::join_all;
use holdfast_wire::ids::{ClientId, Epoch};
use tokio::time::timeout;

use super::dispatch::Worker;
use super::partition::{PARTITIONS, Partition};
use super::sessions::read_moves;
use crate::contract::{DueWill, EXPIRED_ASKED_S, ExpiredSession, Reply, StoreError, WILL_AGAIN_S};

/// Partitions that are asked at once for sessions that expired.
const EXPIRED_WIDTH: u16 = 64;

impl Worker {
    pub(super) async fn reap(&self, client: &str, epoch: Epoch) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let call = self.server.call("reap", partition).arg(self.now()).arg(client).arg(epoch.0);
        let mut answer = self.server.answer(call.arg(self.room_for_wills())).await?;
        answer.word()?;
        let (moves, leaves) = (read_moves(answer.list()?)?, answer.list()?);
        self.note_ended(partition, &mut answer)?;
        let epoch = Epoch(answer.number()?);
        // A client that is back meanwhile has told its groups of a later epoch, so they pass this over.
        self.tell_groups(client, epoch, moves).await;
        self.leave_all(partition, leaves).await;
        Ok(Reply::Done)
    }

    /// Asks all partitions how many there are, and then those that have some for as many as are wanted: one that is given out and not
    /// published would stay away for a while. Begins behind where it ended last time, so that no partition waits for ever. One that
    /// nobody serves keeps its own and no others.
    pub(super) async fn due_wills(&self, wills_max: usize) -> Result<Reply, StoreError> {
        let first = self.next_will_partition.get();
        let in_turn = || (0..PARTITIONS).map(|number| Partition((first + number) % PARTITIONS));
        let (mut left, mut failed) = (wills_max as u64, None);
        let mut shares = Vec::new();
        let counts = in_turn().map(|partition| self.in_time(self.count_wills(partition)));
        for (partition, due) in in_turn().zip(join_all(counts).await) {
            let share = due.unwrap_or_else(|why| {
                failed = Some(why);
                0
            });
            let share = share.min(left);
            left -= share;
            if share > 0 {
                shares.push(self.in_time(self.wills_of(partition, share)));
                self.next_will_partition.set((partition.0 + 1) % PARTITIONS);
            }
        }
        let mut wills = Vec::new();
        for given in join_all(shares).await {
            match given {
                Ok(given) => wills.extend(given),
                Err(why) => failed = Some(why),
            }
        }
        match failed {
            // Those that were given are not given again for a while.
            Some(why) if wills.is_empty() => Err(why),
            _ => Ok(Reply::Wills(wills)),
        }
    }

    /// An answer while there is still time for what the other partitions answered to be passed on.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let no_answer = || Err(StoreError::Unavailable("a part of it does not answer".to_owned()));
        timeout(self.deadline / 3, answer).await.unwrap_or_else(|_| no_answer())
    }

    async fn count_wills(&self, partition: Partition) -> Result<u64, StoreError> {
        let mut answer = self.server.answer(self.server.call("wills_due", partition).arg(self.now())).await?;
        answer.word()?;
        answer.number()
    }

    async fn wills_of(&self, partition: Partition, wills_max: u64) -> Result<Vec<DueWill>, StoreError> {
        let call = self.server.call("wills", partition).arg(self.now());
        let mut answer = self.server.answer(call.arg(wills_max).arg(WILL_AGAIN_S * 1_000)).await?;
        answer.word()?;
        let mut wills = Vec::new();
        while !answer.is_empty() {
            let (number, client) = (answer.number()?, ClientId::new(&answer.text()?));
            wills.push(DueWill { client, number, will: answer.will()? });
        }
        Ok(wills)
    }

    /// Asks partition after partition, several at once, until there are as many as are wanted. What one answers is taken from it, so no more are asked
    /// for than there is room for. One that nobody serves ends this question, and the next begins behind it.
    pub(super) async fn take_expired(&self, sessions_max: usize) -> Result<Reply, StoreError> {
        let (mut told, mut asked, mut failed) = (Vec::new(), 0, None);
        while asked < PARTITIONS && told.len() < sessions_max && failed.is_none() {
            let first = self.next_expired_partition.get();
            let left = sessions_max - told.len();
            let width = EXPIRED_WIDTH.min(PARTITIONS - asked).min(u16::try_from(left).unwrap_or(u16::MAX));
            let share = left / usize::from(width);
            let batch = (0..width).map(|number| Partition((first + number) % PARTITIONS));
            let answers = batch.map(|partition| self.in_time(self.expired_of(partition, share)));
            for answer in join_all(answers).await {
                match answer {
                    Ok(sessions) => told.extend(sessions),
                    Err(why) => failed = Some(why),
                }
            }
            self.next_expired_partition.set((first + width) % PARTITIONS);
            asked += width;
        }
        match failed {
            // Those that were told are not told again.
            Some(why) if told.is_empty() => Err(why),
            _ => Ok(Reply::Expired(told)),
        }
    }

    async fn expired_of(
        &self,
        partition: Partition,
        sessions_max: usize,
    ) -> Result<Vec<ExpiredSession>, StoreError> {
        let call = self.server.call("take_expired", partition).arg(self.now());
        let call = call.arg(sessions_max).arg(EXPIRED_ASKED_S * 1_000);
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        let mut sessions = Vec::new();
        while !answer.is_empty() {
            let (client, epoch) = (ClientId::new(&answer.text()?), Epoch(answer.number()?));
            sessions.push(ExpiredSession { client, epoch, at_ms: answer.number()? });
        }
        Ok(sessions)
    }

    pub(super) async fn will_published(&self, client: &str, number: u64) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let call = self.server.call("published", partition).arg(client).arg(number);
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        self.room.borrow_mut().set_will_bytes(partition, answer.number()?);
        Ok(Reply::Done)
    }
}
