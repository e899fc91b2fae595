//! A session moves from one shard to another, with what the store does not know of it.
//!
//! The new owner learns from the store who the former one is, tells it over a link ([`Takeover`]) and waits a moment for its answer
//! ([`Handover`]). The former owner closes its connection and answers with what it has not saved; it cannot write to the store any more. Which bridge it is asked
//! through is in [`asking`]; when it answers, and that it answers twice alike, in [`handed_over`].
//!
//! With the session moves the will of the connection that is displaced: nobody but the store and the new owner may publish it from then on, and the former owner
//! says whether it is still owed.
//!
//! A connection may end while its session is on the way here. The session is held then until it has arrived ([`Unclaimed`]), and rests, goes on to
//! the owner after us, or is taken up by the client's next connection here.

pub(crate) mod asking;
pub(crate) mod handed_over;

use std::ops::RangeInclusive;

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Handover, Outcome, Takeover};
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::{Opened, Progress};

use crate::connection::close::CloseReason;
use crate::connection::{Connection, Opening, Phase, Successor};
use crate::engine::Engine;
use crate::engine::endings::Leaving;
use crate::input::{ConnectionId, LinkIndex, Now};
use crate::keeping::HandedOverBy;
use crate::shared::Shared;

/// How long a new owner waits for what the former one knows, in ms. Then the device is served from what the store knows: some messages may come twice.
const HANDOVER_MS_MAX: u64 = 500;

impl Engine {
    /// A session has another owner. If its connection is here it is closed, and what the store does not know is handed over.
    pub(crate) fn handle_takeover(&mut self, link: LinkIndex, takeover: &Takeover<'_>, now: Now) {
        self.forget_unasked(now);
        self.shared.forget_handed_over(now);
        let client = ClientId::new(takeover.client);
        let successor = Successor { owner: takeover.owner, epoch: takeover.epoch, through: link };
        if self.shared.hand_over_again(&client, successor) {
            return;
        }
        let found = self.find_client(&client);
        match found.and_then(|id| self.connections.find_mut(id).map(|connection| (id, &mut connection.phase)))
        {
            Some((id, Phase::Established(session))) if session.epoch < takeover.epoch => {
                let known = session.durable.is_some().then(|| record_of(session.progress()));
                let owes_will = session.will.is_some();
                let epoch = session.epoch;
                self.shared.stats.takeovers += 1;
                self.end_as(id, CloseReason::SessionTakenOver, Leaving::HandedOver, now);
                self.shared.report_once_saved_elsewhere(&client, epoch, successor.epoch, now);
                self.pass_on(&client, successor, known, owes_will, now);
            }
            // It hears once the store has answered us, and the owner before us too.
            Some((_, Phase::Opening(opening)))
                if !opening.is_waiting()
                    && opening.opened.as_ref().is_none_or(|opened| opened.epoch < takeover.epoch) =>
            {
                if let Some(earlier) = succeed(&mut opening.successor, successor) {
                    self.pass_on_what_is_left(&client, earlier, now);
                }
            }
            _ => self.pass_on_what_is_left(&client, successor, now),
        }
    }

    /// Tells the next owner what connections knew that have ended, as far as the store may not have heard of it in time.
    pub(crate) fn pass_on_what_is_left(&mut self, client: &ClientId, successor: Successor, now: Now) {
        let unclaimed = self
            .shared
            .unclaimed_of(client)
            .map(|(_, unclaimed)| unclaimed)
            .filter(|unclaimed| unclaimed.opened.as_ref().is_none_or(|opened| opened.epoch < successor.epoch))
            .max_by_key(|unclaimed| unclaimed.number);
        let earlier = match unclaimed {
            Some(unclaimed) => succeed(&mut unclaimed.successor, successor),
            None => Some(successor),
        };
        let Some(successor) = earlier else { return };
        let last = self.shared.closing.last_before(client, successor.epoch);
        if let Some((_, epoch)) = &last {
            self.shared.report_once_saved_elsewhere(client, *epoch, successor.epoch, now);
        }
        let left = last.and_then(|closing| self.shared.closing.remove(&closing));
        let owes_will = left.as_ref().is_some_and(|left| left.owes_will);
        let known = left.and_then(|left| left.progress).map(record_of);
        self.pass_on(client, successor, known, owes_will, now);
    }

    /// The store has said which epoch a connection's session has. A takeover that came before it may have meant an earlier connection.
    pub(crate) fn sort_out_successor(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        successor: &mut Option<Successor>,
        now: Now,
    ) {
        if let Some(earlier) = successor.take_if(|successor| successor.epoch < epoch) {
            self.pass_on_what_is_left(client, earlier, now);
        }
    }

    /// Waits a moment for what the former owner knows, if there is a session or a will to know something of: its own, or that of an earlier connection here
    /// which ended while it waited.
    pub(crate) fn await_handover(
        &mut self,
        id: ConnectionId,
        opened: Opened,
        inherited: Option<Epoch>,
        now: Now,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Opening(opening) = &mut connection.phase else { return };
        if opened.session.is_none() && opened.will.is_none() && inherited.is_none() {
            return self.establish(id, opened, now);
        }
        let key = (opening.session.client.clone(), id);
        opening.inherited = inherited;
        opening.opened = Some(opened);
        self.shared.handovers.push_back((now.monotonic_ms + HANDOVER_MS_MAX, key));
    }

    /// The former owner of a session has told what it knows.
    pub(crate) fn handle_handover(&mut self, link: LinkIndex, handover: &Handover<'_>, now: Now) {
        let client = ClientId::new(handover.client);
        let former = self.shared.handle_former_owner(&client, handover.epoch);
        let newer = SessionRecord::decode(handover.session).ok();
        let awaits_word = newer.as_ref().is_some_and(|newer| !is_all_saved(newer));
        let handed_over = former.filter(|_| awaits_word);
        let mut handed_over =
            handed_over.map(|former| HandedOverBy { former, epoch: handover.epoch, through: link });
        if let Some(id) = self.find_client(&client)
            && let Some(connection) = self.connections.find_mut(id)
            && let Phase::Opening(opening) = &mut connection.phase
            && let Some(mut opened) = opening
                .opened
                .take_if(|opened| opened.epoch == handover.epoch || opening.inherited == Some(handover.epoch))
        {
            self.shared.hear_of_will(&mut opened, handover.owes_will);
            self.note_handed_over(&client, &opened, handed_over);
            take_over(&mut opened, newer);
            return self.establish(id, opened, now);
        }
        let waiting = self.shared.unclaimed_of(&client).find_map(|(key, unclaimed)| {
            let waits = unclaimed.awaited_epoch() == Some(handover.epoch) && !unclaimed.is_told;
            waits.then(|| key.clone())
        });
        let unclaimed = waiting.and_then(|key| Some((self.shared.unclaimed.remove(&key)?, key)));
        let Some((mut unclaimed, key)) = unclaimed else {
            // It came too late, or a second time: what was saved then has been confirmed.
            if let Some(handed_over) = handed_over {
                self.shared.settle_handover(&client, &handed_over, Outcome::ConnectionLost);
            }
            return;
        };
        if let Some(opened) = &mut unclaimed.opened {
            self.shared.hear_of_will(opened, handover.owes_will);
            self.shared.publish_owed(key.1, opened, now);
            self.note_handed_over(&client, opened, handed_over.take());
            take_over(opened, newer);
        }
        unclaimed.is_told = true;
        let is_succeeded = unclaimed.successor.is_some();
        self.shared.unclaimed.insert(key.clone(), unclaimed);
        // A newer connection that the store has not answered takes it up with that answer.
        if is_succeeded || !self.is_opening(&client) {
            self.settle_unclaimed(&key, now);
        }
    }

    /// Its former owner hears once what it alone had is saved under the session's new epoch, or that a clean start has ended it.
    fn note_handed_over(&mut self, client: &ClientId, opened: &Opened, handed_over: Option<HandedOverBy>) {
        let Some(handed_over) = handed_over else { return };
        if opened.session.is_some() {
            self.shared.confirm_once_saved(client, opened.epoch, handed_over);
        } else {
            self.shared.settle_handover(client, &handed_over, Outcome::InDoubt);
        }
    }

    /// Somebody waits for that.
    pub(crate) fn save_at_once(&mut self, id: ConnectionId, now: Now) {
        let session = self.connections.find_mut(id).and_then(Connection::session_mut);
        let Some(durable) = session.and_then(|session| session.durable.as_mut()) else { return };
        durable.unsaved = true;
        self.save(id, now);
    }

    /// A bridge has no link of a session's former owner. If none has, its epoch fences it, and a will that it may not have published is ours.
    pub(crate) fn handle_not_linked(&mut self, link: LinkIndex, client: &str, epoch: Epoch, now: Now) {
        if self.shared.ask_elsewhere(&ClientId::new(client), epoch, link) {
            let owner = self.shared.owner;
            let handover = Handover { client, epoch, owner, session: &[], owes_will: true };
            self.handle_handover(link, &handover, now);
        }
    }

    /// A former owner has been waited for long enough: what the store knows has to do.
    pub(crate) fn handle_late_handovers(&mut self, now: Now) {
        while let Some((due_ms, _)) = self.shared.handovers.front()
            && *due_ms <= now.monotonic_ms
        {
            let Some((_, key)) = self.shared.handovers.pop_front() else { return };
            let (client, id) = &key;
            if let Some(connection) = self.connections.find_mut(*id)
                && let Phase::Opening(opening) = &mut connection.phase
                && let Some(opened) = opening.opened.take()
            {
                self.shared.stats.handovers_late += 1;
                self.establish(*id, opened, now);
            } else if self.shared.unclaimed.get(&key).is_some_and(|unclaimed| unclaimed.is_told)
                && self.is_opening(client)
            {
                self.shared.handovers.push_back((now.monotonic_ms + HANDOVER_MS_MAX, key));
            } else if self.shared.unclaimed.contains_key(&key) {
                self.shared.stats.handovers_late += 1;
                self.settle_unclaimed(&key, now);
            }
        }
    }

    /// Tells the next owner what the owners before us knew.
    pub(crate) fn pass_on(
        &mut self,
        client: &ClientId,
        successor: Successor,
        session: Option<SessionRecord>,
        owes_will: bool,
        now: Now,
    ) {
        let mut known = Vec::new();
        if let Some(session) = session {
            if is_all_saved(&session) {
                // The next owner has nothing to say of that: its client has acknowledged here what the owners before us had.
                self.shared.report_settled(client, successor.epoch, Outcome::Kept);
            }
            SessionRecord { subscriptions: Vec::new(), ..session }.encode(&mut known);
        }
        self.shared.hand_over(client, successor, known, owes_will, now);
    }

    // ---- sessions whose connection ended before its CONNACK ----

    /// A connection ended while the store, or a former owner, was waited for.
    pub(crate) fn leave_unclaimed(&mut self, id: ConnectionId, opening: Opening, now: Now) {
        if self.shared.unclaimed.len() >= UNCLAIMED_MAX
            && let Some((key, _)) = self.shared.unclaimed.first_key_value()
        {
            let key = key.clone();
            self.settle_unclaimed(&key, now);
            self.shared.unclaimed.remove(&key);
        }
        let number = self.shared.number();
        let unclaimed = Unclaimed {
            number,
            expiry_s: opening.session.expiry_s,
            inherited: opening.inherited,
            successor: opening.successor,
            opened: opening.opened,
            is_told: false,
            is_past: false,
        };
        self.shared.unclaimed.insert((opening.session.client.clone(), id), unclaimed);
    }

    /// The store opened a session whose connection is gone already. It rests again once its former owner, who is told all the same, has said
    /// what it knows: the store names that owner to nobody else.
    pub(crate) fn handle_opened_unclaimed(
        &mut self,
        id: ConnectionId,
        client: ClientId,
        expiry_s: u32,
        mut opened: Opened,
        now: Now,
    ) {
        if self.shared.is_answered_again(&client, &opened) {
            (opened.former, opened.will) = (None, None);
        }
        let key = (client, id);
        let mut unclaimed =
            self.shared.unclaimed.remove(&key).unwrap_or(Unclaimed { expiry_s, ..Unclaimed::default() });
        let is_awaited = match opened.former.filter(|former| *former != self.shared.owner) {
            Some(former) => {
                unclaimed.inherited = None;
                self.pass_over_unclaimed(&key.0);
                let is_told = self.shared.say_takeover(&key.0, opened.epoch, former);
                is_told && (opened.session.is_some() || opened.will.is_some())
            }
            None => {
                unclaimed.inherited = unclaimed.inherited.or(self.adopt(&key.0, &mut opened, now));
                unclaimed.inherited.is_some()
            }
        };
        unclaimed.is_told = !is_awaited;
        if !is_awaited {
            self.shared.publish_owed(key.1, &mut opened, now);
        }
        self.sort_out_successor(&key.0, opened.epoch, &mut unclaimed.successor, now);
        unclaimed.opened = Some(opened);
        self.shared.unclaimed.insert(key.clone(), unclaimed);
        if is_awaited || self.is_opening(&key.0) {
            self.shared.handovers.push_back((now.monotonic_ms + HANDOVER_MS_MAX, key));
        } else {
            self.settle_unclaimed(&key, now);
        }
    }

    /// The store did not open it.
    pub(crate) fn forget_unclaimed(&mut self, client: &ClientId, id: ConnectionId, now: Now) {
        let unclaimed = self.shared.unclaimed.remove(&(client.clone(), id));
        if let Some(successor) = unclaimed.and_then(|unclaimed| unclaimed.successor) {
            self.pass_on(client, successor, None, false, now);
        }
    }

    /// A newer connection of the same client takes up what an older one has left. If that still waits for its former owner, so does the newer one:
    /// under this epoch.
    pub(crate) fn adopt(&mut self, client: &ClientId, opened: &mut Opened, now: Now) -> Option<Epoch> {
        let (_, last) = self
            .shared
            .unclaimed_of(client)
            .filter(|(_, unclaimed)| unclaimed.successor.is_none() && !unclaimed.is_past)
            .filter_map(|(key, unclaimed)| Some((unclaimed.opened.as_ref()?.epoch, key.clone())))
            .max()?;
        let unclaimed = self.shared.unclaimed.remove(&last)?;
        self.pass_over_unclaimed(client);
        let awaited = unclaimed.awaited_epoch().filter(|_| !unclaimed.is_told);
        let earlier = unclaimed.opened?;
        if awaited.is_none() {
            self.shared.keeping.confirm_under(client, earlier.epoch, opened.epoch);
            take_over(opened, earlier.session);
        } else if let Some(will) = earlier.will {
            // What the former owner says is said of this one.
            if let Some(later) = opened.will.replace(will) {
                self.shared.publish_for(last.1, later, now);
            }
        }
        awaited
    }

    /// Another connection had the session after all of this client that have ended here: none takes up any more what they have left.
    pub(crate) fn pass_over_unclaimed(&mut self, client: &ClientId) {
        let left = self.shared.unclaimed_of(client).filter(|(_, unclaimed)| unclaimed.opened.is_some());
        left.for_each(|(_, unclaimed)| unclaimed.is_past = true);
    }

    /// Whether the store is asked to open this client's session, for a connection that is here or has ended meanwhile.
    fn is_opening(&self, client: &ClientId) -> bool {
        let found = self.find_client(client).and_then(|id| self.connections.find(id));
        let is_asked_about = match found.map(|connection| &connection.phase) {
            Some(Phase::Opening(opening)) => !opening.is_waiting() && opening.opened.is_none(),
            _ => false,
        };
        is_asked_about
            || self.shared.unclaimed.range(all_of(client)).any(|(_, unclaimed)| unclaimed.opened.is_none())
    }

    /// Nothing more is to be expected: the session goes on to its next owner, or rests.
    fn settle_unclaimed(&mut self, key: &(ClientId, ConnectionId), now: Now) {
        let Some(unclaimed) = self.shared.unclaimed.get_mut(key) else { return };
        let Some(mut opened) = unclaimed.opened.take() else { return };
        let (expiry_s, successor) = (unclaimed.expiry_s, unclaimed.successor);
        self.shared.unclaimed.remove(key);
        let (client, id) = key;
        self.shared.publish_owed(*id, &mut opened, now);
        if let Some(successor) = successor {
            self.shared.report_once_saved_elsewhere(client, opened.epoch, successor.epoch, now);
            return self.pass_on(client, successor, opened.session, false, now);
        }
        let progress = opened.session.map_or_else(Progress::default, |record| Progress {
            cursors: record.cursors,
            received: record.received,
            inflight: record.inflight,
        });
        // It was never told that its own will is known.
        self.close_session(client.clone(), opened.epoch, expiry_s, progress, None, now);
    }
}

/// Sessions that are held for their former owner. Beyond it the first one rests with what the store knows.
const UNCLAIMED_MAX: usize = 10_000;

/// What is to be told of an ended session to its next owner, should that one come before the store has heard of the end.
#[derive(Debug)]
pub(crate) struct Left {
    /// How far it came; none if it was to end with its connection.
    pub(crate) progress: Option<Progress>,
    /// Its will is neither published nor taken back.
    pub(crate) owes_will: bool,
}

/// A session whose connection ended before its CONNACK.
#[derive(Debug, Default)]
pub(crate) struct Unclaimed {
    /// Later ones have higher numbers.
    number: u64,
    expiry_s: u32,
    /// See [`Opening::inherited`].
    inherited: Option<Epoch>,
    successor: Option<Successor>,
    /// None while the store has not answered.
    opened: Option<Opened>,
    /// The former owner has said what it knows, or is not waited for.
    is_told: bool,
    /// A later connection has had the session.
    is_past: bool,
}

impl Unclaimed {
    /// The epoch under which the former owner's answer is awaited.
    fn awaited_epoch(&self) -> Option<Epoch> {
        self.opened.as_ref().map(|opened| self.inherited.unwrap_or(opened.epoch))
    }
}

impl Shared {
    /// Whether a connection of this client that has ended waits to hear from the former owner of this will.
    pub(crate) fn awaits_will(&mut self, client: &ClientId, number: u64) -> bool {
        let is_it = |opened: &Opened| opened.will.as_ref().is_some_and(|due| due.number == number);
        self.unclaimed_of(client).any(|(_, unclaimed)| unclaimed.opened.as_ref().is_some_and(is_it))
    }

    /// The former owner has said whether the will that fell due by an opening is still owed.
    fn hear_of_will(&mut self, opened: &mut Opened, owes_will: bool) {
        if let Some(due) = opened.will.take_if(|_| !owes_will) {
            self.strike_out(due.client, due.number);
        }
    }

    pub(crate) fn unclaimed_of(
        &mut self,
        client: &ClientId,
    ) -> impl Iterator<Item = (&(ClientId, ConnectionId), &mut Unclaimed)> {
        self.unclaimed.range_mut(all_of(client))
    }
}

/// The keys of all connections of a client.
fn all_of(client: &ClientId) -> RangeInclusive<(ClientId, ConnectionId)> {
    let first = ConnectionId { slot: 0, generation: 0 };
    let last = ConnectionId { slot: u32::MAX, generation: u32::MAX };
    (client.clone(), first)..=(client.clone(), last)
}

/// Notes who owns the session next. Given back is one that came for an earlier epoch of ours.
fn succeed(known: &mut Option<Successor>, successor: Successor) -> Option<Successor> {
    match known {
        Some(known) if known.epoch == successor.epoch => {
            // It asks again: what it was to hear by another way would not arrive.
            *known = successor;
            None
        }
        Some(known) if known.epoch > successor.epoch => Some(successor),
        _ => known.replace(successor),
    }
}

/// Whether the store has all messages of it.
fn is_all_saved(record: &SessionRecord) -> bool {
    record.inflight.iter().all(|inflight| inflight.message.is_none() || !inflight.positions.is_empty())
}

fn record_of(progress: Progress) -> SessionRecord {
    let Progress { cursors, received, inflight } = progress;
    SessionRecord { subscriptions: Vec::new(), cursors, received, inflight }
}

/// What a former owner knows takes the place of what the store does; the subscriptions are as the store has them, and so are places in streams of which that owner
/// has not heard: its client may have subscribed at the last moment.
fn take_over(opened: &mut Opened, newer: Option<SessionRecord>) {
    if let (Some(record), Some(mut newer)) = (&mut opened.session, newer) {
        record.cursors.retain(|known| newer.cursors.iter().all(|cursor| cursor.stream != known.stream));
        newer.cursors.append(&mut record.cursors);
        *record = SessionRecord { subscriptions: std::mem::take(&mut record.subscriptions), ..newer };
    }
}
