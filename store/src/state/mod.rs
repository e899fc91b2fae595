//! What each request does: the one mind behind the memory and the embedded store.
//!
//! Single-threaded, without a clock or a disk of its own: the time is an argument, and durable changes are told to a
//! [`Journal`] in the order in which they happen. Start with [`State::apply`].

mod change;
mod deadlines;
mod nodes;
mod readers;
mod restore;
mod retained;
pub(crate) mod session_row;
mod sessions;
mod streams;
mod weights;

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, StreamKey, SubscriptionRecord};
use holdfast_wire::store::{Opened, Progress, Reply, Request, SessionInfo, StoreError, WillRecord};
use tracing::warn;

pub(crate) use self::change::{Change, Journal, NoJournal, StreamRow};
use self::deadlines::{Deadlines, Ending};
use self::nodes::Nodes;
pub(crate) use self::restore::{Restore, RestoreError};
use self::retained::RetainedMessages;
pub(crate) use self::retained::literal_prefix;
use self::sessions::{Details, Session, SessionTable, rest_ends_ms};
use self::streams::Streams;
use crate::contract::Bounds;

/// How many things that ended are cleared away with each request, at most: the rest waits for the next ones, and is
/// treated as gone meanwhile.
const SWEEP_MAX: usize = 16;

/// Everything a store knows.
pub(crate) struct State {
    bounds: Bounds,
    sessions: SessionTable,
    nodes: Nodes,
    streams: Streams,
    retained: RetainedMessages,
    deadlines: Deadlines,
    /// Messages that gave way to newer ones because the store was full.
    cut_for_room: u64,
    next_epoch: u64,
    epoch_end: u64,
}

impl State {
    /// Empty; issues epochs from `epochs`.
    pub(crate) fn new(bounds: Bounds, epochs: std::ops::Range<u64>) -> Self {
        Self {
            bounds,
            sessions: SessionTable::new(),
            nodes: Nodes::default(),
            streams: Streams::new(bounds.stream),
            retained: RetainedMessages::default(),
            deadlines: Deadlines::default(),
            cut_for_room: 0,
            next_epoch: epochs.start,
            epoch_end: epochs.end,
        }
    }

    /// Whether carrying out `request` may change something durable.
    pub(crate) fn is_durable(&self, request: &Request) -> bool {
        match request {
            Request::Open { client, expiry_s, .. } => {
                *expiry_s > 0 || self.sessions.find(client).is_some_and(Session::is_durable)
            }
            Request::Subscribe { client, .. }
            | Request::Unsubscribe { client, .. }
            | Request::Save { client, .. }
            | Request::Close { client, .. } => self.sessions.find(client).is_some_and(Session::is_durable),
            Request::Append { .. } | Request::Retain { .. } => true,
            Request::Lookup { .. }
            | Request::Read { .. }
            | Request::ReadRetained { .. }
            | Request::DurableFilters
            | Request::RenewLease { .. }
            | Request::DeadNodes
            | Request::Bury { .. }
            | Request::Reap { .. }
            | Request::DueWills { .. }
            | Request::WillPublished { .. }
            | Request::TakeLock { .. }
            | Request::Restore { .. }
            | Request::Sessions { .. }
            | Request::ChangeGroup { .. }
            | Request::DropGroup { .. }
            | Request::GroupMembers { .. } => false,
        }
    }

    /// Carries out a request.
    pub(crate) fn apply(
        &mut self,
        request: Request,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        match request {
            Request::Open { client, owner, clean_start, expiry_s, will } => {
                self.open(client, owner, clean_start, expiry_s, will, now_ms, journal)
            }
            Request::Subscribe { client, epoch, subscriptions } => {
                self.subscribe(&client, epoch, subscriptions, now_ms, journal)
            }
            Request::Unsubscribe { client, epoch, filters } => {
                self.unsubscribe(&client, epoch, &filters, now_ms, journal)
            }
            Request::Save { client, epoch, progress } => self.save(&client, epoch, progress, now_ms, journal),
            Request::Close { client, epoch, expiry_s, progress } => {
                self.close(&client, epoch, expiry_s, progress, now_ms, journal)
            }
            Request::Lookup { client } => Ok(Reply::Session(self.lookup(&client, now_ms))),
            Request::Append { streams, message, collapse_key: _ } => {
                self.append(streams, &message, now_ms, journal)
            }
            Request::Read { stream, after, messages_max, bytes_max } => {
                let (messages, end) = self
                    .streams
                    .read(&stream, after, messages_max, bytes_max)
                    .unwrap_or_else(|| (Vec::new(), self.end_without_stream(&stream)));
                Ok(Reply::Messages { messages, end })
            }
            Request::Retain { message } => self.retain(message, journal),
            Request::ReadRetained { filter, after, messages_max } => {
                Ok(Reply::Retained(self.retained.read(&filter, after.as_deref(), messages_max, now_ms)))
            }
            Request::DurableFilters => Ok(Reply::Filters(self.streams.filters())),
            Request::RenewLease { node, for_ms } => {
                self.nodes.renew(node, now_ms.saturating_add(u64::from(for_ms)), now_ms);
                Ok(Reply::Renewed { known: true })
            }
            Request::DeadNodes => Ok(Reply::Nodes(self.nodes.dead(now_ms))),
            Request::Bury { .. }
            | Request::Reap { .. }
            | Request::DueWills { .. }
            | Request::WillPublished { .. }
            | Request::TakeLock { .. }
            | Request::Restore { .. }
            | Request::Sessions { .. }
            | Request::ChangeGroup { .. }
            | Request::DropGroup { .. }
            | Request::GroupMembers { .. } => Err(StoreError::Unavailable("not carried out yet".to_owned())),
        }
    }

    /// Clears away some of what has ended.
    pub(crate) fn sweep(&mut self, now_ms: u64, journal: &mut impl Journal) {
        for _ in 0..SWEEP_MAX {
            match self.deadlines.pop_due(now_ms) {
                Some(Ending::Session(client)) => self.discard(&client, journal),
                Some(Ending::OldestOf(key)) => {
                    self.streams.cut_aged(&key, now_ms, &mut self.deadlines, journal);
                }
                Some(Ending::Retained(topic)) => self.retained.remove(&topic, &mut self.deadlines, journal),
                None => return,
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of `Request::Open`, the time and the journal")]
    fn open(
        &mut self,
        client: ClientId,
        owner: Owner,
        clean_start: bool,
        expiry_s: u32,
        will: Option<WillRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        if self.next_epoch == self.epoch_end {
            return Err(StoreError::Unavailable(
                "this run's epochs are used up; restart the store".to_owned(),
            ));
        }
        let found = self.sessions.find(&client);
        if found.is_none() && self.sessions.len() >= self.bounds.sessions_max as usize {
            return Err(StoreError::Full(format!("it holds {} sessions", self.sessions.len())));
        }
        // A connected session without expiry ended with the connection that is being taken over.
        let resumes =
            found.is_some_and(|session| session.is_persistent() && !session.is_over(now_ms)) && !clean_start;
        let former =
            found.and_then(|session| self.nodes.owner(session.owner)).filter(|former| *former != owner);
        let (found_any, mut details) = (found.is_some(), None);
        if resumes {
            details = self.sessions.find_mut(&client).and_then(|session| session.details.take());
            self.release_owner(&client);
        } else if found_any {
            self.discard(&client, journal);
        }
        let epoch = self.next_epoch;
        self.next_epoch += 1;

        let mut resumed = None;
        if let Some(details) = &mut details {
            let rested = details.rests_until_ms.is_some();
            self.clear_deadline(&client, details.rests_until_ms.take());
            for Cursor { stream, acked } in &mut details.record.cursors {
                *acked = self.streams.resume(stream, *acked, rested, expiry_s > 0, journal);
            }
            resumed = Some(details.record.clone());
        } else if expiry_s > 0 || will.is_some() {
            details = Some(Box::default());
        }
        if let Some(details) = &mut details {
            details.expiry_s = expiry_s;
            details.will = will;
            if resumed.is_none() && expiry_s > 0 {
                let stream = StreamKey::Device(client.as_str().into());
                details.record.cursors.push(Cursor { stream, acked: 0 });
            }
            if expiry_s > 0 {
                record_session(&client, epoch, details, journal);
            } else if resumed.is_some() {
                // It ends with this connection, whichever way that ends.
                journal.record(|| Change::SessionGone(client.clone()));
            }
        }
        let owner = self.nodes.take(owner);
        self.sessions.insert(client, Session { epoch, owner, details });
        Ok(Reply::Opened(Opened { epoch: Epoch(epoch), session: resumed, former }))
    }

    fn subscribe(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        subscriptions: Vec<SubscriptionRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let Some(details) = session.details.as_mut().filter(|details| details.expiry_s > 0) else {
            return Ok(Reply::Subscribed(Vec::new()));
        };
        let rests = details.rests_until_ms.is_some();
        let mut stands = Vec::new();
        for subscription in subscriptions {
            let stream = StreamKey::Filter(subscription.filter.clone());
            let reads = subscription.qos > QoS::AtMostOnce;
            match details.find_subscription(&subscription.filter) {
                Ok(at) => details.record.subscriptions[at] = subscription,
                Err(at) => details.record.subscriptions.insert(at, subscription),
            }
            match details.find_cursor(&stream) {
                Ok(at) if reads => {
                    let acked = self.streams.stands_at(&stream, details.record.cursors[at].acked);
                    stands.push(Cursor { stream, acked });
                }
                Ok(at) => {
                    let left = details.record.cursors.remove(at);
                    self.streams.leave(&left.stream, left.acked, rests, &mut self.deadlines, journal);
                }
                Err(at) if reads => {
                    let (mark, acked) = self.streams.join(&stream, rests, journal);
                    details.record.cursors.insert(at, Cursor { stream: stream.clone(), acked: mark });
                    stands.push(Cursor { stream, acked });
                }
                Err(_) => {}
            }
        }
        record_session(client, epoch.0, details, journal);
        Ok(Reply::Subscribed(stands))
    }

    fn unsubscribe(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        filters: &[Box<str>],
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let persistent = session.is_persistent();
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        let rests = details.rests_until_ms.is_some();
        for filter in filters {
            if let Ok(at) = details.find_subscription(filter) {
                details.record.subscriptions.remove(at);
            }
            if let Some(left) = details.take_cursor(&StreamKey::Filter(filter.clone())) {
                self.streams.leave(&left.stream, left.acked, rests, &mut self.deadlines, journal);
            }
        }
        if persistent {
            record_session(client, epoch.0, details, journal);
        }
        Ok(Reply::Done)
    }

    fn save(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        progress: Progress,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let persistent = session.is_persistent();
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        advance(details, progress, &mut self.streams, &mut self.deadlines, journal);
        if persistent {
            record_session(client, epoch.0, details, journal);
        }
        Ok(Reply::Done)
    }

    fn close(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        expiry_s: u32,
        progress: Progress,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        // A session that was opened without an expiry cannot get one at its end (MQTT-3.1.2.11.2), nor has it anything to keep.
        if expiry_s == 0 || !session.is_persistent() {
            self.discard(client, journal);
            return Ok(Reply::Done);
        }
        self.nodes.release(std::mem::take(&mut session.owner));
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        advance(details, progress, &mut self.streams, &mut self.deadlines, journal);
        let until = rest_ends_ms(now_ms, expiry_s);
        let former = details.rests_until_ms.replace(until);
        if former.is_none() {
            for cursor in &details.record.cursors {
                self.streams.rest(&cursor.stream, cursor.acked, journal);
            }
        }
        details.expiry_s = expiry_s;
        details.will = None;
        record_session(client, epoch.0, details, journal);
        self.clear_deadline(client, former);
        self.set_deadline(client, until);
        Ok(Reply::Done)
    }

    fn lookup(&self, client: &ClientId, now_ms: u64) -> Option<SessionInfo> {
        let session = self.sessions.find(client).filter(|session| !session.is_over(now_ms))?;
        let persistent = session.is_persistent();
        let subscriptions = match &session.details {
            Some(details) if persistent => details.record.subscriptions.clone(),
            _ => Vec::new(),
        };
        Some(SessionInfo {
            owner: self.nodes.owner(session.owner),
            epoch: Epoch(session.epoch),
            persistent,
            subscriptions,
            since_ms: 0,
            rests_until_ms: None,
            pending: 0,
        })
    }

    fn append(
        &mut self,
        mut streams: Vec<StreamKey>,
        message: &SharedMessage,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        streams.sort_unstable();
        streams.dedup();
        let mut targets = Vec::with_capacity(streams.len());
        for key in streams {
            match &key {
                StreamKey::Filter(_) if self.streams.contains(&key) => targets.push((key, None)),
                StreamKey::Filter(_) => {}
                StreamKey::Device(client) => {
                    let session = self.sessions.find(client).filter(|session| !session.is_over(now_ms));
                    let stands = session.and_then(|session| session.details.as_ref()?.cursor(&key));
                    if stands.is_some() {
                        targets.push((key, stands));
                    }
                }
            }
        }
        let bytes = message.as_bytes().len() as u64;
        if bytes > self.bounds.stream.bytes_max && !targets.is_empty() {
            return Err(StoreError::Full(format!(
                "a message of {bytes} bytes is more than a stream may hold"
            )));
        }
        let room_max = self.bounds.message_bytes_max.saturating_sub(self.retained.bytes());
        let Some(rest_max) = room_max.checked_sub(bytes * targets.len() as u64) else {
            return Err(StoreError::Full(format!(
                "a message of {bytes} bytes for {} streams does not fit into {room_max} bytes",
                targets.len()
            )));
        };
        for (stream, _) in &targets {
            self.streams.make_way(stream, bytes, now_ms, journal);
        }
        if !targets.is_empty() {
            self.cut_to(rest_max, journal);
        }
        let mut appended = Vec::with_capacity(targets.len());
        for (stream, reader_at) in targets {
            let offset =
                self.streams.append(&stream, reader_at, message, now_ms, &mut self.deadlines, journal);
            if let Some(acked) = offset {
                appended.push(Cursor { stream, acked });
            }
        }
        Ok(Reply::Appended { at: appended, full: Vec::new() })
    }

    fn retain(&mut self, message: SharedMessage, journal: &mut impl Journal) -> Result<Reply, StoreError> {
        let view = message.view();
        if !view.payload.is_empty() {
            let others = self.retained.bytes() - self.retained.bytes_of(view.topic);
            let bytes = others + message.as_bytes().len() as u64;
            if bytes > self.bounds.message_bytes_max / 2 {
                return Err(StoreError::Full(format!("it holds {others} bytes of other retained messages")));
            }
            self.cut_to(self.bounds.message_bytes_max - bytes, journal);
        }
        self.retained.retain(message, &mut self.deadlines, journal);
        Ok(Reply::Done)
    }

    /// Cuts streams, the heaviest first, until they weigh no more than this together.
    fn cut_to(&mut self, bytes_max: u64, journal: &mut impl Journal) {
        let before = self.cut_for_room;
        self.cut_for_room += self.streams.cut_to(bytes_max, journal);
        // Anyone can fill the store, so it is said at the first message, the second, the fourth, and so on.
        if before.checked_ilog2() != self.cut_for_room.checked_ilog2() {
            warn!(
                messages = self.cut_for_room,
                "the store is full; its largest streams have lost their oldest messages"
            );
        }
    }

    /// A device's stream that holds nothing ends where its reader stands.
    fn end_without_stream(&self, stream: &StreamKey) -> u64 {
        let StreamKey::Device(client) = stream else { return 0 };
        let details = self.sessions.find(client).and_then(|session| session.details.as_ref());
        details.and_then(|details| details.cursor(stream)).unwrap_or_default()
    }

    fn discard(&mut self, client: &ClientId, journal: &mut impl Journal) {
        let Some(session) = self.sessions.remove(client) else { return };
        self.nodes.release(session.owner);
        let Some(details) = session.details else { return };
        self.clear_deadline(client, details.rests_until_ms);
        for cursor in &details.record.cursors {
            let rests = details.rests_until_ms.is_some();
            self.streams.leave(&cursor.stream, cursor.acked, rests, &mut self.deadlines, journal);
        }
        if details.expiry_s > 0 {
            journal.record(|| Change::SessionGone(client.clone()));
        }
    }

    fn release_owner(&mut self, client: &ClientId) {
        if let Some(session) = self.sessions.find_mut(client) {
            self.nodes.release(std::mem::take(&mut session.owner));
        }
    }

    fn set_deadline(&mut self, client: &ClientId, until_ms: u64) {
        if until_ms != u64::MAX {
            self.deadlines.set(until_ms, Ending::Session(client.clone()));
        }
    }

    fn clear_deadline(&mut self, client: &ClientId, until_ms: Option<u64>) {
        if let Some(until_ms) = until_ms {
            self.deadlines.clear(until_ms, Ending::Session(client.clone()));
        }
    }
}

/// The session, if `epoch` is its current one and it is not over.
fn fenced<'a>(
    sessions: &'a mut SessionTable,
    client: &ClientId,
    epoch: Epoch,
    now_ms: u64,
) -> Result<&'a mut Session, StoreError> {
    sessions
        .find_mut(client)
        .filter(|session| session.epoch == epoch.0 && !session.is_over(now_ms))
        .ok_or(StoreError::Fenced)
}

fn advance(
    details: &mut Details,
    progress: Progress,
    streams: &mut Streams,
    deadlines: &mut Deadlines,
    journal: &mut impl Journal,
) {
    let rests = details.rests_until_ms.is_some();
    for moved in progress.cursors {
        if let Ok(at) = details.find_cursor(&moved.stream) {
            let cursor = &mut details.record.cursors[at];
            cursor.acked =
                streams.advance(&cursor.stream, cursor.acked, moved.acked, rests, deadlines, journal);
        }
    }
    details.record.received = progress.received;
    details.record.inflight = progress.inflight;
}

fn record_session(client: &ClientId, epoch: u64, details: &Details, journal: &mut impl Journal) {
    journal.record(|| Change::Session(client.clone(), session_row::encode(epoch, details)));
}
