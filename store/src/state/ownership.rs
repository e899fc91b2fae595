//! Who has a session: opening, closing, and taking it from the dead.

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::session_record::{Cursor, StreamKey};
use holdfast_wire::store::{DueWill, Opened, Progress, Reply, StoreError, WillRecord};

use super::change::{Change, Journal};
use super::sessions::{Session, rest_ends_ms, since_s};
use super::subscriptions::advance;
use super::wills::{LeftWill, Opening};
use super::{State, fenced, record_session};
use crate::metrics::{Dropped, count_dropped};

impl State {
    #[expect(clippy::too_many_arguments, reason = "the fields of `Request::Open`, the time and the journal")]
    pub(super) fn open(
        &mut self,
        client: ClientId,
        owner: Owner,
        clean_start: bool,
        expiry_s: u32,
        own_will: Option<WillRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        if self.nodes.is_buried(owner.node) {
            return Err(StoreError::Fenced);
        }
        let found = self.sessions.find(&client);
        if found.is_none() && self.sessions.len() >= self.bounds.sessions_max as usize {
            return Err(self.full());
        }
        let holder = found.and_then(|session| self.nodes.owner(session.owner));
        let resumes =
            found.is_some_and(|session| session.is_persistent() && !session.is_over(now_ms) && !clean_start);
        let repeats = found.filter(|_| holder == Some(owner)).map(|session| session.epoch);
        let former = holder.filter(|holder| *holder != owner);
        let is_bereaved = found.is_some_and(|session| self.is_buried(session));
        let reaped_as = if is_bereaved { Some(self.issue_epoch()?) } else { None };
        let epoch = self.issue_epoch()?;
        let owner = self.nodes.take(owner)?;
        // From here on nothing fails.
        let orphaned = match reaped_as {
            Some(number) => self.reap_as(&client, number, now_ms, journal),
            None if former.is_some() => self.take_will(&client, resumes, now_ms, journal),
            None => None,
        };

        // A connected session without expiry ended with the connection that is being taken over.
        let mut details = None;
        if resumes && let Some(session) = self.sessions.find_mut(&client) {
            details = session.details.take();
            self.nodes.release(std::mem::take(&mut session.owner));
        } else {
            self.discard_at(&client, now_ms, journal);
        }
        let opening = Opening { epoch, repeats, former, resumes: details.is_some() };
        let (former, will) = match self.wills.answer(&client, &opening, now_ms, journal) {
            Some((former, will)) => (former, Some(will)),
            // What found no room is answered all the same, but nobody else has it.
            None => (former, orphaned.filter(|orphan| !resumes || orphan.will.delay_s == 0)),
        };

        let mut resumed = None;
        if let Some(details) = &mut details {
            self.clear_deadline(&client, details.rests_until_ms.take());
            resumed = Some(details.record.clone());
        } else if expiry_s > 0 || own_will.is_some() {
            details = Some(Box::default());
        }
        let since_s = since_s(now_ms);
        if let Some(details) = &mut details {
            details.expiry_s = expiry_s;
            details.will = own_will;
            if resumed.is_none() && expiry_s > 0 {
                let stream = StreamKey::Device(client.as_str().into());
                details.record.cursors.push(Cursor { stream, acked: 0 });
            }
            if expiry_s > 0 {
                record_session(&client, epoch, since_s, details, journal);
            } else if resumed.is_some() {
                // It ends with this connection, whichever way that ends.
                journal.record(|| Change::SessionGone(client.clone()));
            }
        }
        self.sessions.insert(client, Session { epoch, since_s, owner, details });
        Ok(Reply::Opened(Opened { epoch: Epoch(epoch), session: resumed, former, will }))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of `Request::Close`, the time and the journal")]
    pub(super) fn close(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        expiry_s: u32,
        progress: Progress,
        will: Option<WillRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = match fenced(&mut self.sessions, client, epoch, now_ms) {
            Ok(session) => session,
            Err(why) => {
                if will.is_none() {
                    self.wills.strike_out(client, epoch.0, journal);
                }
                return Err(why);
            }
        };
        // That of a session which rests has been left already, and may have been published.
        let will = will.filter(|_| self.nodes.owner(session.owner).is_some());
        // A session that was opened without an expiry cannot get one at its end (MQTT-3.1.2.11.2), nor has it anything to keep.
        let expiry_s = if session.is_persistent() { expiry_s } else { 0 };
        if let Some(details) = &mut session.details {
            // Also where the session ends: other members of its groups are given what it leaves unsettled.
            advance(client, details, progress, &mut self.streams, &mut self.deadlines, journal);
        }
        if expiry_s == 0 {
            self.discard(client, journal);
        } else {
            self.rest(client, epoch.0, expiry_s, now_ms, journal);
        }
        match will {
            Some(will) => {
                let let_go = self.leave_will(client, epoch.0, will, expiry_s, now_ms, journal);
                count_dropped(Dropped::Will, u64::from(let_go.is_some()));
            }
            None => self.wills.bring_forward(client, rest_ends_ms(now_ms, expiry_s), journal),
        }
        Ok(Reply::Done)
    }

    /// Takes a session from an owner that is dead.
    pub(super) fn reap(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        if session.details.as_ref().is_some_and(|details| details.rests_until_ms.is_some()) {
            return Ok(Reply::Done);
        }
        let number = self.issue_epoch()?;
        let let_go = self.reap_as(client, number, now_ms, journal);
        count_dropped(Dropped::Will, u64::from(let_go.is_some()));
        Ok(Reply::Done)
    }

    /// The same under an epoch that was issued for it. Gives the will if there is no room for it.
    fn reap_as(
        &mut self,
        client: &ClientId,
        epoch: u64,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Option<DueWill> {
        let details = self.sessions.find_mut(client)?.details.as_mut();
        let (expiry_s, will) = details.map_or((0, None), |details| (details.expiry_s, details.will.take()));
        if expiry_s > 0 {
            self.rest(client, epoch, expiry_s, now_ms, journal);
        } else {
            self.discard(client, journal);
        }
        self.leave_will(client, epoch, will?, expiry_s, now_ms, journal)
    }

    /// Leaves the will of a connection whose session another owner opens; with a delay it is gone if the session goes on (MQTT-3.1.3-9).
    /// Gives it if there is no room for it.
    fn take_will(
        &mut self,
        client: &ClientId,
        resumes: bool,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Option<DueWill> {
        let session = self.sessions.find_mut(client)?;
        let will = session.details.as_mut()?.will.take()?;
        if resumes && will.delay_s > 0 {
            return None;
        }
        let number = session.epoch;
        self.leave_will(client, number, will, 0, now_ms, journal)
    }

    /// Leaves a will of a session that rests for so long from now on, or ends. Where there is no room it is let go and given back: a session that
    /// cannot end would be worse.
    fn leave_will(
        &mut self,
        client: &ClientId,
        number: u64,
        will: WillRecord,
        expiry_s: u32,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Option<DueWill> {
        let due_ms = will_falls_due_ms(&will, expiry_s, now_ms);
        let left = LeftWill { client: client.clone(), due_ms, will };
        let bytes = self.wills.bytes() + left.bytes();
        if bytes > self.bounds.message_bytes_max / 2 {
            return Some(DueWill { client: left.client, number, will: left.will });
        }
        self.wills.leave(number, left, journal);
        None
    }

    /// What a full table of sessions answers.
    pub(super) fn full(&self) -> StoreError {
        StoreError::Full(format!("it holds {} sessions", self.sessions.len()))
    }

    /// Lets a persistent session rest from now on, or goes on with its rest for a time of another length.
    fn rest(
        &mut self,
        client: &ClientId,
        epoch: u64,
        expiry_s: u32,
        now_ms: u64,
        journal: &mut impl Journal,
    ) {
        let Some(session) = self.sessions.find_mut(client) else { return };
        self.nodes.release(std::mem::take(&mut session.owner));
        session.epoch = epoch;
        let Some(details) = &mut session.details else { return };
        let until = rest_ends_ms(now_ms, expiry_s);
        let former = details.rests_until_ms.replace(until);
        if former.is_none() {
            session.since_s = since_s(now_ms);
            for cursor in &details.record.cursors {
                self.streams.rest(&cursor.stream, client);
            }
        }
        details.expiry_s = expiry_s;
        details.will = None;
        record_session(client, epoch, session.since_s, details, journal);
        self.clear_deadline(client, former);
        self.set_deadline(client, until);
    }
}

/// When the will of a connection that ended now falls due: after its delay, or with its session (MQTT 5, section 3.1.3.2.2).
pub(super) fn will_falls_due_ms(will: &WillRecord, expiry_s: u32, now_ms: u64) -> u64 {
    now_ms.saturating_add(u64::from(will.delay_s.min(expiry_s)) * 1_000)
}
