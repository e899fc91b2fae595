//! Who has a session: opening, closing, and taking it from the dead.

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::session_record::{Cursor, StreamKey};
use holdfast_wire::store::{Opened, Progress, Reply, StoreError, WillRecord};

use super::change::{Change, Journal};
use super::sessions::{Session, rest_ends_ms, since_s};
use super::subscriptions::advance;
use super::wills::LeftWill;
use super::{State, fenced, record_session};

impl State {
    #[expect(clippy::too_many_arguments, reason = "the fields of `Request::Open`, the time and the journal")]
    pub(super) fn open(
        &mut self,
        client: ClientId,
        owner: Owner,
        clean_start: bool,
        expiry_s: u32,
        will: Option<WillRecord>,
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
        let former =
            found.and_then(|session| self.nodes.owner(session.owner)).filter(|former| *former != owner);
        if let Some(session) = found.filter(|session| self.is_buried(session)) {
            let epoch = Epoch(session.epoch);
            self.reap(&client, epoch, now_ms, journal)?;
        }
        let epoch = self.issue_epoch()?;
        let owner = self.nodes.take(owner)?;

        // A connected session without expiry ended with the connection that is being taken over.
        let found = self.sessions.find_mut(&client);
        let mut details = None;
        if let Some(session) = found {
            if session.is_persistent() && !session.is_over(now_ms) && !clean_start {
                details = session.details.take();
                self.nodes.release(std::mem::take(&mut session.owner));
            } else {
                self.discard(&client, journal);
            }
        }
        self.wills.come_back(&client, details.is_some(), now_ms, journal);

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
        let since_s = since_s(now_ms);
        if let Some(details) = &mut details {
            details.expiry_s = expiry_s;
            details.will = will;
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
        Ok(Reply::Opened(Opened { epoch: Epoch(epoch), session: resumed, former, will: None }))
    }

    pub(super) fn close(
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
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        advance(details, progress, &mut self.streams, &mut self.deadlines, journal);
        self.rest(client, epoch.0, expiry_s, now_ms, journal);
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
        if session.has_will() && self.wills.len() >= self.bounds.sessions_max as usize {
            return Err(StoreError::Full(format!("{} wills wait to be published", self.wills.len())));
        }
        let epoch = self.issue_epoch()?;
        let Some(session) = self.sessions.find_mut(client) else { return Err(StoreError::Gone) };
        let expiry_s = session.details.as_ref().map_or(0, |details| details.expiry_s);
        let will = session.details.as_mut().and_then(|details| details.will.take());
        if expiry_s > 0 {
            self.rest(client, epoch, expiry_s, now_ms, journal);
        } else {
            self.discard(client, journal);
        }
        if let Some(will) = will {
            let left =
                LeftWill { client: client.clone(), due_ms: will_falls_due_ms(&will, expiry_s, now_ms), will };
            self.wills.leave(epoch, left, journal);
        }
        Ok(Reply::Done)
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
                self.streams.rest(&cursor.stream, cursor.acked, journal);
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
