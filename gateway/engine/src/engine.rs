//! The engine's surface: everything that can happen to a shard, and everything it may want done.
//!
//! The shell calls `handle_*` for what happened, and once per turn drains [`Engine::poll_action`], [`Engine::flush`] and
//! [`Engine::link_output`]. Handlers for packets, messages and sessions live beside what they handle, as further `impl Engine` blocks.

pub(crate) mod view;

use std::hash::Hasher;

use hashbrown::HashTable;
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::json::Downlink;
use holdfast_wire::link::{Handover, Outcome, Settled, Takeover, ToBridge, ToGateway, Welcome};
use holdfast_wire::mqtt::{Disconnect, FixedHeader, PacketType, ProtocolVersion, ReasonCode};
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::{Progress, Reply, Request, StoreError};
use holdfast_wire::ws;

use crate::connection::close::CloseReason;
use crate::connection::deliver;
use crate::connection::publish::Taken;
use crate::connection::table::Connections;
use crate::connection::{Connection, Phase, Successor, acknowledge, json, retained, subscribe};
use crate::drain::Drain;
use crate::input::{AcceptRefused, ConnectionId, LinkIndex, Listener, Now, SocketEnd};
use crate::limits::EngineConfig;
use crate::output::{Action, RequestId};
use crate::requests::Asked;
use crate::session::receipts::Receipt;
use crate::session::{Protocol, Session, durable};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::timers::TICK_MS;
use crate::topics::fan_out::FanOut;
use crate::topics::interest::{LINKS_MAX, Waiter};
use crate::uplink::Moved;
use crate::will::{self, DelayedWill};

/// What becomes of the session when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It is written to the store, to rest there or to end.
    Saved,
    /// Another owner has it and was told what the store does not know; the store takes no more writes from here.
    HandedOver,
    /// Another owner has it.
    Lost,
}

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
        let refused = if self.drain.is_some() {
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
        shared.uplinks.up(link, welcome, |moved| follow(connections, moved));
        shared.interests.link_up(link, &mut shared.uplinks);
        self.shared.say_takeovers_again();
        self.ask_retained_again(None);
        self.resume_waiting(now);
    }

    /// A link was lost.
    pub fn handle_link_down(&mut self, link: LinkIndex, now: Now) {
        let Self { connections, shared, .. } = self;
        shared.uplinks.down(link, |moved| follow(connections, moved));
        let woken = shared.interests.link_down(link);
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
            ToGateway::Takeover(takeover) => {
                self.handle_takeover(link, takeover, now);
            }
            ToGateway::Handover(handover) => self.handle_handover(handover, now),
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

    /// The store answered, or failed to.
    pub fn handle_store_reply(&mut self, request: RequestId, result: Result<Reply, StoreError>, now: Now) {
        let Some(asked) = self.shared.asked.remove(&request) else { return };
        if matches!(&result, Err(error) if *error != StoreError::Fenced) {
            self.shared.stats.store_errors += 1;
        }
        match asked {
            Asked::Open(id, client, expiry_s) => match result {
                Ok(Reply::Opened(opened))
                    if self.connections.find(id).is_some_and(|c| matches!(c.phase, Phase::Opening(_))) =>
                {
                    self.handle_opened(id, opened, now);
                }
                Ok(Reply::Opened(opened)) => {
                    // The former owner is told all the same: the store names it to nobody else.
                    if let Some(former) = opened.former.filter(|former| *former != self.shared.owner) {
                        let _ =
                            self.shared.say_takeover(&client, opened.epoch, former, opened.session.is_none());
                    }
                    self.close_unclaimed(client, expiry_s, opened);
                }
                Ok(_) | Err(_) => self.end(id, CloseReason::StoreUnavailable, now),
            },
            Asked::Subscribe(ticket) => self.handle_subscribed(ticket, &result, now),
            Asked::Unsubscribe(id, filters, mut answer) => {
                if let Some(durable) = self
                    .connections
                    .find_mut(id)
                    .and_then(Connection::session_mut)
                    .and_then(|session| session.durable.as_mut())
                {
                    for filter in filters {
                        if let Some(place) =
                            durable.forgetting.iter().position(|forgotten| *forgotten == filter)
                        {
                            durable.forgetting.swap_remove(place);
                        }
                    }
                }
                if result.is_err() {
                    answer.codes.fill(u8::from(ReasonCode::ImplementationSpecificError));
                }
                if let Some(connection) = self.connections.find_mut(id)
                    && let Some(session) = connection.session_mut()
                {
                    session.asking -= 1;
                    let protocol = session.protocol;
                    subscribe::answer_unsubscribe(
                        protocol,
                        connection.framing(),
                        id,
                        &mut self.shared,
                        &answer,
                    );
                }
                self.end_if_fenced(id, &result, now);
                self.handle_answered(id, now);
            }
            Asked::Read(id, stream, read) => {
                let Some(connection) = self.connections.find_mut(id) else { return };
                let durable = connection.session_mut().and_then(|session| session.durable.as_ref());
                if durable.is_none_or(|durable| durable.reads != read) {
                    return;
                }
                match result {
                    Ok(Reply::Messages { messages, end }) => {
                        deliver::take_read(connection, id, &mut self.shared, stream, messages, end, now);
                    }
                    Ok(_) | Err(_) => {
                        // Tried again with the next save; the stream keeps what is in it.
                        if let Some(session) = connection.session_mut() {
                            if let Some(durable) = &mut session.durable {
                                durable.phase = durable::Phase::Reading { stream, asked: false };
                            }
                            deliver::touch(session, id, &mut self.shared, now);
                        }
                    }
                }
            }
            Asked::Save(id) => {
                if result.is_err()
                    && let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
                {
                    deliver::touch(session, id, &mut self.shared, now);
                }
                self.end_if_fenced(id, &result, now);
            }
            Asked::Close(closing) => {
                // A fenced one stays known here until its new owner has asked for it.
                if let (Some(closing), true) = (closing, result != Err(StoreError::Fenced)) {
                    self.shared.closing.remove(&closing);
                }
            }
            Asked::WillLookup(delayed) => {
                let reopened =
                    matches!(&result, Ok(Reply::Session(Some(info))) if info.epoch > delayed.epoch);
                if !reopened {
                    will::publish(&mut self.shared, &delayed.will, delayed.epoch, now);
                }
            }
        }
    }

    /// Time has passed. Cheap when nothing is due.
    pub fn handle_timers(&mut self, now: Now) {
        while let Some((tick, due)) = self.shared.timers.take_due(now.monotonic_ms) {
            for id in due {
                self.handle_due(id, tick, now);
            }
        }
        let save_interval_ms = self.shared.config.limits.save_interval_ms;
        while let Some((since_ms, id)) = self.shared.unsaved.front().copied()
            && since_ms + save_interval_ms <= now.monotonic_ms
        {
            self.shared.unsaved.pop_front();
            self.save(id, now);
        }
        while let Some(entry) = self.shared.delayed_wills.first_entry()
            && entry.key().0 <= now.monotonic_ms
        {
            let delayed = entry.remove();
            let request = Request::Lookup { client: delayed.client.clone() };
            self.shared.ask(Asked::WillLookup(delayed), request);
        }
        self.handle_late_handovers(now);
        self.go_on_draining(now);
    }

    /// Goes on with a fan-out, or with connections, that had more than one turn allows. Flush in between.
    pub fn handle_work(&mut self, now: Now) {
        self.fan_out_slice(now);
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

    /// Records for a link. The shell takes bytes off the front as the socket takes them.
    pub fn link_output(&mut self, link: LinkIndex) -> &mut Vec<u8> {
        self.shared.uplinks.output(link)
    }

    /// When [`Engine::handle_timers`] has something to do, in ms of the monotonic clock.
    pub fn next_timer_ms(&self, now: Now) -> Option<u64> {
        let saves = self
            .shared
            .unsaved
            .front()
            .map(|(since_ms, _)| since_ms + self.shared.config.limits.save_interval_ms);
        let wills = self.shared.delayed_wills.keys().next().map(|(due_ms, _)| *due_ms);
        let drain = self.drain_step_ms(now.monotonic_ms);
        let handovers = self.shared.handovers.front().map(|(due_ms, _)| *due_ms);
        [self.shared.timers.next_ms(), saves, wills, drain, handovers].into_iter().flatten().min()
    }

    /// A fan-out is under way: call [`Engine::handle_work`], and do not read links meanwhile.
    pub fn has_work(&self) -> bool {
        // Those who are behind go on once the outbox is flushed, not before.
        self.fan_out.is_busy() || (!self.shared.behind.is_empty() && self.shared.outbox.bytes() == 0)
    }

    /// Whether the connection is to be read now. If not, its bytes stay in the kernel until [`Action::ResumeRead`].
    pub fn may_read(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.find_mut(id) else { return false };
        let link = match &connection.phase {
            Phase::Upgrading | Phase::Greeting => return true,
            Phase::Opening(_) | Phase::Closing | Phase::Free => return false,
            Phase::Established(session) => session.link,
        };
        if connection.blocked || connection.stalled || connection.leaving {
            return false;
        }
        if link.is_some_and(|link| self.shared.uplinks.takes_more(link)) {
            return true;
        }
        // It may be served by another link by now.
        if let Some(session) = connection.session_mut()
            && session.unsettled == 0
            && session.links_version != self.shared.uplinks.version
        {
            session.link = self.shared.uplinks.choose(&session.client);
            session.links_version = self.shared.uplinks.version;
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

    // ---- reading ----

    /// MQTT bytes. What is not a whole packet, or may not be taken yet, is kept.
    pub(crate) fn read_packets(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let Some(mut kept) = connection.partial.take() else {
            let used = self.take_packets(id, bytes, now)?;
            self.keep(id, &bytes[used..]);
            return Ok(());
        };
        kept.extend_from_slice(bytes);
        let used = self.take_packets(id, &kept, now)?;
        kept.drain(..used);
        if !kept.is_empty()
            && let Some(connection) = self.connections.find_mut(id)
        {
            connection.partial = Some(kept);
        }
        Ok(())
    }

    /// Keeps bytes until more come; an empty rest keeps nothing (promise P9).
    pub(crate) fn keep(&mut self, id: ConnectionId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(connection) = self.connections.find_mut(id)
            && !matches!(connection.phase, Phase::Closing)
        {
            connection.partial = Some(Box::new(bytes.to_vec()));
        }
    }

    /// Handles whole packets; returns how many bytes they had.
    fn take_packets(&mut self, id: ConnectionId, bytes: &[u8], now: Now) -> Result<usize, CloseReason> {
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.find_mut(id) else { return Ok(bytes.len()) };
            if !connection.takes_packets() {
                return Ok(at);
            }
            let is_greeting = matches!(connection.phase, Phase::Greeting);
            let Some(header) = FixedHeader::decode(&bytes[at..])? else { return Ok(at) };
            if is_greeting {
                if header.packet_type != PacketType::Connect {
                    return Err(CloseReason::NotConnectFirst);
                }
            } else {
                header.check_for(connection.protocol.version())?;
            }
            if header.packet_length() > self.shared.config.mqtt.maximum_packet_size as usize {
                return Err(CloseReason::PacketTooLarge);
            }
            let Some(packet) = bytes.get(at..at + header.packet_length()) else { return Ok(at) };
            connection.hear(now.monotonic_ms);
            let body = &packet[usize::from(header.header_length)..];
            if is_greeting {
                self.handle_connect(id, header, body, now)?;
            } else if self.handle_packet(id, header, body, now)? == Taken::Stalled {
                return Ok(at);
            }
            at += packet.len();
        }
    }

    /// Goes on with what a connection has kept.
    pub(crate) fn go_on(&mut self, id: ConnectionId, now: Now) {
        let read = match self.connections.find(id) {
            Some(connection) if connection.protocol == Protocol::Json => self.take_waiting_texts(id, now),
            Some(_) => self.read_packets(id, &[], now),
            None => return,
        };
        if let Err(reason) = read {
            self.end(id, reason, now);
        }
    }

    /// Lets connections go on that wait for their links, as long as there is room.
    fn resume_waiting(&mut self, now: Now) {
        while let Some(id) = self.shared.uplinks.next_waiting() {
            if let Some(connection) = self.connections.find_mut(id) {
                connection.waiting = false;
                self.let_go_on(id, now);
            }
        }
    }

    /// Ends a stall: what was kept is taken, and unless that stalls again the socket is read again.
    fn let_go_on(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.stalled = false;
        connection.hear(now.monotonic_ms);
        self.go_on(id, now);
        if self.connections.find(id).is_some_and(|connection| !connection.stalled) {
            self.shared.actions.push_back(Action::ResumeRead(id));
        }
    }

    // ---- answers of bridges and store ----

    /// A run of frames was settled; a single one may come with its receipt.
    fn handle_settled(
        &mut self,
        link: LinkIndex,
        settled: Settled,
        mut receipt: Option<Box<Receipt>>,
        now: Now,
    ) {
        let Self { connections, shared, .. } = self;
        let Shared { uplinks, outbox, stats, .. } = shared;
        let mut refused = Vec::new();
        let mut held_back = Vec::new();
        uplinks.settle(link, settled, |frame| {
            let Some(connection) = connections.find_mut(frame.connection) else { return };
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
        for (id, reason) in refused {
            self.end(id, reason, now);
        }
        for id in held_back {
            self.let_go_on(id, now);
        }
        self.resume_waiting(now);
    }

    fn handle_subscribed(&mut self, ticket: u64, result: &Result<Reply, StoreError>, now: Now) {
        let Some(pending) = self.shared.subscribes.get_mut(&ticket) else { return };
        let id = pending.connection;
        if let Some(connection) = self.connections.find_mut(id) {
            let cursors = match result {
                Ok(Reply::Subscribed(cursors)) => Ok(cursors.clone()),
                Ok(_) | Err(_) => Err(()),
            };
            subscribe::take_stored(connection, cursors, &mut pending.codes);
        }
        self.end_if_fenced(id, result, now);
        self.wake(vec![Waiter::Subscribe(ticket)], now);
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

    /// A session has another owner. If its connection is here it is closed, and what the store does not know is handed over.
    fn handle_takeover(&mut self, link: LinkIndex, takeover: &Takeover<'_>, now: Now) {
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

    // ---- time ----

    fn handle_due(&mut self, id: ConnectionId, tick: u32, now: Now) {
        let connect_timeout_ms = self.shared.config.limits.connect_timeout_ms;
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.timer_tick != tick {
            return;
        }
        let Some(silence_ms_max) = connection.silence_ms_max(connect_timeout_ms) else { return };
        if connection.waiting || connection.stalled || connection.leaving {
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

    fn save(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Some(session) = connection.session_mut() else { return };
        let Some(durable) = &mut session.durable else { return };
        if !std::mem::replace(&mut durable.unsaved, false) {
            return;
        }
        let request = Request::Save {
            client: session.client.clone(),
            epoch: session.epoch,
            progress: session.progress(),
        };
        self.shared.ask(Asked::Save(id), request);
        deliver::pump(connection, id, &mut self.shared, now);
    }

    // ---- the end of a connection ----

    /// Closes a connection for `reason`: says what the peer is to hear, and gives up its session.
    pub(crate) fn end(&mut self, id: ConnectionId, reason: CloseReason, now: Now) {
        // The new owner will ask for what we know.
        let leaving = if reason == CloseReason::Fenced { Leaving::HandedOver } else { Leaving::Saved };
        self.end_as(id, reason, leaving, now);
    }

    /// Closes an older connection because its client has connected again, here.
    pub(crate) fn end_taken_over(&mut self, id: ConnectionId, session_ends: bool, now: Now) {
        if session_ends
            && let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
            && let Some(will) = &mut session.will
        {
            // The session ends with it, so there is nothing to delay the will for (MQTT-3.1.3-9).
            will.delay_s = 0;
        }
        self.end_as(id, CloseReason::SessionTakenOver, Leaving::Saved, now);
    }

    pub(crate) fn end_as(&mut self, id: ConnectionId, reason: CloseReason, leaving: Leaving, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        self.shared.stats.closed.add(reason);
        say_goodbye(connection, id, &mut self.shared, reason);
        self.tear_down(id, reason, leaving, now);
        self.shared.actions.push_back(Action::Close { id, reason });
    }

    fn end_if_fenced(&mut self, id: ConnectionId, result: &Result<Reply, StoreError>, now: Now) {
        if matches!(result, Err(StoreError::Fenced)) {
            self.end(id, CloseReason::Fenced, now);
        }
    }

    /// Takes everything of a connection out of the shard's tables.
    fn tear_down(&mut self, id: ConnectionId, reason: CloseReason, leaving: Leaving, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.partial = None;
        if let Some(websocket) = &mut connection.websocket {
            websocket.waiting = Vec::new();
        }
        self.half_open -= u32::from(connection.is_half_open());
        match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::Opening(opening) => {
                self.leave_client(&opening.session.client, id.slot);
                if let (Some(successor), None) = (opening.successor, &opening.opened) {
                    self.pass_on(&opening.session.client, successor, None);
                }
                if let Some(opened) = opening.opened {
                    self.close_unclaimed(opening.session.client.clone(), opening.session.expiry_s, opened);
                }
            }
            Phase::Established(session) => self.give_up(&session, id, reason, leaving, now),
            Phase::Free | Phase::Upgrading | Phase::Greeting | Phase::Closing => {}
        }
    }

    fn give_up(
        &mut self,
        session: &Session,
        id: ConnectionId,
        reason: CloseReason,
        leaving: Leaving,
        now: Now,
    ) {
        self.leave_client(&session.client, id.slot);
        let persistent = session.durable.is_some();
        let mut woken = Vec::new();
        for subscription in &session.subscriptions {
            woken.extend(subscribe::release(
                subscription,
                &session.client,
                persistent,
                id.slot,
                &mut self.shared,
            ));
        }
        retained::give_up(session, &mut self.shared);
        let is_kept = persistent && leaving != Leaving::Lost && session.expiry_s > 0;
        if let Some(sending) = &session.sending {
            for item in sending.inflight.iter().filter_map(|inflight| inflight.item.as_ref()) {
                let outcome = if is_kept { Outcome::Kept } else { Outcome::ConnectionLost };
                deliver::report(&mut self.shared, item.report, outcome);
            }
            for item in &sending.pending {
                // What was not sent is not saved with the session: it stands in a stream, or goes back to who sent it.
                let stands = is_kept && !item.positions.is_empty();
                let outcome = if stands { Outcome::Kept } else { Outcome::ConnectionLost };
                deliver::report(&mut self.shared, item.report, outcome);
            }
        }
        if let Some(will) = &session.will
            && reason.publishes_will()
        {
            let delay_s = will.delay_s.min(session.expiry_s);
            if delay_s == 0 {
                will::publish(&mut self.shared, will, session.epoch, now);
            } else {
                let delayed = DelayedWill {
                    client: session.client.clone(),
                    epoch: session.epoch,
                    will: (**will).clone(),
                };
                let due_ms = now.monotonic_ms + u64::from(delay_s) * 1_000;
                let number = self.shared.number();
                self.shared.delayed_wills.insert((due_ms, number), delayed);
            }
        }
        let progress = session.progress();
        // Until the store knows it, or where it will not take it any more, a new owner may have to ask.
        let closing = (is_kept && (leaving == Leaving::Saved || reason == CloseReason::Fenced))
            .then(|| (session.client.clone(), session.epoch));
        if let Some(closing) = &closing {
            if self.shared.closing.len() >= CLOSING_MAX {
                self.shared.closing.pop_first();
            }
            self.shared.closing.insert(closing.clone(), progress.clone());
        }
        if leaving == Leaving::Saved {
            let request = Request::Close {
                client: session.client.clone(),
                epoch: session.epoch,
                expiry_s: session.expiry_s,
                progress,
            };
            self.shared.ask(Asked::Close(closing), request);
        }
        self.wake(woken, now);
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
            connections.at(*slot).and_then(|(_, connection)| connection.client()).map_or(0, hash)
        });
    }

    fn leave_client(&mut self, client: &str, slot: u32) {
        if let Ok(entry) = self.clients.find_entry(hash(client), |entered| *entered == slot) {
            entry.remove();
        }
    }
}

fn names(connections: &Connections, slot: u32, client: &str) -> bool {
    connections.at(slot).is_some_and(|(_, connection)| connection.client() == Some(client))
}

fn hash(client: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(client.as_bytes());
    hasher.finish()
}

/// A session follows its frames to another link.
fn follow(connections: &mut Connections, moved: Moved) {
    let Some(session) = connections.find_mut(moved.connection).and_then(Connection::session_mut) else {
        return;
    };
    if moved.dropped {
        session.unsettled -= 1;
    } else if moved.to.is_some() {
        session.link = moved.to;
    }
}

/// Ended sessions that are remembered until the store knows them. One that is forgotten before may be sent again what it had acknowledged, if it comes back elsewhere at that
/// very moment.
const CLOSING_MAX: usize = 10_000;

/// No DISCONNECT of ours is longer, in bytes.
const GOODBYE_BYTES_MAX: u32 = 64;

/// What the peer hears before its connection is closed.
fn say_goodbye(connection: &Connection, id: ConnectionId, shared: &mut Shared, reason: CloseReason) {
    let framing = connection.framing();
    match &connection.phase {
        Phase::Opening(opening)
            if reason == CloseReason::StoreUnavailable && opening.session.protocol != Protocol::Json =>
        {
            let refusal = holdfast_wire::mqtt::ConnAck {
                session_present: false,
                reason_code: ReasonCode::ServerUnavailable,
                properties: holdfast_wire::mqtt::ConnAckProperties::default(),
            };
            let version = opening.session.protocol.version();
            framing.send(&mut shared.outbox, id, |out| refusal.encode(version, out));
        }
        Phase::Established(session) if session.protocol == Protocol::V5 => {
            if let Some(code) = reason.reason_code() {
                let mut goodbye = Disconnect::with_reason(code);
                // Says more than the code where several reasons share one, unless the client does not want it or cannot take it
                // (MQTT-3.14.2-3).
                if session.problem_information && session.maximum_packet_size >= GOODBYE_BYTES_MAX {
                    goodbye.properties.reason_string = Some(reason.label());
                }
                framing.send(&mut shared.outbox, id, |out| goodbye.encode(ProtocolVersion::V5, out));
            }
        }
        Phase::Opening(_) | Phase::Established(_)
            if connection.protocol == Protocol::Json && reason != CloseReason::ClientDisconnected =>
        {
            let retry_after_ms = match reason {
                // Spread over a while, so that those who leave together do not come back together.
                CloseReason::ServerShuttingDown | CloseReason::StoreUnavailable => {
                    Some(500 + (shared.random() % 2_500) as u32)
                }
                _ => None,
            };
            let goodbye: Downlink<'_> = json::goodbye(reason, retry_after_ms);
            framing.send(&mut shared.outbox, id, |out| goodbye.encode(out));
        }
        _ => {}
    }
    if let Some(websocket) = &connection.websocket
        && !websocket.closed
    {
        shared
            .outbox
            .append(id, |out| ws::frame::write_close(out, Some(reason.close_code()), reason.label()));
    }
}
