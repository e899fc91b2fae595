//! What each request does: the one mind behind the memory and the embedded store.
//!
//! Single-threaded, without a clock or a disk of its own: the time is an argument, and durable changes are told to a
//! [`Journal`] in the order in which they happen. Start with [`State::apply`]; `ownership` says who has a session and how it ends,
//! `subscriptions`, `messages` and `claims` what it reads.

mod change;
mod claims;
mod client_groups;
mod deadlines;
mod expired;
mod listing;
mod locks;
mod messages;
mod nodes;
mod ownership;
mod readers;
mod restore;
mod retained;
mod runs;
pub(crate) mod session_row;
mod sessions;
mod streams;
mod subscriptions;
mod weights;
mod wills;
mod write_back;

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};

pub(crate) use self::change::{Change, Journal, NoJournal, StreamRow};
use self::claims::Claim;
use self::client_groups::ClientGroups;
use self::deadlines::{Deadlines, Ending};
use self::expired::Expired;
use self::locks::Locks;
use self::nodes::Nodes;
pub(crate) use self::restore::{Restore, RestoreError};
use self::retained::RetainedMessages;
pub(crate) use self::retained::literal_prefix;
use self::sessions::{Details, Session, SessionTable};
use self::streams::Streams;
use self::wills::Wills;
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
    /// Half as many bytes as messages may have; beyond it one more is let go, and counted.
    wills: Wills,
    expired: Expired,
    groups: ClientGroups,
    locks: Locks,
    /// Messages that gave way to newer ones because the store was full.
    cut_for_room: u64,
    /// Smaller ones were given out before, and what was opened under them may be forgotten.
    first_epoch: u64,
    next_epoch: u64,
    epoch_end: u64,
    young: Youth,
}

/// Whether sessions that the store has lost may be on their way back.
#[derive(Clone, Copy)]
enum Youth {
    /// From the next request on.
    Begins,
    /// Until this time, Unix ms.
    Until(u64),
}

/// How long it lasts, in ms.
const YOUNG_MS: u64 = 60_000;

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
            wills: Wills::default(),
            expired: Expired::new(),
            groups: ClientGroups::new(bounds.group_members_max),
            locks: Locks::default(),
            cut_for_room: 0,
            first_epoch: epochs.start,
            next_epoch: epochs.start,
            epoch_end: epochs.end,
            young: Youth::Until(0),
        }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Whether carrying out `request` may change something durable.
    pub(crate) fn is_durable(&self, request: &Request) -> bool {
        match request {
            Request::Open { client, owner, expiry_s, .. }
            | Request::Restore { client, owner, expiry_s, .. } => {
                *expiry_s > 0
                    || self.wills.depend_on(client)
                    || self.sessions.find(client).is_some_and(|session| {
                        session.is_durable()
                            || session.has_will() && self.nodes.owner(session.owner) != Some(*owner)
                    })
            }
            Request::Close { client, epoch, will, .. } => {
                will.is_some()
                    || self.wills.contains(epoch.0)
                    || self.wills.depend_on(client)
                    || self.sessions.find(client).is_some_and(Session::is_durable)
            }
            Request::Subscribe { client, .. }
            | Request::Unsubscribe { client, .. }
            | Request::Save { client, .. } => self.sessions.find(client).is_some_and(Session::is_durable),
            Request::Reap { client, .. } => {
                self.sessions.find(client).is_some_and(|session| session.is_durable() || session.has_will())
            }
            Request::WillPublished { number, .. } => self.wills.contains(*number),
            Request::DropGroup { group } => self.groups.contains(group) || self.groups.is_ending(group),
            Request::Append { .. }
            | Request::Hold { .. }
            | Request::EndHold { taken: true, .. }
            | Request::Retain { .. }
            | Request::ChangeGroup { .. } => true,
            Request::Lookup { .. }
            | Request::Read { .. }
            | Request::Claim { .. }
            | Request::EndHold { taken: false, .. }
            | Request::ReadRetained { .. }
            | Request::DurableFilters
            | Request::RenewLease { .. }
            | Request::DeadNodes
            | Request::Bury { .. }
            | Request::DueWills { .. }
            | Request::TakeExpired { .. }
            | Request::TakeLock { .. }
            | Request::Sessions { .. }
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
        let young_until_ms = match self.young {
            Youth::Begins => now_ms.saturating_add(YOUNG_MS),
            Youth::Until(until_ms) => until_ms,
        };
        self.young = Youth::Until(young_until_ms);
        self.streams.set_young(now_ms < young_until_ms);
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
            Request::Close { client, epoch, expiry_s, progress, will } => {
                self.close(&client, epoch, expiry_s, progress, will, now_ms, journal)
            }
            Request::Lookup { client } => Ok(Reply::Session(self.lookup(&client, now_ms))),
            Request::Append { streams, message, collapse_key } => {
                self.append(streams, &message, collapse_key.as_deref(), now_ms, journal)
            }
            Request::Read { stream, after, messages_max, bytes_max } => {
                let (messages, end) = self
                    .streams
                    .read(&stream, after, messages_max, bytes_max)
                    .unwrap_or_else(|| (Vec::new(), self.end_without_stream(&stream)));
                Ok(Reply::Messages { messages, end })
            }
            Request::Claim { client, epoch, filter, after, messages_max, bytes_max } => {
                let claim = Claim { after, messages_max, bytes_max };
                self.claim(&client, epoch, filter, &claim, now_ms)
            }
            Request::Hold { filter, message, for_ms } => self.hold(filter, &message, for_ms, now_ms, journal),
            Request::EndHold { filter, at, taken } => {
                self.streams.end_hold(&StreamKey::Filter(filter), at, taken, journal);
                Ok(Reply::Done)
            }
            Request::Retain { message } => self.retain(message, journal),
            Request::ReadRetained { filter, after, messages_max, bytes_max } => Ok(Reply::Retained(
                self.retained.read(&filter, after.as_deref(), (messages_max, bytes_max), now_ms),
            )),
            Request::DurableFilters => Ok(Reply::Filters(self.streams.filters())),
            Request::RenewLease { node, for_ms } => {
                let known = self.nodes.renew(node, now_ms.saturating_add(u64::from(for_ms)), now_ms)?;
                Ok(Reply::Renewed { known })
            }
            Request::DeadNodes => Ok(Reply::Nodes(self.nodes.dead(now_ms))),
            Request::Bury { node } => self.nodes.bury(node, now_ms).map(|()| Reply::Done),
            Request::Reap { client, epoch } => self.reap(&client, epoch, now_ms, journal),
            Request::DueWills { wills_max } => Ok(Reply::Wills(self.wills.give(wills_max, now_ms))),
            Request::WillPublished { client, number } => {
                self.wills.strike_out(&client, number, journal);
                Ok(Reply::Done)
            }
            Request::TakeExpired { sessions_max } => {
                Ok(Reply::Expired(self.expired.take(sessions_max, now_ms)))
            }
            Request::TakeLock { name, holder, for_ms } => {
                let until_ms = now_ms.saturating_add(u64::from(for_ms));
                self.locks.take(name, holder, until_ms, now_ms).map(Reply::Lock)
            }
            Request::Restore { client, owner, epoch, expiry_s, will, session } => {
                self.write_back(client, owner, epoch, expiry_s, will, session, now_ms, journal)
            }
            Request::Sessions { owner, page, sessions_max } => {
                self.page(owner, page.as_ref(), sessions_max, now_ms)
            }
            Request::ChangeGroup { group, add, remove } => self.groups.change(&group, add, remove, journal),
            Request::DropGroup { group } => {
                self.groups.drop_group(&group, journal);
                Ok(Reply::Done)
            }
            Request::GroupMembers { group, page, members_max } => {
                self.groups.page(&group, page.as_ref(), members_max)
            }
        }
    }

    /// Whether a request that ended a group has yet to let go of its members ([`Self::end_groups`]).
    pub(crate) fn is_ending(&self, group: &str) -> bool {
        self.groups.is_ending(group)
    }

    /// Whether any group that ended has yet to.
    pub(crate) fn ends_groups(&self) -> bool {
        self.groups.are_ending()
    }

    /// Lets go of some members of a group that ended.
    pub(crate) fn end_groups(&mut self, journal: &mut impl Journal) {
        self.groups.end_some(journal);
    }

    /// Clears away some of what has ended.
    pub(crate) fn sweep(&mut self, now_ms: u64, journal: &mut impl Journal) {
        for _ in 0..SWEEP_MAX {
            match self.deadlines.pop_due(now_ms) {
                Some(Ending::Session(client)) => self.discard_at(&client, now_ms, journal),
                Some(Ending::OldestOf(key)) => {
                    self.streams.cut_aged(&key, now_ms, &mut self.deadlines, journal);
                }
                Some(Ending::Retained(topic)) => self.retained.remove(&topic, &mut self.deadlines, journal),
                None => return,
            }
        }
    }

    /// Discards a session at this time, and notes it if it had expired by then.
    fn discard_at(&mut self, client: &ClientId, now_ms: u64, journal: &mut impl Journal) {
        if let Some(session) = self.sessions.find(client).filter(|session| session.is_over(now_ms))
            && let Some(until_ms) = session.details.as_ref().and_then(|details| details.rests_until_ms)
        {
            self.expired.note(client, session.epoch, until_ms, now_ms);
        }
        self.discard(client, journal);
    }

    fn discard(&mut self, client: &ClientId, journal: &mut impl Journal) {
        let Some(session) = self.sessions.remove(client) else { return };
        self.nodes.release(session.owner);
        let Some(details) = session.details else { return };
        self.clear_deadline(client, details.rests_until_ms);
        for cursor in &details.record.cursors {
            self.streams.leave(&cursor.stream, client, cursor.acked, &mut self.deadlines, journal);
        }
        if details.expiry_s > 0 {
            journal.record(|| Change::SessionGone(client.clone()));
        }
    }

    /// As a server that takes another one's place, which gave out epochs up to `former`.
    pub(crate) fn begin_life(&mut self, former: u64) {
        self.next_epoch = self.next_epoch.max(former.saturating_add(1)).min(self.epoch_end);
        self.first_epoch = self.next_epoch;
    }

    /// As a server that has lost its data.
    pub(crate) fn begin_with_nothing(&mut self) {
        self.young = Youth::Begins;
    }

    /// An epoch that nobody was given before.
    fn issue_epoch(&mut self) -> Result<u64, StoreError> {
        if self.next_epoch == self.epoch_end {
            return Err(StoreError::Unavailable(
                "this run's epochs are used up; restart the store".to_owned(),
            ));
        }
        self.next_epoch += 1;
        Ok(self.next_epoch - 1)
    }

    /// Whether the session's owner was buried.
    fn is_buried(&self, session: &Session) -> bool {
        self.nodes.owner(session.owner).is_some_and(|owner| self.nodes.is_buried(owner.node))
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

/// The session, if it is not over and `epoch` is its current one.
fn fenced<'a>(
    sessions: &'a mut SessionTable,
    client: &ClientId,
    epoch: Epoch,
    now_ms: u64,
) -> Result<&'a mut Session, StoreError> {
    let session =
        sessions.find_mut(client).filter(|session| !session.is_over(now_ms)).ok_or(StoreError::Gone)?;
    if session.epoch == epoch.0 { Ok(session) } else { Err(StoreError::Fenced) }
}

fn record_session(
    client: &ClientId,
    epoch: u64,
    since_s: u32,
    details: &Details,
    journal: &mut impl Journal,
) {
    journal.record(|| Change::Session(client.clone(), session_row::encode(epoch, since_s, details)));
}
