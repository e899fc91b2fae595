//! One turn of a shard.
//!
//! ```text
//! poll ─> events, letters ─> accept ─> read sockets ─> read links ─> a slice of fan-out ─> timers
//!   ^                                                                                        │
//!   └── sleep until something is due, or not at all <── links <── closes <── flush <── actions
//! ```
//! Every step is bounded, so that one busy connection, one burst of accepts or one large fan-out delays the others by a slice of its
//! work and not by all of it. What a step leaves undone it finds again in the next turn, which then does not sleep.

use std::io::{self, ErrorKind};
use std::time::Duration;

use holdfast_engine::{Action, Now};
use mio::Events;
use mio::event::Event;

use super::holding::{Awake, LAST_WORDS_MS};
use super::{Letter, Phase, Shard, ShardReport, Source};
use crate::metrics::ShardGauges;

/// Events taken from the poll at once.
const EVENTS_PER_TURN: usize = 512;

/// How often inline answers of the store are handed to the engine before its output is flushed.
const ACTION_ROUNDS_MAX: usize = 16;

/// How often closes may lead to further actions before the turn ends.
const SETTLE_ROUNDS_MAX: usize = 4;

/// Counters are published, and the loop's lag is measured, this often, in ms.
const TICK_MS: u64 = 1_000;

/// How a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardEnd {
    /// Connections that had to be cut.
    pub(crate) cut: usize,
    /// Everything that was owed to devices, store and bridges had been given when it ended.
    pub(crate) owed_nothing: bool,
    /// The node was declared dead.
    pub(crate) is_buried: bool,
}

impl Shard {
    /// Turns until it has drained or is told to stop. An error is the poll's own: the shard cannot go on.
    pub(crate) fn run(mut self) -> io::Result<ShardEnd> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_done() {
            self.turn(&mut events)?;
        }
        let owed_nothing = self.phase == Phase::Draining;
        let is_buried = matches!(self.phase, Phase::Buried(_));
        let cut = self.cut_all();
        self.publish();
        Ok(ShardEnd { cut, owed_nothing, is_buried })
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.sleep(events)?;
        let holds = self.stats.holds;
        let now = self.wake();
        self.stats.turns += 1;
        let reported = events.iter().count();
        self.pace.note_turn(reported, self.engine.stats(), now.monotonic_ms);
        self.unsettled = false;
        for event in &*events {
            self.handle_event(event, now);
        }
        self.take_letters(now);
        self.accept(now);
        self.read_ready(now);
        self.read_links(now);
        if self.engine.has_work() {
            self.engine.handle_work(now);
        }
        // While the shard held, more may have come than the poll before that told of.
        let more = reported == EVENTS_PER_TURN || self.stats.holds > holds;
        self.handle_due(more, now);
        // What was read before a sleep in the midst of this turn is not to be answered after it.
        let settled_at = self.wake();
        self.settle(settled_at);
        self.write_links(settled_at);
        let took_ms = self.clock.now().monotonic_ms - now.monotonic_ms;
        self.lag_ms_max = self.lag_ms_max.max(took_ms);
        Ok(())
    }

    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let is_restless = self.is_restless();
        if let Some(rest) = self.pace.rest().filter(|_| !is_restless) {
            std::thread::sleep(rest);
        }
        self.awake.sleep_ms = 0;
        let timeout = if is_restless || !self.mailbox.leave() {
            Duration::ZERO
        } else {
            let now = self.clock.now();
            let sleep_ms = self.next_due_ms(now).saturating_sub(now.monotonic_ms);
            self.awake = Awake { at: now, sleep_ms };
            Duration::from_millis(sleep_ms)
        };
        let polled = self.poll.poll(events, Some(timeout));
        self.mailbox.attend();
        match polled {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// Whether there is work that no event will tell of.
    fn is_restless(&self) -> bool {
        self.unsettled
            || !self.ready.is_empty()
            || self.engine.has_work()
            || self.listeners.iter().any(|listener| listener.ready)
            || self.links.iter().any(super::Link::wants_read)
    }

    fn next_due_ms(&self, now: Now) -> u64 {
        let listeners = self.listeners.iter().filter_map(super::Listener::next_due_ms);
        let links = self.links.iter().filter_map(super::Link::next_due_ms);
        let others = [self.engine.next_timer_ms(now), self.lingering.next_due_ms()].into_iter().flatten();
        listeners.chain(links).chain(others).fold(self.tick_due_ms, u64::min)
    }

    fn handle_event(&mut self, event: &Event, now: Now) {
        match Source::of(event.token()) {
            Source::Mailbox => {}
            Source::Listener(place) => {
                if let Some(listener) = self.listeners.get_mut(usize::from(place)) {
                    listener.ready |= listener.next_due_ms().is_none();
                }
            }
            Source::Link(index) => {
                if let Some(link) = self.links.get_mut(usize::from(index)) {
                    link.handle_event(event, &mut self.engine, self.poll.registry(), now);
                }
            }
            Source::Connection(id) => self.handle_socket_event(id, event, now),
        }
    }

    /// Reads what other threads wrote; true if there was anything.
    fn take_letters(&mut self, now: Now) -> bool {
        self.mailbox.take(&mut self.letters);
        let any = !self.letters.is_empty();
        while let Some(letter) = self.letters.pop_front() {
            self.handle_letter(letter, now);
        }
        any
    }

    /// Whoever asked and left has no use for the answer, so a failed send is no loss.
    fn handle_letter(&mut self, letter: Letter, now: Now) {
        match letter {
            Letter::StoreReply(reply) => {
                self.store.note_reply();
                self.engine.handle_store_reply(reply.request, reply.result, now);
            }
            Letter::Lease(word) => self.handle_lease(word, now),
            Letter::FindDevice { client, answer } => {
                let _ = answer.send(self.engine.device(&client));
            }
            Letter::DisconnectDevice { client, answer } => {
                let _ = answer.send(self.engine.disconnect(&client, now));
            }
            Letter::Report(answer) => {
                let _ = answer
                    .send(ShardReport { connections: self.engine.connections(), links_up: self.links_up() });
            }
            Letter::Bridges(_) if matches!(self.phase, Phase::Buried(_)) => {}
            Letter::Bridges(addresses) => self.know_bridges(&addresses, now),
            Letter::Admit(listeners) => self.admit(listeners),
            Letter::Reload(config) => self.engine.handle_reload(*config),
            Letter::Drain { within } if self.phase == Phase::Serving => {
                self.phase = Phase::Draining;
                self.listeners.clear();
                let spread_ms = self.drain.spread_ms(self.engine.connections(), within);
                self.engine.handle_drain(now, spread_ms);
            }
            Letter::Drain { .. } => {}
            Letter::Stop => self.phase = Phase::Stopped,
        }
    }

    fn read_links(&mut self, now: Now) {
        for link in &mut self.links {
            if link.wants_read() {
                link.read(&mut self.engine, now);
            }
        }
    }

    pub(super) fn write_links(&mut self, now: Now) {
        let up = self.links_up();
        for link in &mut self.links {
            link.write(&mut self.engine, self.poll.registry(), now);
        }
        // A link that was lost makes the engine act: uplinks move to another one.
        self.unsettled |= self.links_up() != up;
    }

    fn handle_due(&mut self, more: bool, now: Now) {
        let judges = self.judging.may_judge(more, now.monotonic_ms);
        if judges {
            self.engine.handle_timers(now);
        } else {
            self.engine.handle_steps(now);
        }
        self.handle_links_due(judges, now);
        self.unsettled |= more;
        for listener in &mut self.listeners {
            listener.handle_due(now.monotonic_ms);
        }
        self.cut_lingering(now);
        if self.tick_due_ms <= now.monotonic_ms {
            if self.tick_due_ms > 0 {
                self.lag_ms_max = self.lag_ms_max.max(now.monotonic_ms - self.tick_due_ms);
                self.metrics.note_lag(self.lag_ms_max);
                self.lag_ms_max = 0;
            }
            self.tick_due_ms = now.monotonic_ms + TICK_MS;
            self.publish();
        }
    }

    /// Carries out what the engine wants, until it wants nothing more.
    pub(super) fn settle(&mut self, now: Now) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.take_actions(now);
            let ended = self.flush(now);
            let closed = self.carry_out_closes(now);
            // The end of a connection may ask the store to save its session, and publish its will.
            if !ended && !closed {
                return;
            }
        }
        self.unsettled = true;
    }

    /// Takes the engine's actions, and the answers that the store gave meanwhile: with a store in memory a CONNECT is answered in
    /// the turn that brought it.
    fn take_actions(&mut self, now: Now) {
        for _ in 0..ACTION_ROUNDS_MAX {
            while let Some(action) = self.engine.poll_action() {
                match action {
                    Action::Close { id, reason, client } => self.closes.push((id, reason, client)),
                    Action::ResumeRead(id) => self.enqueue(id),
                    Action::AskLease => self.lease.ask(self.mailbox.clone()),
                    Action::Store { request, body } => self.store.submit(request, body),
                }
            }
            if !self.take_letters(now) {
                return;
            }
        }
        self.unsettled = true;
    }

    fn is_done(&mut self) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Draining => {
                self.engine.is_drained()
                    && self.sockets.len() == 0
                    && self.store.open() == 0
                    && self.links.iter().all(|link| link.is_flushed(&mut self.engine))
            }
            Phase::Buried(since_ms) => {
                self.sockets.len() == 0 || self.clock.now().monotonic_ms >= since_ms + LAST_WORDS_MS
            }
            Phase::Stopped => true,
        }
    }

    pub(super) fn links_up(&self) -> usize {
        self.links.iter().filter(|link| link.is_up()).count()
    }

    fn publish(&mut self) {
        let gauges = ShardGauges {
            connections: self.engine.connections() as usize,
            half_open: self.engine.half_open() as usize,
            opens_waiting: self.engine.opens_waiting(),
            opens_window: self.engine.opens_window(),
            sockets: self.sockets.len(),
            unsent_bytes: self.unsent.bytes,
            links_up: self.links_up(),
            links_wanted: self.links.iter().filter(|link| link.is_wanted()).count(),
        };
        self.metrics.publish(self.engine.stats(), &self.stats, &gauges);
    }
}
