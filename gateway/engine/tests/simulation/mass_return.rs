//! Thousands of clients come back at once to shards that share a slow store: how long until all have their session, and what the store's answers were worth.
//!
//! A world of its own: clients that do nothing but connect, and a store that carries out so many openings a second, in the order they came, and gives up on
//! those that have waited for its deadline, though it carries them out all the same.

use std::collections::{BTreeMap, VecDeque};

use holdfast_engine::{
    Action, CloseReason, ConnectionId, Engine, EngineConfig, Listener, Now, RequestId, SocketEnd,
};
use holdfast_wire::ids::{Epoch, NodeId, Owner, ShardId};
use holdfast_wire::mqtt::{Connect, ConnectProperties, ProtocolVersion};
use holdfast_wire::store::{Opened, Reply, Request, StoreError};

use crate::random::Random;

/// After this the store gives up on a question, in ms.
const DEADLINE_MS: u64 = 2_000;

/// Time passes in steps of this, in ms.
const STEP_MS: u64 = 5;

struct Plan {
    clients: usize,
    shards: usize,
    /// Openings that the store carries out in a second.
    per_s: u64,
    /// It is away until then, in ms.
    away_until_ms: u64,
    /// How long clients wait for their CONNACK, in ms.
    patience_ms: u64,
}

#[derive(Clone, Copy)]
enum State {
    /// Dials then.
    Away(u64),
    /// Where, and since when.
    Dialling(usize, ConnectionId, u64),
    Connected,
}

struct Outcome {
    took_ms: u64,
    carried_out: u64,
    failed_attempts: u64,
    store_failures: u64,
}

struct Asked {
    shard: usize,
    request: RequestId,
    at_ms: u64,
    is_given_up: bool,
}

struct Crowd {
    plan: Plan,
    now_ms: u64,
    engines: Vec<Engine>,
    clients: Vec<State>,
    /// Whose a connection is.
    sockets: BTreeMap<(usize, ConnectionId), usize>,
    asked: VecDeque<Asked>,
    epoch: u64,
    outcome: Outcome,
    random: Random,
}

impl Crowd {
    fn new(plan: Plan, seed: u64) -> Self {
        let engine = |shard: usize| {
            let owner = Owner { node: NodeId(1), shard: ShardId(shard as u16) };
            Engine::new(EngineConfig::default(), owner, 1, seed)
        };
        let mut random = Random::new(seed);
        Self {
            engines: (0..plan.shards).map(engine).collect(),
            // Their gateway dies, and within a second they notice.
            clients: (0..plan.clients).map(|_| State::Away(random.below(1_000) as u64)).collect(),
            plan,
            now_ms: 0,
            sockets: BTreeMap::new(),
            asked: VecDeque::new(),
            epoch: 0,
            outcome: Outcome { took_ms: 0, carried_out: 0, failed_attempts: 0, store_failures: 0 },
            random,
        }
    }

    /// Until all are connected.
    fn play(mut self, within_ms: u64) -> Outcome {
        while self.clients.iter().any(|client| !matches!(client, State::Connected)) {
            assert!(self.now_ms < within_ms, "{} ms, and not all are back", self.now_ms);
            self.step();
            self.now_ms += STEP_MS;
        }
        self.outcome.took_ms = self.now_ms;
        self.outcome
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: 1_000 + self.now_ms, unix_ms: 1_000_000 + self.now_ms }
    }

    fn step(&mut self) {
        for number in 0..self.clients.len() {
            match self.clients[number] {
                State::Away(until_ms) if until_ms <= self.now_ms => self.dial(number),
                State::Dialling(shard, id, since_ms) if self.now_ms >= since_ms + self.plan.patience_ms => {
                    let now = self.now();
                    self.engines[shard].handle_closed(id, SocketEnd::Fin, now);
                    self.fails(shard, id);
                }
                _ => {}
            }
        }
        self.answer();
        for shard in 0..self.engines.len() {
            let now = self.now();
            if self.engines[shard].next_timer_ms(now).is_some_and(|due_ms| due_ms <= now.monotonic_ms) {
                self.engines[shard].handle_timers(now);
            }
            self.drain(shard);
        }
    }

    fn dial(&mut self, number: usize) {
        let shard = self.random.below(self.engines.len());
        let now = self.now();
        let id = self.engines[shard].handle_accept(Listener::Mqtt, now).expect("there is room");
        self.sockets.insert((shard, id), number);
        self.clients[number] = State::Dialling(shard, id, self.now_ms);
        let client_id = format!("c-{number}");
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: false,
            keep_alive_s: 0,
            client_id: &client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        self.engines[shard].handle_bytes(id, &mut bytes, now);
    }

    /// It comes again after one to three seconds.
    fn fails(&mut self, shard: usize, id: ConnectionId) {
        let Some(number) = self.sockets.remove(&(shard, id)) else { return };
        self.outcome.failed_attempts += 1;
        self.clients[number] = State::Away(self.now_ms + 1_000 + self.random.below(2_000) as u64);
    }

    fn answer(&mut self) {
        let is_away = self.now_ms < self.plan.away_until_ms;
        let late = self.asked.iter().take_while(|asked| self.now_ms >= asked.at_ms + DEADLINE_MS).count();
        for place in 0..if is_away { self.asked.len() } else { late } {
            let asked = &mut self.asked[place];
            if !std::mem::replace(&mut asked.is_given_up, true) {
                let (shard, request) = (asked.shard, asked.request);
                self.outcome.store_failures += 1;
                let away = Err(StoreError::Unavailable("no answer in time".to_owned()));
                let now = self.now();
                self.engines[shard].handle_store_reply(request, away, now);
            }
        }
        if is_away {
            return self.asked.clear();
        }
        let answers =
            (self.now_ms + STEP_MS) * self.plan.per_s / 1_000 - self.now_ms * self.plan.per_s / 1_000;
        for _ in 0..answers {
            let Some(asked) = self.asked.pop_front() else { return };
            self.epoch += 1;
            self.outcome.carried_out += 1;
            if !asked.is_given_up {
                let opened = Opened { epoch: Epoch(self.epoch), session: None, former: None, will: None };
                let now = self.now();
                self.engines[asked.shard].handle_store_reply(asked.request, Ok(Reply::Opened(opened)), now);
            }
        }
    }

    fn drain(&mut self, shard: usize) {
        let now = self.now();
        let mut closed: Vec<(ConnectionId, CloseReason)> = Vec::new();
        while let Some(action) = self.engines[shard].poll_action() {
            match action {
                Action::Store { request, body: Request::Open { .. } } => {
                    self.asked.push_back(Asked { shard, request, at_ms: self.now_ms, is_given_up: false });
                }
                Action::Store { request, .. } => {
                    self.engines[shard].handle_store_reply(request, Ok(Reply::Done), now);
                }
                Action::Close { id, reason, .. } => closed.push((id, reason)),
                Action::ResumeRead(_) | Action::AskLease => {}
            }
        }
        let mut answered = Vec::new();
        self.engines[shard].flush(|id, bytes| answered.push((id, bytes[3])));
        for (id, reason_code) in answered {
            if reason_code == 0
                && let Some(number) = self.sockets.remove(&(shard, id))
            {
                self.clients[number] = State::Connected;
            }
        }
        for (id, _) in closed {
            self.engines[shard].handle_closed(id, SocketEnd::ByUs, now);
            self.fails(shard, id);
        }
    }
}

fn play(plan: Plan) -> (Outcome, u64) {
    let ideal_ms = 1_000.max(plan.away_until_ms) + plan.clients as u64 * 1_000 / plan.per_s;
    (Crowd::new(plan, 1).play(10 * ideal_ms), ideal_ms)
}

#[test]
fn a_mass_return_takes_hardly_longer_than_the_store_needs_and_wastes_none_of_its_answers() {
    for shards in [1, 8] {
        let plan = Plan { clients: 4_000, shards, per_s: 500, away_until_ms: 0, patience_ms: 30_000 };
        let (outcome, ideal_ms) = play(plan);
        let Outcome { took_ms, carried_out, failed_attempts, store_failures } = outcome;
        println!(
            "{shards} shards: {took_ms} ms of {ideal_ms}, {carried_out} opened, {failed_attempts} failed"
        );
        assert!(took_ms * 2 <= ideal_ms * 3, "{shards} shards: {took_ms} ms, not {ideal_ms}");
        assert_eq!((carried_out, failed_attempts, store_failures), (4_000, 0, 0), "{shards} shards");
    }
}

#[test]
fn more_than_the_store_can_answer_while_clients_wait_costs_their_attempts_but_not_its_answers() {
    // What is asked for while its client loses patience.
    for (patience_ms, wasted_max) in [(30_000, 0), (5_000, 500)] {
        let plan = Plan { clients: 6_000, shards: 4, per_s: 300, away_until_ms: 0, patience_ms };
        let (outcome, ideal_ms) = play(plan);
        let Outcome { took_ms, carried_out, failed_attempts, store_failures } = outcome;
        println!(
            "{patience_ms} ms: {took_ms} ms of {ideal_ms}, {carried_out} opened, {failed_attempts} failed"
        );
        assert!(took_ms * 2 <= ideal_ms * 3, "patience {patience_ms} ms: {took_ms} ms, not {ideal_ms}");
        assert!(carried_out <= 6_000 + wasted_max, "patience {patience_ms} ms: {carried_out}");
        assert_eq!(store_failures, 0);
    }
}

#[test]
fn a_store_that_comes_back_takes_all_who_have_waited_for_it() {
    let plan = Plan { clients: 3_000, shards: 4, per_s: 2_000, away_until_ms: 5_000, patience_ms: 30_000 };
    let (outcome, ideal_ms) = play(plan);
    let Outcome { took_ms, carried_out, failed_attempts, store_failures } = outcome;
    println!("{took_ms} ms of {ideal_ms}, {carried_out} opened, {store_failures} failures");
    assert!(took_ms * 2 <= ideal_ms * 3, "{took_ms} ms, not {ideal_ms}");
    assert_eq!((carried_out, failed_attempts), (3_000, 0));
    assert!(store_failures < 1_000, "it was asked {store_failures} times in vain");
}
