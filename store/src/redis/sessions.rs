//! What is asked of a session. The session's slot speaks first, with the fence; what it says that others must do is done
//! next, and written down there until it is (ADR 14 says why no order of crashes loses anything).

use futures_util::future::join_all;
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::session_record::{Cursor, Offset, SessionRecord, StreamKey};
use holdfast_wire::store::{DueWill, OPENER_WILL_S, Opened, Progress, SessionInfo, WillRecord};

use super::answer::{Answer, Word, write_owner, write_will};
use super::dispatch::Worker;
use super::partition::Partition;
use super::rejoining::{Coming, Place};
use super::server::Call;
use crate::contract::{Reply, StoreError};
use crate::metrics::{Dropped, count_dropped};

/// Whether a filter's stream is divided among the members of a group.
pub(super) fn is_group(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// The functions count in doubles; no stream will ever reach what they cannot tell apart.
pub(super) const OFFSET_MAX: Offset = 1 << 52;

/// A reader that has to move, as the session's slot said.
pub(super) struct Move {
    pub(super) filter: Box<str>,
    pub(super) reader: Vec<u8>,
    pub(super) mark: Offset,
}

impl Worker {
    pub(super) async fn open_session(
        &self,
        client: &str,
        owner: Owner,
        clean_start: bool,
        expiry_s: u32,
        will: Option<WillRecord>,
    ) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let has_room = self.room.borrow().sessions() < u64::from(self.bounds.sessions_max);
        let will = write_will(will.as_ref());
        let ask = |function: &str, has_room: bool| {
            let call = self.server.call(function, partition).arg(self.now()).arg(client);
            let call = call.arg(write_owner(owner)).arg(u8::from(clean_start)).arg(expiry_s);
            let call = call.arg(&*will).arg(u8::from(has_room)).arg(self.room_for_wills());
            self.server.answer(call.arg(OPENER_WILL_S * 1_000))
        };
        let mut answer = match ask("open", has_room).await {
            // A server without memory still opens what it holds: a device that cannot come back reads nothing, and frees nothing.
            Err(full @ StoreError::Full(_)) => {
                let mut answer = ask("reopen", false).await?;
                if answer.word()? == Word::Full {
                    return Err(full);
                }
                return self.read_opened(client, answer).await;
            }
            asked => asked?,
        };
        if answer.word()? == Word::Full {
            return Err(StoreError::Full(format!("it holds {} sessions", self.room.borrow().sessions())));
        }
        self.read_opened(client, answer).await
    }

    async fn read_opened(&self, client: &str, mut answer: Answer) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let (epoch, former) = (Epoch(answer.number()?), answer.owner()?);
        self.room.borrow_mut().set_sessions(partition, answer.number()?);
        if let Some(bytes) = answer.signed()? {
            self.room.borrow_mut().set_will_bytes(partition, bytes);
        }
        let will = match answer.number()? {
            0 => answer.bytes().map(|_| None)?,
            number => Some(DueWill { client: ClientId::new(client), number, will: answer.will()? }),
        };
        self.leave_all(partition, answer.list()?).await;
        let session = match answer.number()? {
            0 => None,
            _ => Some(self.read_session(client, epoch, answer).await?),
        };
        Ok(Reply::Opened(Opened { epoch, session, former, will }))
    }

    /// What a session that was there holds; its streams say where it stands.
    async fn read_session(
        &self,
        client: &str,
        epoch: Epoch,
        mut answer: Answer,
    ) -> Result<SessionRecord, StoreError> {
        let device = answer.signed()?;
        let mut record = read_progress(&answer.bytes()?)?;
        let mut held = answer.list()?;
        let mut places = Vec::new();
        while !held.is_empty() {
            let filter = held.text()?;
            record.subscriptions.push(held.subscription(filter.clone())?);
            let (reader, mark) = (held.bytes()?, held.number()?);
            if !reader.is_empty() {
                places.push(Place { filter, reader, mark });
            }
        }
        record.cursors.extend(self.read_on(client, epoch, Coming::Opened, places).await?);
        record.cursors.extend(device.map(|acked| Cursor { stream: StreamKey::Device(client.into()), acked }));
        record.subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        record.cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
        Ok(record)
    }

    pub(super) async fn unsubscribe(
        &self,
        client: &str,
        epoch: Epoch,
        filters: &[Box<str>],
    ) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let mut call = self.server.call("unsubscribe", partition).arg(self.now()).arg(client).arg(epoch.0);
        for filter in filters {
            call = call.arg(&**filter);
        }
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        self.leave_all(partition, answer.list()?).await;
        Ok(Reply::Done)
    }

    pub(super) async fn save(
        &self,
        client: &str,
        epoch: Epoch,
        progress: &Progress,
    ) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let call = self.server.call("save", partition).arg(self.now()).arg(client).arg(epoch.0);
        let call = call.arg(write_progress(progress)).arg(device_offset(client, progress));
        let mut answer = self.server.answer(with_cursors(call, progress)).await?;
        answer.word()?;
        let moves = read_moves(answer.list()?)?;
        if !answer.is_empty() {
            self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        }
        self.advance_all(client, epoch, moves).await;
        Ok(Reply::Done)
    }

    pub(super) async fn close(
        &self,
        client: &str,
        epoch: Epoch,
        expiry_s: u32,
        progress: &Progress,
        will: Option<&WillRecord>,
    ) -> Result<Reply, StoreError> {
        let partition = Partition::of_client(client);
        let call = self.server.call("close", partition).arg(self.now()).arg(client).arg(epoch.0);
        let call = call.arg(write_progress(progress)).arg(device_offset(client, progress)).arg(expiry_s);
        let call = call.arg(write_will(will)).arg(self.room_for_wills());
        let mut answer = self.server.answer(with_cursors(call, progress)).await?;
        answer.word()?;
        let (moves, leaves) = (read_moves(answer.list()?)?, answer.list()?);
        self.note_ended(partition, &mut answer)?;
        let (groups, others) = moves.into_iter().partition(|reader| is_group(&reader.filter));
        self.advance_all(client, epoch, others).await;
        self.tell_groups(client, epoch, groups).await;
        self.leave_all(partition, leaves).await;
        Ok(Reply::Done)
    }

    /// What a partition holds now that a session in it has come to rest or ended, and whether its will found no room.
    pub(super) fn note_ended(&self, partition: Partition, answer: &mut Answer) -> Result<(), StoreError> {
        let mut room = self.room.borrow_mut();
        room.set_sessions(partition, answer.number()?);
        room.set_stream_bytes(partition, answer.number()?);
        room.set_will_bytes(partition, answer.number()?);
        count_dropped(Dropped::Will, answer.number()?);
        Ok(())
    }

    /// Bytes that wills may still take.
    pub(super) fn room_for_wills(&self) -> u64 {
        (self.bounds.message_bytes_max / 2).saturating_sub(self.room.borrow().will_bytes())
    }

    pub(super) async fn lookup(&self, client: &str) -> Result<Reply, StoreError> {
        let call = self.server.call("lookup", Partition::of_client(client)).arg(self.now()).arg(client);
        let mut answer = self.server.answer(call).await?;
        if answer.word()? == Word::None {
            let begins = match answer.number()? {
                2 => {
                    let call = self.server.call("youth", Partition::of_client(client)).arg(self.now());
                    let mut young = self.server.answer(call).await?;
                    young.word()?;
                    young.number()?
                }
                begins => begins,
            };
            self.note_missing(begins);
            return Ok(Reply::Session(None));
        }
        let (owner, epoch, persistent) = (answer.owner()?, Epoch(answer.number()?), answer.number()? == 1);
        let (since_ms, rests_until_ms, pending) = (answer.number()?, answer.signed()?, answer.number()?);
        let mut subscriptions = Vec::new();
        let mut held = answer.list()?;
        while !held.is_empty() {
            let filter = held.text()?;
            subscriptions.push(held.subscription(filter)?);
            held.bytes()?;
            held.signed()?;
        }
        subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        Ok(Reply::Session(Some(SessionInfo {
            owner,
            epoch,
            persistent,
            subscriptions,
            since_ms,
            rests_until_ms: if owner.is_some() { None } else { Some(rests_until_ms.unwrap_or(u64::MAX)) },
            pending,
        })))
    }

    /// Tells the streams how far the session has read them. What does not reach them now is said again by the next save, and
    /// they keep for longer what nobody needs; a group hears it with the next claim.
    async fn advance_all(&self, client: &str, epoch: Epoch, moves: Vec<Move>) {
        join_all(moves.into_iter().map(|reader| self.advance(client, epoch, reader))).await;
    }

    async fn advance(&self, client: &str, epoch: Epoch, reader: Move) -> Result<(), StoreError> {
        let Move { filter, reader, mark } = reader;
        let partition = Partition::of_filter(&filter);
        let call = self.server.call("advance", partition).arg(self.now()).arg(&*filter).arg(reader);
        let mut answer = self.server.answer(call.arg(epoch.0).arg(mark)).await?;
        if answer.word()? == Word::None {
            return Ok(());
        }
        let stands_at = answer.number()?;
        self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        if stands_at < mark {
            let call = self.server.call("lower", Partition::of_client(client));
            self.server.answer(call.arg(client).arg(epoch.0).arg(&*filter).arg(stands_at)).await?;
        }
        Ok(())
    }

    /// Takes readers out of the streams that they have to leave (filter, reader and mark, one after the other), and says so to the
    /// slot that has it written down. What fails is done by a later sweep, of whichever process.
    pub(super) async fn leave_all(&self, partition: Partition, mut leaves: Answer) {
        let mut leaving = Vec::new();
        while let (Ok(filter), Ok(reader), Ok(mark)) = (leaves.text(), leaves.bytes(), leaves.number()) {
            leaving.push(self.leave(Move { filter, reader, mark }));
        }
        let left: Vec<_> = join_all(leaving).await.into_iter().filter_map(Result::ok).collect();
        if left.is_empty() {
            return;
        }
        let mut call = self.server.call("done", partition);
        for Move { filter, reader, mark } in left {
            call = call.arg(&*filter).arg(reader).arg(mark);
        }
        // Lost, it is done twice, which does no harm.
        let _ = self.server.answer(call).await;
    }

    async fn leave(&self, leaving: Move) -> Result<Move, StoreError> {
        let Move { filter, reader, mark } = &leaving;
        let partition = Partition::of_filter(filter);
        let call = self.server.call("leave", partition).arg(self.now()).arg(&**filter);
        let mut answer = self.server.answer(call.arg(&**reader).arg(*mark)).await?;
        answer.word()?;
        self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
        Ok(leaving)
    }
}

/// What only the session's owner understands, as a session record without the rest; nothing for nothing.
pub(super) fn write_progress(progress: &Progress) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !progress.received.is_empty() || !progress.inflight.is_empty() {
        let (received, inflight) = (progress.received.clone(), progress.inflight.clone());
        SessionRecord { received, inflight, ..SessionRecord::default() }.encode(&mut bytes);
    }
    bytes
}

fn read_progress(bytes: &[u8]) -> Result<SessionRecord, StoreError> {
    if bytes.is_empty() {
        return Ok(SessionRecord::default());
    }
    SessionRecord::decode(bytes).map_err(|why| StoreError::Unreadable(format!("a session's progress: {why}")))
}

/// How far a session has read its own stream; nothing if it does not say.
fn device_offset(client: &str, progress: &Progress) -> String {
    let own = progress.cursors.iter().filter_map(|cursor| match &cursor.stream {
        StreamKey::Device(of) if **of == *client => Some(cursor.acked),
        _ => None,
    });
    own.max().map(|offset| offset.to_string()).unwrap_or_default()
}

fn with_cursors(mut call: Call, progress: &Progress) -> Call {
    for cursor in &progress.cursors {
        if let StreamKey::Filter(filter) = &cursor.stream {
            call = call.arg(&**filter).arg(cursor.acked.min(OFFSET_MAX));
        }
    }
    call
}

pub(super) fn read_moves(mut list: Answer) -> Result<Vec<Move>, StoreError> {
    let mut moves = Vec::new();
    while !list.is_empty() {
        moves.push(Move { filter: list.text()?, reader: list.bytes()?, mark: list.number()? });
    }
    Ok(moves)
}
