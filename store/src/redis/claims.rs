//! What members of a shared subscription's group claim of its stream, and what is on hold in it.
//!
//! The session's slot speaks first, with the fence, and says under which name the session reads the stream and where its mark there is. Who comes to rest
//! tells its groups so; until all have heard, the session's slot has it written down, and whoever sweeps tells them again.

use futures_util::future::join_all;
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::session_record::Offset;

use super::answer::{Answer, Word};
use super::dispatch::Worker;
use super::partition::Partition;
use super::sessions::{Move, OFFSET_MAX, is_group, read_moves};
use super::streams::read_messages;
use crate::contract::{Reply, StoreError};

/// What [`Request::Claim`](crate::contract::Request::Claim) asks for, of whichever member.
pub(super) struct Wanted {
    pub(super) after: Offset,
    pub(super) messages_max: u32,
    pub(super) bytes_max: u32,
}

impl Worker {
    pub(super) async fn claim(
        &self,
        client: &str,
        epoch: Epoch,
        filter: &str,
        wanted: Wanted,
    ) -> Result<Reply, StoreError> {
        let nothing = || Reply::Messages { messages: Vec::new(), end: 0 };
        let call = self.server.call("member", Partition::of_client(client)).arg(self.now());
        let mut member = self.server.answer(call.arg(client).arg(epoch.0).arg(filter)).await?;
        if member.word()? == Word::None {
            return Ok(nothing());
        }
        let (reader, mark) = (member.bytes()?, member.number()?);
        let call = self.server.call("claim", Partition::of_filter(filter)).arg(self.now()).arg(filter);
        let call = call.arg(reader).arg(epoch.0).arg(mark).arg(wanted.after.min(OFFSET_MAX));
        let mut answer = self.server.answer(call.arg(wanted.messages_max).arg(wanted.bytes_max)).await?;
        // A stream that was lost is read again by who resumes its session, or writes it back.
        if answer.word()? == Word::None { Ok(nothing()) } else { read_messages(answer) }
    }

    pub(super) async fn end_hold(&self, filter: &str, at: Offset, taken: bool) -> Result<Reply, StoreError> {
        let partition = Partition::of_filter(filter);
        let call = self.server.call("end_hold", partition).arg(filter).arg(at.min(OFFSET_MAX));
        let mut answer = self.server.answer(call.arg(u8::from(taken))).await?;
        answer.word()?;
        self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        Ok(Reply::Done)
    }

    /// Tells the groups of a session that it rests, and says so to its slot.
    pub(super) async fn tell_groups(&self, client: &str, epoch: Epoch, moves: Vec<Move>) {
        let groups = moves.into_iter().filter(|reader| is_group(&reader.filter));
        let told = join_all(groups.map(|member| self.rest_in(epoch, member))).await;
        if told.is_empty() || told.iter().any(Result::is_err) {
            return;
        }
        let call = self.server.call("rested", Partition::of_client(client));
        // Lost, it is done twice, which does no harm.
        let _ = self.server.answer(call.arg(client).arg(epoch.0)).await;
    }

    /// The same for all that a sweep has found: client, epoch and groups, one after the other.
    pub(super) async fn tell_groups_again(&self, mut rests: Answer) -> Result<(), StoreError> {
        let mut sessions = Vec::new();
        while !rests.is_empty() {
            let (client, epoch) = (ClientId::new(&rests.text()?), Epoch(rests.number()?));
            sessions.push((client, epoch, read_moves(rests.list()?)?));
        }
        let told = sessions.into_iter().map(|(client, epoch, moves)| async move {
            self.tell_groups(&client, epoch, moves).await;
        });
        join_all(told).await;
        Ok(())
    }

    async fn rest_in(&self, epoch: Epoch, member: Move) -> Result<(), StoreError> {
        let Move { filter, reader, mark } = member;
        let partition = Partition::of_filter(&filter);
        let call = self.server.call("rest", partition).arg(self.now()).arg(&*filter).arg(reader);
        let mut answer = self.server.answer(call.arg(epoch.0).arg(mark)).await?;
        answer.word()?;
        self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        Ok(())
    }
}
