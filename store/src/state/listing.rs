//! Where sessions are, one by one and page by page.

use holdfast_wire::ids::{ClientId, Epoch, NodeId};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Page, Reply, SessionEntry, SessionInfo, StoreError};

use super::State;
use super::sessions::{Place, Session};

impl State {
    pub(super) fn lookup(&self, client: &ClientId, now_ms: u64) -> Option<SessionInfo> {
        let session = self.sessions.find(client).filter(|session| !session.is_over(now_ms))?;
        let persistent = session.is_persistent();
        let details = session.details.as_deref();
        let own = StreamKey::Device(client.as_str().into());
        let stands = details.and_then(|details| details.cursor(&own));
        Some(SessionInfo {
            owner: self.nodes.owner(session.owner),
            epoch: Epoch(session.epoch),
            persistent,
            subscriptions: match details {
                Some(details) if persistent => details.record.subscriptions.clone(),
                _ => Vec::new(),
            },
            since_ms: since_ms(session),
            rests_until_ms: details.and_then(|details| details.rests_until_ms),
            pending: stands.map_or(0, |acked| self.streams.count_behind(&own, acked)),
        })
    }

    pub(super) fn page(
        &self,
        owner: Option<NodeId>,
        page: Option<&Page>,
        sessions_max: u32,
        now_ms: u64,
    ) -> Result<Reply, StoreError> {
        let from = page.map_or(Some(Place::default()), |page| Place::decode(page));
        let from =
            from.ok_or_else(|| StoreError::Unreadable("a page of sessions that it did not name".to_owned()))?;
        let is_wanted = |session: &Session| {
            let is_its = |node| self.nodes.owner(session.owner).is_some_and(|owner| owner.node == node);
            owner.is_none_or(is_its) && !session.is_over(now_ms)
        };
        // A page of none would never end.
        let (sessions, next) = self.sessions.page(from, sessions_max.max(1) as usize, is_wanted);
        let entry = |(client, session): (&ClientId, &Session)| SessionEntry {
            client: client.clone(),
            owner: self.nodes.owner(session.owner),
            epoch: Epoch(session.epoch),
            persistent: session.is_persistent(),
            since_ms: since_ms(session),
        };
        let sessions = sessions.into_iter().map(entry).collect();
        Ok(Reply::Sessions { sessions, next: next.map(|next| next.encode()) })
    }
}

fn since_ms(session: &Session) -> u64 {
    u64::from(session.since_s) * 1_000
}
