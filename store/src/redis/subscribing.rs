//! What makes a session read streams: a subscribe, and writing back a session that the server has lost.
//!
//! Both take the same three steps. The session's slot gives out readers and notes them as doubtful; each joins its stream; the session
//! takes them up. Whoever dies between leaves readers that leave by themselves.

use futures_util::future::join_all;
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::session_record::{Cursor, Offset, SessionRecord, StreamKey, SubscriptionRecord};

use super::answer::{Answer, Word, write_options, write_owner, write_will};
use super::dispatch::Worker;
use super::partition::Partition;
use super::rejoining::{Coming, Place};
use super::server::Call;
use super::sessions::{is_group, write_progress};
use crate::contract::{Progress, Reply, StoreError, WillRecord};

/// Epochs are smaller. The functions count in doubles, which are exact below 2^53, and all that are given out later have to be larger than
/// one that is written back: a year of microseconds is left for those.
const EPOCH_END: u64 = (1 << 53) - (1 << 45);

/// A stream that a session has newly joined.
pub(super) struct Joined {
    pub(super) reader: Vec<u8>,
    pub(super) mark: Offset,
}

/// A session as its owner knows it.
pub(super) struct Kept {
    pub(super) client: ClientId,
    pub(super) owner: Owner,
    pub(super) epoch: Epoch,
    pub(super) expiry_s: u32,
    pub(super) will: Option<WillRecord>,
    pub(super) session: SessionRecord,
}

impl Worker {
    pub(super) async fn subscribe(
        &self,
        client: &str,
        epoch: Epoch,
        subscriptions: Vec<SubscriptionRecord>,
    ) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let subscriptions = last_of_each(subscriptions);
        let ask = || self.server.call("subscribe", partition).arg(self.now()).arg(client).arg(epoch.0);
        let (mut answer, joined) = self.join_first(&subscriptions, epoch, false, ask).await?;
        let mut stands = answer.list()?;
        self.leave_all(partition, answer.list()?).await;
        let mut cursors = Vec::new();
        while !stands.is_empty() {
            let (filter, reader, mark) = (stands.text()?, stands.bytes()?, stands.number()?);
            let is_new = find_joined(&subscriptions, &joined, &filter).is_some();
            // A member that knew of more than its group's stream has moved on there, of which the session has heard nothing.
            let acked = if is_new || !is_group(&filter) {
                mark
            } else {
                self.member_stands_at(&filter, &reader).await?.map_or(mark, |base| base.max(mark))
            };
            cursors.push(Cursor { stream: StreamKey::Filter(filter), acked });
        }
        Ok(Reply::Subscribed(cursors))
    }

    pub(super) async fn restore(&self, kept: Kept) -> Result<Reply, StoreError> {
        let Kept { client, owner, epoch, expiry_s, will, session } = kept;
        if epoch.0 == 0 || epoch.0 >= EPOCH_END {
            // Never one that was given out here, so whoever has it asks for another, and not for this once more.
            return Err(StoreError::Fenced);
        }
        let partition = Partition::of_client(&client);
        let has_room = self.room.borrow().sessions() < u64::from(self.bounds.sessions_max);
        let SessionRecord { subscriptions, cursors: _, received, inflight } = session;
        let subscriptions = last_of_each(subscriptions);
        let progress = write_progress(&Progress { cursors: Vec::new(), received, inflight });
        let will = write_will(will.as_ref());
        let ask = || {
            let call = self.server.call("restore", partition).arg(self.now()).arg(&*client);
            let call = call.arg(write_owner(owner)).arg(epoch.0).arg(expiry_s).arg(&*will);
            call.arg(&*progress).arg(u8::from(has_room))
        };
        let (mut answer, joined) = self.join_first(&subscriptions, epoch, true, ask).await?;
        let mut stands = answer.list()?;
        self.leave_all(partition, answer.list()?).await;
        self.room.borrow_mut().set_sessions(partition, answer.number()?);
        let device = answer.signed()?;
        let (mut cursors, mut places) = (Vec::new(), Vec::new());
        while !stands.is_empty() {
            let (filter, reader, mark) = (stands.text()?, stands.bytes()?, stands.number()?);
            match find_joined(&subscriptions, &joined, &filter) {
                Some(new) => {
                    cursors.push(Cursor { stream: StreamKey::Filter(filter), acked: new.mark });
                }
                None => places.push(Place { filter, reader, mark }),
            }
        }
        cursors.extend(self.read_on(&client, epoch, Coming::WrittenBack, places).await?);
        cursors.extend(device.map(|acked| Cursor { stream: StreamKey::Device((*client).into()), acked }));
        Ok(Reply::Subscribed(cursors))
    }

    /// Asks the session's slot, and once more with the streams joined that it wants to be joined. Gives its answer, and by their places
    /// among the subscriptions the streams that are newly joined. `comes_back`: it has read them before.
    async fn join_first(
        &self,
        subscriptions: &[SubscriptionRecord],
        epoch: Epoch,
        comes_back: bool,
        ask: impl Fn() -> Call,
    ) -> Result<(Answer, Vec<Option<Joined>>), StoreError> {
        let mut joined: Vec<Option<Joined>> = subscriptions.iter().map(|_| None).collect();
        for _ in 0..2 {
            let mut call = ask();
            for (subscription, joined) in subscriptions.iter().zip(&joined) {
                let (reader, mark) = joined.as_ref().map_or((&[][..], 0), |new| (&*new.reader, new.mark));
                call = call.arg(&*subscription.filter).arg(write_options(subscription)).arg(reader).arg(mark);
            }
            let mut answer = self.server.answer(call).await?;
            match answer.word()? {
                Word::Join => {}
                Word::Full => {
                    let sessions = self.room.borrow().sessions();
                    return Err(StoreError::Full(format!("it holds {sessions} sessions")));
                }
                _ => return Ok((answer, joined)),
            }
            let mut joins = Vec::new();
            while !answer.is_empty() {
                let (filter, reader) = (answer.text()?, answer.bytes()?);
                let at = subscriptions.iter().position(|subscription| subscription.filter == filter);
                let at = at.ok_or_else(|| StoreError::Unreadable(format!("nobody asked for {filter}")))?;
                let join = self.join(filter, reader, epoch, comes_back);
                joins.push(async move { (at, join.await) });
            }
            for (at, new) in join_all(joins).await {
                joined[at] = Some(new?);
            }
        }
        Err(StoreError::Unavailable("the session changed meanwhile".to_owned()))
    }

    /// One more reader of a stream. `comes_back`: it has read it before.
    pub(super) async fn join(
        &self,
        filter: Box<str>,
        reader: Vec<u8>,
        epoch: Epoch,
        comes_back: bool,
    ) -> Result<Joined, StoreError> {
        let call = self.server.call("join", Partition::of_filter(&filter)).arg(self.now());
        let call = call.arg(&*filter).arg(&*reader).arg(epoch.0).arg(u8::from(comes_back));
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        Ok(Joined { reader, mark: answer.number()? })
    }

    async fn member_stands_at(&self, filter: &str, reader: &[u8]) -> Result<Option<Offset>, StoreError> {
        let call = self.server.call("reads", Partition::of_filter(filter)).arg(filter).arg(reader);
        let mut answer = self.server.answer(call).await?;
        Ok(if answer.word()? == Word::Ok { Some(answer.number()?) } else { None })
    }
}

fn find_joined<'a>(
    subscriptions: &[SubscriptionRecord],
    joined: &'a [Option<Joined>],
    filter: &str,
) -> Option<&'a Joined> {
    let at = subscriptions.iter().position(|subscription| &*subscription.filter == filter)?;
    joined[at].as_ref()
}

/// Of subscriptions with the same filter the last one counts.
fn last_of_each(mut subscriptions: Vec<SubscriptionRecord>) -> Vec<SubscriptionRecord> {
    subscriptions.reverse();
    subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
    subscriptions.dedup_by(|a, b| a.filter == b.filter);
    subscriptions
}

#[cfg(test)]
mod tests {
    use holdfast_wire::mqtt::QoS;

    use super::*;

    #[test]
    fn of_subscriptions_to_the_same_filter_the_last_one_counts() {
        let subscription = |filter: &str, identifier| SubscriptionRecord {
            filter: filter.into(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier,
        };
        let kept = last_of_each(vec![subscription("b", 1), subscription("a", 2), subscription("b", 3)]);
        assert_eq!(kept, [subscription("a", 2), subscription("b", 3)]);
    }
}
