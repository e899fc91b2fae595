//! The engine's surface: everything that can happen to a shard, and everything it may want done.
//!
//! The shell calls `handle_*` for what happened, and once per turn drains [`Engine::poll_action`], [`Engine::flush`] and
//! [`Engine::link_output`]. Handlers for packets, messages and sessions live beside what they handle, as further `impl Engine` blocks;
//! `reading`, `replies` (of the store) and `endings` (of connections) are the engine's own rooms.

pub(crate) mod endings;
mod reading;
mod replies;
pub(crate) mod view;

use std::hash::Hasher;

use hashbrown::HashTable;
use holdfast_wire::ids::{ClientId, Owner};
use holdfast_wire::link::{HandoverSettled, Settled, ToGateway, Welcome};

use crate::connection::close::CloseReason;
use crate::connection::deliver;
use crate::connection::table::Connections;
use crate::connection::{Connection, Phase, acknowledge, retained, streams, subscribe};
use crate::drain::Drain;
use crate::engine::endings::Leaving;
use crate::input::{AcceptRefused, ConnectionId, LinkIndex, Listener, Now, SocketEnd};
use crate::last_words::LastWords;
use crate::limits::EngineConfig;
use crate::output::Action;
use crate::requests::Asked;
use crate::session::durable;
use crate::session::receipts::Receipt;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::timers::TICK_MS;
use crate::topics::fan_out::FanOut;
use crate::topics::interest::{LINKS_MAX, Waiter};
use crate::uplink::{Kind, Moved};

/// The brain of one shard.
#[derive(Debug)]
pub struct Engine {
    pub(crate) connections: Connections,
    pub(crate) shared: Shared,
    pub(crate) fan_out: FanOut,
    /// Slots of connections that have named their client, by the client id's hash.
    clients: HashTable<u32>,
    /// Connections that have not sent their CONNECT.
    pub(crate) half_open: u32,
    pub(crate) drain: Option<Drain>,
}

impl Engine {
    /// An engine without connections. `owner` is what the store knows it by, `links` how many bridges are known at first (1 to
    /// 64), `seed` determines assigned client ids.
    pub fn new(config: EngineConfig, owner: Owner, links: u16, seed: u64) -> Self {
        debug_assert!(links <= LINKS_MAX);
        Self {
            connections: Connections::default(),
            shared: Shared::new(config, owner, links, seed),
            fan_out: FanOut::default(),
            clients: HashTable::new(),
            half_open: 0,
            drain: None,
        }
    }

    /// A further bridge is known; its link is down. None beyond 64: the shell gives it the index of one that has left.
    pub fn add_link(&mut self) -> Option<LinkIndex> {
        self.shared.uplinks.add()
    }

    /// A socket was accepted.
    pub fn handle_accept(&mut self, listener: Listener, now: Now) -> Result<ConnectionId, AcceptRefused> {
        let limits = &self.shared.config.limits;
        let refused = if self.drain.is_some() || self.shared.ownership.is_buried() {
            Some(AcceptRefused::Draining)
        } else if self.connections.len() >= limits.connections_max {
            Some(AcceptRefused::Full)
        } else if self.half_open >= limits.half_open_max {
            Some(AcceptRefused::TooManyHalfOpen)
        } else {
            None
        };
        if let Some(refused) = refused {
            self.shared.stats.accept_refused += 1;
            return Err(refused);
        }
        let (id, connection) = self.connections.take();
        connection.phase = match listener {
            Listener::Mqtt => Phase::Greeting,
            Listener::WebSocket => Phase::Upgrading,
        };
        connection.hear(now.monotonic_ms);
        connection.timer_tick = self.shared.timers.schedule(id, now.monotonic_ms + limits.connect_timeout_ms);
        self.shared.outbox.reserve_slot(id.slot);
        self.half_open += 1;
        self.shared.stats.accepted += 1;
        Ok(id)
    }

    /// Bytes came, in any split. They are decoded where they lie, so they are changed (WebSocket masks).
    pub fn handle_bytes(&mut self, id: ConnectionId, bytes: &mut [u8], now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let read = match (&connection.phase, &connection.websocket) {
            (Phase::Closing | Phase::Free, _) => return,
            (Phase::Upgrading, _) => self.read_upgrade(id, bytes, now),
            (_, Some(_)) => self.read_frames(id, bytes, now),
            (_, None) => self.read_packets(id, bytes, now),
        };
        if let Err(reason) = read {
            self.end(id, reason, now);
        }
    }

    /// The socket is gone. Comes once for each accepted connection, whoever closed it, and frees the slot.
    pub fn handle_closed(&mut self, id: ConnectionId, end: SocketEnd, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        if !matches!(connection.phase, Phase::Closing) {
            let reason = match end {
                SocketEnd::Fin | SocketEnd::ByUs => CloseReason::PeerClosed,
                SocketEnd::Reset => CloseReason::PeerReset,
                SocketEnd::TimedOut => CloseReason::PeerTimedOut,
                SocketEnd::Overflowed => CloseReason::SlowConsumer,
            };
            self.shared.stats.closed.add(reason);
            self.tear_down(id, reason, Leaving::Saved, now);
        }
        self.shared.outbox.discard(id.slot);
        self.connections.release(id);
    }

    /// The kernel took less than all: the shell holds the rest, and nothing more is to be read from this connection.
    pub fn handle_blocked(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find_mut(id) {
            connection.blocked = true;
        }
    }

    /// The kernel has taken everything.
    pub fn handle_unblocked(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !std::mem::replace(&mut connection.blocked, false) {
            return;
        }
        deliver::pump(connection, id, &mut self.shared, now);
        self.shared.actions.push_back(Action::ResumeRead(id));
    }

    /// A bridge has accepted this shard's link.
    pub fn handle_link_up(&mut self, link: LinkIndex, welcome: Welcome, now: Now) {
        let Self { connections, shared, .. } = self;
        let Shared { uplinks, last_words, .. } = shared;
        uplinks.up(link, welcome, |moved| _ = follow(connections, last_words, moved));
        shared.interests.link_up(link, &mut shared.uplinks);
        self.shared.say_takeovers_again();
        self.ask_retained_again(None);
        self.resume_waiting(now);
    }

    /// A link was lost.
    pub fn handle_link_down(&mut self, link: LinkIndex, now: Now) {
        self.shared.stats.links_overrun += u64::from(self.link_overflows(link));
        let Self { connections, shared, .. } = self;
        let Shared { uplinks, last_words, .. } = shared;
        let mut silent = Vec::new();
        uplinks.down(link, |moved| silent.extend(follow(connections, last_words, moved)));
        for client in &silent {
            shared.handle_silence(client);
        }
        let woken = shared.interests.link_down(link);
        if shared.uplinks.live().next().is_some() {
            // Should this bridge not come back, what it put into streams and could not deliver is found all the same.
            self.read_streams_again();
        }
        self.shared.say_takeovers_elsewhere(link);
        self.ask_retained_again(Some(link));
        self.wake(woken, now);
        self.resume_waiting(now);
    }

    /// A bridge says something.
    pub fn handle_link_record(&mut self, link: LinkIndex, record: &ToGateway<'_>, now: Now) {
        match record {
            ToGateway::Settled(settled) => self.handle_settled(link, *settled, None, now),
            ToGateway::WindowBytes(bytes) => {
                self.shared.uplinks.set_window(link, *bytes);
                self.resume_waiting(now);
            }
            ToGateway::InterestKnown(token) => {
                if self.shared.interests.is_barrier(*token, link) {
                    self.read_streams_again();
                }
                let woken = self.shared.interests.known(*token, link);
                self.wake(woken, now);
            }
            ToGateway::Deliver(deliver) => self.handle_deliver(link, deliver, now),
            ToGateway::RetainedMessage { token, message } => self.handle_retained(*token, message, now),
            ToGateway::RetainedEnd { token, more } => {
                if let Some(asked) = self.shared.retained_asked.remove(token)
                    && let Some(connection) = self.connections.find_mut(asked.connection)
                {
                    retained::take_end(connection, asked.connection, &mut self.shared, *more);
                }
            }
            ToGateway::GroupWaits { group, filter } => self.tell_member(group, filter),
            ToGateway::Takeover(takeover) => {
                self.handle_takeover(link, takeover, now);
            }
            ToGateway::Handover(handover) => self.handle_handover(link, handover, now),
            ToGateway::HandoverSettled(HandoverSettled { client, epoch, outcome, .. }) => {
                self.shared.report_settled(&ClientId::new(client), *epoch, *outcome);
            }
            ToGateway::NotLinked { client, epoch } => self.handle_not_linked(link, client, *epoch, now),
            ToGateway::Disconnect(client) => {
                self.disconnect(client, now);
            }
            ToGateway::SettledAt(settled) => {
                let run = Settled { first: settled.sequence, last: settled.sequence, reason_code: 0 };
                self.handle_settled(link, run, Receipt::new(settled), now);
            }
            // The shell deals with the opening of a link and its keep alive.
            ToGateway::Welcome(_) | ToGateway::Refused(_) | ToGateway::Alive => {}
        }
    }

    /// Time has passed. Cheap when nothing is due.
    pub fn handle_timers(&mut self, now: Now) {
        self.judge_silence(now);
        self.handle_steps(now);
    }

    /// The same, but nobody is judged by silence: what would have broken it may still lie in the kernel. The store, bridges and those who leave do
    /// not wait for that.
    pub fn handle_steps(&mut self, now: Now) {
        let save_interval_ms = self.shared.config.limits.save_interval_ms;
        while let Some((since_ms, id)) = self.shared.unsaved.front().copied()
            && since_ms + save_interval_ms <= now.monotonic_ms
        {
            self.shared.unsaved.pop_front();
            self.save(id, now);
        }
        self.close_again(now);
        self.forget_unasked(now);
        self.shared.forget_handed_over(now);
        self.shared.say_overdue(now);
        self.shared.report_overdue(now);
        self.shared.close_overdue(now);
        self.shared.go_on_with_wills(now);
        self.admit(now);
        self.look_up_strays(now);
        self.write_back(now);
        self.handle_late_handovers(now);
        streams::forget_read(&mut self.connections, &mut self.shared, now);
        self.go_on_draining(now);
    }

    fn judge_silence(&mut self, now: Now) {
        while let Some((tick, due)) = self.shared.timers.take_due(now.monotonic_ms) {
            for id in due {
                self.handle_due(id, tick, now);
            }
        }
    }

    /// Goes on with a fan-out, with connections that had more than one turn allows, or with sessions that are to read again. Flush in between.
    pub fn handle_work(&mut self, now: Now) {
        self.fan_out_slice(now);
        self.go_on_rereading();
        let mut behind = std::mem::take(&mut self.shared.behind);
        behind.sort_unstable();
        behind.dedup();
        for id in behind {
            if let Some(connection) = self.connections.find_mut(id) {
                deliver::pump(connection, id, &mut self.shared, now);
            }
        }
    }

    /// Takes up a new configuration. Connections keep what their CONNACK told them.
    pub fn handle_reload(&mut self, config: EngineConfig) {
        self.shared.config = config;
    }

    /// An operator disconnects a client; false if it is not here.
    pub fn disconnect(&mut self, client: &str, now: Now) -> bool {
        let found = self.find_client(client);
        if let Some(id) = found {
            self.end(id, CloseReason::AdministrativeAction, now);
        }
        found.is_some()
    }

    /// The next thing to do. Everything is to be drained after each batch of inputs.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }

    /// Hands out the bytes of this turn: each connection that has any once, in one piece.
    pub fn flush(&mut self, send: impl FnMut(ConnectionId, &[u8])) {
        self.shared.outbox.flush(send);
    }

    /// Records for a link. The shell takes them all at once, when the socket has taken the last ones, and adds none.
    pub fn link_output(&mut self, link: LinkIndex) -> &mut Vec<u8> {
        self.shared.uplinks.output(link)
    }

    /// More waits in [`Engine::link_output`] than may ([`Limits::link_bytes_max`](crate::Limits::link_bytes_max)). If the socket takes nothing, the link
    /// is to be closed: [`Engine::handle_link_down`] and, once it is dialled again, [`Engine::handle_link_up`] say elsewhere or anew what matters.
    pub fn link_overflows(&self, link: LinkIndex) -> bool {
        self.shared.uplinks.said_bytes(link) > self.shared.config.limits.link_bytes_max
    }

    /// When [`Engine::handle_timers`] has something to do, in ms of the monotonic clock.
    pub fn next_timer_ms(&self, now: Now) -> Option<u64> {
        let saves = self
            .shared
            .unsaved
            .front()
            .map(|(since_ms, _)| since_ms + self.shared.config.limits.save_interval_ms);
        let wills = self.shared.wills.next_ms();
        let closes = self.shared.unclosed.next_ms();
        let drain = self.drain_step_ms(now.monotonic_ms);
        let handovers = self.shared.handovers.front().map(|(due_ms, _)| *due_ms);
        let held_back = self.shared.handed_over.next_ms();
        let last_words = self.shared.last_words.next_ms();
        let ownership = self.shared.ownership.next_ms();
        let admission = self.shared.admission.next_ms();
        let strays = self.shared.strays.next_ms();
        let timers = self.shared.timers.next_ms();
        let keeping = self.shared.keeping.next_ms();
        let waits = [wills, closes, handovers, held_back, keeping, last_words, ownership, admission, strays];
        waits.into_iter().chain([timers, saves, drain]).flatten().min()
    }

    /// Something is under way: call [`Engine::handle_work`], and do not read links meanwhile.
    pub fn has_work(&self) -> bool {
        // Those who are behind go on once the outbox is flushed, not before.
        self.fan_out.is_busy()
            || self.has_rereading()
            || (!self.shared.behind.is_empty() && self.shared.outbox.bytes() == 0)
    }

    /// Whether the connection is to be read now. If not, its bytes stay in the kernel until [`Action::ResumeRead`].
    pub fn may_read(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.find_mut(id) else { return false };
        let link = match &connection.phase {
            Phase::Upgrading | Phase::Greeting => return true,
            Phase::Opening(_) | Phase::Closing | Phase::Free => return false,
            Phase::Established(session) => session.link,
        };
        if connection.blocked || connection.stalled || connection.leaving || connection.doubted {
            return false;
        }
        if link.is_some_and(|link| self.shared.uplinks.takes_more(link)) {
            return true;
        }
        // It may be served by another link by now.
        if let Some(session) = connection.session_mut() {
            self.shared.find_link(session);
            if session.link.is_some_and(|link| self.shared.uplinks.takes_more(link)) {
                return true;
            }
        }
        let link = connection.session().and_then(|session| session.link);
        if !std::mem::replace(&mut connection.waiting, true) {
            self.shared.stats.paused += 1;
            self.shared.uplinks.wait(link, id);
        }
        false
    }

    /// Connections that have not ended.
    pub fn connections(&self) -> u32 {
        self.connections.len()
    }

    /// Connections that have not sent their CONNECT.
    pub fn half_open(&self) -> u32 {
        self.half_open
    }

    /// What has happened since the start.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    // ---- answers of bridges ----

    /// A run of frames was settled; a single one may come with its receipt.
    fn handle_settled(
        &mut self,
        link: LinkIndex,
        settled: Settled,
        mut receipt: Option<Box<Receipt>>,
        now: Now,
    ) {
        let Self { connections, shared, .. } = self;
        let Shared { uplinks, outbox, stats, last_words, .. } = shared;
        let mut refused = Vec::new();
        let mut held_back = Vec::new();
        let (mut spoken, mut silent) = (Vec::new(), Vec::new());
        uplinks.settle(link, settled, |frame| {
            if frame.kind == Kind::OwedWill {
                spoken.push(frame.connection);
            }
            let Some(connection) = speaker(connections, frame.connection, frame.kind) else {
                silent.extend(last_words.settle(frame.connection));
                return;
            };
            let Some(session) = connection.session_mut() else { return };
            session.unsettled -= 1;
            let Some(packet_id) = frame.packet_id else { return };
            session.receiving.settle(packet_id, frame.reason_code, receipt.take());
            if let Err(reason) = acknowledge::acknowledge(connection, frame.connection, outbox, stats) {
                refused.push((frame.connection, reason));
            } else if connection.stalled && !connection.waiting {
                held_back.push(frame.connection);
            }
        });
        for opener in spoken {
            self.shared.handle_spoken(opener);
        }
        for client in &silent {
            self.shared.handle_silence(client);
        }
        for (id, reason) in refused {
            if reason == CloseReason::Fenced {
                // It may be the node that is meant.
                self.shared.ask_lease();
            }
            self.end(id, reason, now);
        }
        for id in held_back {
            self.let_go_on(id, now);
        }
        self.resume_waiting(now);
    }

    /// Those who waited need not wait for one thing more.
    pub(crate) fn wake(&mut self, waiters: Vec<Waiter>, now: Now) {
        for waiter in waiters {
            match waiter {
                Waiter::Subscribe(ticket) => {
                    let Some(pending) = self.shared.subscribes.get_mut(&ticket) else { continue };
                    pending.waits -= 1;
                    if pending.waits == 0
                        && let Some(pending) = self.shared.subscribes.remove(&ticket)
                        && let Some(connection) = self.connections.find_mut(pending.connection)
                    {
                        let id = pending.connection;
                        subscribe::finish(connection, id, &mut self.shared, pending);
                        self.handle_answered(id, now);
                    }
                }
                Waiter::Resume(id) => {
                    let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
                    else {
                        continue;
                    };
                    let Some(durable) = &mut session.durable else { continue };
                    let durable::Phase::Announcing(waits) = &mut durable.phase else { continue };
                    *waits -= 1;
                    if *waits == 0 {
                        self.start_reading(id, now);
                    }
                }
            }
        }
    }

    /// A SUBSCRIBE or UNSUBSCRIBE was answered: one that waited for that may go on, unless its link holds it back too.
    fn handle_answered(&mut self, id: ConnectionId, now: Now) {
        if self.connections.find(id).is_some_and(|connection| connection.stalled && !connection.waiting) {
            self.let_go_on(id, now);
        }
    }

    fn handle_retained(&mut self, token: u64, message: &holdfast_wire::message::Message<'_>, now: Now) {
        let Some(asked) = self.shared.retained_asked.get(&token).copied() else { return };
        let Some(connection) = self.connections.find_mut(asked.connection) else { return };
        retained::take(connection, asked.connection, &mut self.shared, message, now);
    }

    /// Asks for retained messages again whose answer is not to be expected: of a link that was lost, or that were never asked for.
    fn ask_retained_again(&mut self, lost: Option<LinkIndex>) {
        let lost: Vec<_> = self.shared.retained_asked.extract_if(.., |_, asked| asked.link == lost).collect();
        for (_, asked) in lost {
            if let Some(connection) = self.connections.find_mut(asked.connection) {
                retained::ask_again(connection, asked.connection, &mut self.shared);
            }
        }
    }

    // ---- time ----

    fn handle_due(&mut self, id: ConnectionId, tick: u32, now: Now) {
        let connect_timeout_ms = self.shared.config.limits.connect_timeout_ms;
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.timer_tick != tick {
            return;
        }
        let Some(silence_ms_max) = connection.silence_ms_max(connect_timeout_ms) else { return };
        if connection.waiting || connection.stalled || connection.leaving || connection.doubted {
            // We are the ones who do not listen.
            connection.hear(now.monotonic_ms);
        }
        let silent_ms = connection.silent_ms(now.monotonic_ms);
        if silent_ms < silence_ms_max {
            let due_ms = now.monotonic_ms + (silence_ms_max - silent_ms).max(TICK_MS);
            connection.timer_tick = self.shared.timers.schedule(id, due_ms);
            return;
        }
        let reason = match &connection.phase {
            Phase::Opening(_) => CloseReason::StoreUnavailable,
            Phase::Established(_) if connection.blocked => CloseReason::SlowConsumer,
            Phase::Established(_) => CloseReason::KeepAliveTimeout,
            _ => CloseReason::ConnectTimeout,
        };
        self.end(id, reason, now);
    }

    pub(crate) fn save(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let doubted = connection.doubted;
        let Some(session) = connection.session_mut() else { return };
        let Some(durable) = &mut session.durable else { return };
        // What is in doubt is saved once it is known to be ours.
        if !std::mem::replace(&mut durable.unsaved, false) || doubted {
            return;
        }
        durable.claim_again();
        let request = session.save_request();
        self.shared.ask(Asked::Save(id), request);
        deliver::pump(connection, id, &mut self.shared, now);
    }

    // ---- the index by client id ----

    /// The connection that has named this client.
    pub(crate) fn find_client(&self, client: &str) -> Option<ConnectionId> {
        let connections = &self.connections;
        let slot = self.clients.find(hash(client), |slot| names(connections, *slot, client))?;
        connections.at(*slot).map(|(id, _)| id)
    }

    pub(crate) fn enter_client(&mut self, client: &str, slot: u32) {
        let connections = &self.connections;
        self.clients.insert_unique(hash(client), slot, |slot| {
            connections
                .at(*slot)
                .and_then(|(_, connection)| connection.client())
                .map_or(0, |client| hash(client))
        });
    }

    fn leave_client(&mut self, client: &str, slot: u32) {
        if let Ok(entry) = self.clients.find_entry(hash(client), |entered| *entered == slot) {
            entry.remove();
        }
    }
}

fn names(connections: &Connections, slot: u32, client: &str) -> bool {
    connections
        .at(slot)
        .is_some_and(|(_, connection)| connection.client().is_some_and(|held| **held == *client))
}

fn hash(client: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(client.as_bytes());
    hasher.finish()
}

/// The connection that has said this and waits for its settlement; none if it has ended, and for a will, which others than its own connection have sent.
fn speaker(connections: &mut Connections, id: ConnectionId, kind: Kind) -> Option<&mut Connection> {
    let connection = connections.find_mut(id)?;
    (!kind.is_will() && connection.session().is_some()).then_some(connection)
}

/// A session, or what is left of one, follows its frames to another link. Gives the client of which nothing is on its way any more.
fn follow(connections: &mut Connections, last_words: &mut LastWords, moved: Moved) -> Option<ClientId> {
    let session = speaker(connections, moved.connection, moved.kind).and_then(Connection::session_mut);
    match session {
        Some(session) if moved.dropped => session.unsettled -= 1,
        Some(session) if moved.to.is_some() => session.link = moved.to,
        Some(_) => {}
        None if moved.dropped => return last_words.settle(moved.connection),
        None => last_words.follow(moved.connection, moved.to),
    }
    None
}
