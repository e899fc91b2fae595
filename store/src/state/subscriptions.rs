//! What a session reads, and how far it has come.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, StreamKey, SubscriptionRecord};
use holdfast_wire::store::{Progress, Reply, StoreError};

use super::change::Journal;
use super::deadlines::Deadlines;
use super::sessions::Details;
use super::streams::Streams;
use super::{State, fenced, record_session};

impl State {
    pub(super) fn subscribe(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        subscriptions: Vec<SubscriptionRecord>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let since_s = session.since_s;
        let Some(details) = session.details.as_mut().filter(|details| details.expiry_s > 0) else {
            return Ok(Reply::Subscribed(Vec::new()));
        };
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
                    stands.push(Cursor { stream, acked: details.record.cursors[at].acked });
                }
                Ok(at) => {
                    let left = details.record.cursors.remove(at);
                    self.streams.leave(&left.stream, client, left.acked, &mut self.deadlines, journal);
                }
                Err(at) if reads => {
                    let acked = self.streams.join(&stream, now_ms, journal);
                    details.record.cursors.insert(at, Cursor { stream: stream.clone(), acked });
                    stands.push(Cursor { stream, acked });
                }
                Err(_) => {}
            }
        }
        record_session(client, epoch.0, since_s, details, journal);
        Ok(Reply::Subscribed(stands))
    }

    pub(super) fn unsubscribe(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        filters: &[Box<str>],
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let since_s = session.since_s;
        let persistent = session.is_persistent();
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        for filter in filters {
            if let Ok(at) = details.find_subscription(filter) {
                details.record.subscriptions.remove(at);
            }
            if let Some(left) = details.take_cursor(&StreamKey::Filter(filter.clone())) {
                self.streams.leave(&left.stream, client, left.acked, &mut self.deadlines, journal);
            }
        }
        if persistent {
            record_session(client, epoch.0, since_s, details, journal);
        }
        Ok(Reply::Done)
    }

    pub(super) fn save(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        progress: Progress,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let since_s = session.since_s;
        let persistent = session.is_persistent();
        let Some(details) = &mut session.details else { return Ok(Reply::Done) };
        advance(client, details, progress, &mut self.streams, &mut self.deadlines, journal);
        if persistent {
            record_session(client, epoch.0, since_s, details, journal);
        }
        Ok(Reply::Done)
    }
}

/// Writes down how far a session says that it has come.
pub(super) fn advance(
    client: &ClientId,
    details: &mut Details,
    progress: Progress,
    streams: &mut Streams,
    deadlines: &mut Deadlines,
    journal: &mut impl Journal,
) {
    for moved in progress.cursors {
        if let Ok(at) = details.find_cursor(&moved.stream) {
            let cursor = &mut details.record.cursors[at];
            cursor.acked =
                streams.advance(&cursor.stream, client, cursor.acked, moved.acked, deadlines, journal);
        }
    }
    details.record.received = progress.received;
    details.record.inflight = progress.inflight;
}
