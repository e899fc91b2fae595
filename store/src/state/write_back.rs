//! Sessions that their owners write back, since the store has lost them or knows an older state of them.

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, SessionRecord, StreamKey, SubscriptionRecord};
use holdfast_wire::store::{Reply, StoreError, WillRecord};

use super::change::Journal;
use super::sessions::{Details, Session, since_s};
use super::streams::beginning;
use super::{State, record_session};

impl State {
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of `Request::Restore`, the time and the journal"
    )]
    pub(super) fn write_back(
        &mut self,
        client: ClientId,
        owner: Owner,
        epoch: Epoch,
        expiry_s: u32,
        will: Option<WillRecord>,
        session: SessionRecord,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        if self.nodes.is_buried(owner.node) {
            return Err(StoreError::Fenced);
        }
        if epoch.0 == 0 || epoch.0 >= self.epoch_end {
            // Never one that was given out here, so whoever has it asks for another, and not for this once more.
            return Err(StoreError::Fenced);
        }
        match self.sessions.find(&client).filter(|found| !found.is_over(now_ms)) {
            Some(found) if found.epoch > epoch.0 => return Err(StoreError::Fenced),
            Some(found) if found.epoch == epoch.0 => {
                if self.nodes.owner(found.owner) != Some(owner) {
                    return Err(StoreError::Fenced);
                }
                return Ok(Reply::Subscribed(stands(found.details.as_deref())));
            }
            // Nothing of this run is forgotten: it has ended since, wherever its client is.
            _ if epoch.0 >= self.first_epoch => return Err(StoreError::Fenced),
            None if self.sessions.find(&client).is_some() => self.discard_at(&client, now_ms, journal),
            None if self.sessions.len() >= self.bounds.sessions_max as usize => return Err(self.full()),
            Some(_) | None => {}
        }
        let owner = self.nodes.take(owner)?;
        self.next_epoch = self.next_epoch.max(epoch.0 + 1);

        let mut details = self.take_older(&client, expiry_s, journal);
        self.wills.take_back(&client, now_ms, journal);
        if details.is_none() && (expiry_s > 0 || will.is_some()) {
            details = Some(Box::default());
        }
        let since_s = since_s(now_ms);
        if let Some(details) = &mut details {
            details.expiry_s = expiry_s;
            details.will = will;
            if expiry_s > 0 {
                let own = StreamKey::Device(client.as_str().into());
                if let Err(at) = details.find_cursor(&own) {
                    details.record.cursors.insert(at, Cursor { stream: own, acked: beginning(now_ms) });
                }
                self.replace_subscriptions(&client, details, session.subscriptions, now_ms, journal);
                details.record.received = session.received;
                details.record.inflight = session.inflight;
                record_session(&client, epoch.0, since_s, details, journal);
            }
        }
        let stands = stands(details.as_deref());
        self.sessions.insert(client, Session { epoch: epoch.0, since_s, owner, details });
        Ok(Reply::Subscribed(stands))
    }

    /// What an older state of the session kept, with its cursors where they stand as with a resume. One without expiry keeps nothing.
    fn take_older(
        &mut self,
        client: &ClientId,
        expiry_s: u32,
        journal: &mut impl Journal,
    ) -> Option<Box<Details>> {
        let session = self.sessions.find_mut(client)?;
        if expiry_s == 0 || !session.is_persistent() {
            self.discard(client, journal);
            return None;
        }
        self.nodes.release(std::mem::take(&mut session.owner));
        let mut details = session.details.take()?;
        self.clear_deadline(client, details.rests_until_ms.take());
        Some(details)
    }

    /// Puts these subscriptions in the place of all others: streams that are read already keep their cursors.
    fn replace_subscriptions(
        &mut self,
        client: &ClientId,
        details: &mut Details,
        mut subscriptions: Vec<SubscriptionRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) {
        subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        // Of two with the same filter the latter holds.
        subscriptions.dedup_by(|later, kept| {
            let again = later.filter == kept.filter;
            if again {
                std::mem::swap(later, kept);
            }
            again
        });
        details.record.subscriptions = subscriptions;
        let reads = |details: &Details, stream: &StreamKey| match stream {
            StreamKey::Device(_) => true,
            StreamKey::Filter(filter) => details
                .find_subscription(filter)
                .is_ok_and(|at| details.record.subscriptions[at].qos > QoS::AtMostOnce),
        };
        let cursors = std::mem::take(&mut details.record.cursors);
        let (kept, left): (Vec<_>, Vec<_>) =
            cursors.into_iter().partition(|cursor| reads(details, &cursor.stream));
        details.record.cursors = kept;
        for Cursor { stream, acked } in left {
            self.streams.leave(&stream, client, acked, &mut self.deadlines, journal);
        }
        let wanted: Vec<_> = details
            .record
            .subscriptions
            .iter()
            .filter(|subscription| subscription.qos > QoS::AtMostOnce)
            .map(|subscription| StreamKey::Filter(subscription.filter.clone()))
            .collect();
        for stream in wanted {
            if let Err(at) = details.find_cursor(&stream) {
                let acked = self.streams.join_again(&stream, now_ms, journal);
                details.record.cursors.insert(at, Cursor { stream, acked });
            }
        }
    }
}

/// Where each stream of a session stands.
fn stands(details: Option<&Details>) -> Vec<Cursor> {
    details
        .filter(|details| details.expiry_s > 0)
        .map_or_else(Vec::new, |details| details.record.cursors.clone())
}
