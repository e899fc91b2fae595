//! A session moves from one shard to another, with what the store does not know of it.
//!
//! The new owner learns from the store who the former one is, tells it over a link ([`Takeover`]) and waits a moment for its answer
//! ([`Handover`]). The former owner closes its connection and answers with what it has not saved; it cannot write to the store any more.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Handover, Takeover, ToBridge};
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::{Opened, Progress, Request};

use crate::connection::close::CloseReason;
use crate::connection::{Phase, Successor};
use crate::engine::Engine;
use crate::engine::endings::Leaving;
use crate::input::{ConnectionId, LinkIndex, Now};
use crate::requests::Asked;

/// How long a new owner waits for what the former one knows, in ms. Then the device is served from what the store knows: some messages may come twice.
const HANDOVER_MS_MAX: u64 = 500;

impl Engine {
    /// A session has another owner. If its connection is here it is closed, and what the store does not know is handed over.
    pub(crate) fn handle_takeover(&mut self, link: LinkIndex, takeover: &Takeover<'_>, now: Now) {
        let mut known = Vec::new();
        let found = self.find_client(takeover.client);
        match found.and_then(|id| self.connections.find_mut(id).map(|connection| (id, &mut connection.phase)))
        {
            Some((id, Phase::Established(session))) if session.epoch < takeover.epoch => {
                if session.durable.is_some() {
                    let Progress { cursors, received, inflight } = session.progress();
                    SessionRecord { subscriptions: Vec::new(), cursors, received, inflight }
                        .encode(&mut known);
                }
                if let (Some(will), true) = (&mut session.will, takeover.ends_session) {
                    will.delay_s = 0;
                }
                self.shared.stats.takeovers += 1;
                self.end_as(id, CloseReason::SessionTakenOver, Leaving::HandedOver, now);
            }
            // It hears once the store has answered us, and the owner before us too.
            Some((_, Phase::Opening(opening))) => {
                let Takeover { epoch, owner, .. } = *takeover;
                if opening.successor.is_none_or(|successor| successor.epoch < epoch) {
                    opening.successor = Some(Successor { owner, epoch });
                }
                return;
            }
            // Its connection has just ended, and the store may not have heard of it in time.
            _ => {
                let client = ClientId::new(takeover.client);
                let ours = (client.clone(), Epoch(0))..(client, takeover.epoch);
                let last = self.shared.closing.range(ours).next_back().map(|(closing, _)| closing.clone());
                if let Some(Progress { cursors, received, inflight }) =
                    last.and_then(|closing| self.shared.closing.remove(&closing))
                {
                    SessionRecord { subscriptions: Vec::new(), cursors, received, inflight }
                        .encode(&mut known);
                }
            }
        }
        let Takeover { client, epoch, owner, .. } = *takeover;
        let handover = Handover { client, epoch, owner, session: &known };
        self.shared.uplinks.say(link, &ToBridge::Handover(handover));
    }

    /// Waits a moment for what the former owner knows, if there is a session to know something of.
    pub(crate) fn await_handover(&mut self, id: ConnectionId, opened: Opened, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Opening(opening) = &mut connection.phase else { return };
        if opened.session.is_none() {
            return self.establish(id, opened, now);
        }
        opening.opened = Some(opened);
        self.shared.handovers.push_back((now.monotonic_ms + HANDOVER_MS_MAX, id));
    }

    /// The epoch under which a connection waits for its former owner, if it does.
    pub(crate) fn awaited_epoch(&self, id: ConnectionId) -> Option<Epoch> {
        match &self.connections.find(id)?.phase {
            Phase::Opening(opening) => {
                opening.inherited.or(opening.opened.as_ref().map(|opened| opened.epoch))
            }
            _ => None,
        }
    }

    /// The former owner of a session has told what it knows.
    pub(crate) fn handle_handover(&mut self, handover: &Handover<'_>, now: Now) {
        self.shared.takeovers.remove(&(ClientId::new(handover.client), handover.epoch));
        let Some(id) = self.find_client(handover.client) else { return };
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Opening(opening) = &mut connection.phase else { return };
        let Some(mut opened) = opening
            .opened
            .take_if(|opened| opened.epoch == handover.epoch || opening.inherited == Some(handover.epoch))
        else {
            return;
        };
        if let (Some(record), Ok(newer)) = (&mut opened.session, SessionRecord::decode(handover.session)) {
            *record = SessionRecord { subscriptions: std::mem::take(&mut record.subscriptions), ..newer };
        }
        self.establish(id, opened, now);
    }

    /// A former owner has been waited for long enough: what the store knows has to do.
    pub(crate) fn handle_late_handovers(&mut self, now: Now) {
        while let Some((due_ms, id)) = self.shared.handovers.front().copied()
            && due_ms <= now.monotonic_ms
        {
            self.shared.handovers.pop_front();
            if let Some(connection) = self.connections.find_mut(id)
                && let Phase::Opening(opening) = &mut connection.phase
                && let Some(opened) = opening.opened.take()
            {
                self.establish(id, opened, now);
            }
        }
    }

    /// Tells the next owner what the owners before us knew.
    pub(crate) fn pass_on(
        &mut self,
        client: &ClientId,
        successor: Successor,
        session: Option<SessionRecord>,
    ) {
        let mut known = Vec::new();
        if let Some(session) = session {
            SessionRecord { subscriptions: Vec::new(), ..session }.encode(&mut known);
        }
        let Some(link) = self.shared.uplinks.choose(client) else { return };
        let Successor { owner, epoch } = successor;
        self.shared
            .uplinks
            .say(link, &ToBridge::Handover(Handover { client, epoch, owner, session: &known }));
    }

    /// The store opened a session whose connection is gone already: it rests again at once.
    pub(crate) fn close_unclaimed(&mut self, client: ClientId, expiry_s: u32, opened: Opened) {
        let progress = opened.session.map_or_else(Progress::default, |record| Progress {
            cursors: record.cursors,
            received: record.received,
            inflight: record.inflight,
        });
        let request = Request::Close { client, epoch: opened.epoch, expiry_s, progress };
        self.shared.ask(Asked::Close(None), request);
    }
}
