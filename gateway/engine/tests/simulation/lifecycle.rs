//! Nodes that do not run for a while, clocks that jump, a store that forgets, and who reaps and is reaped.

use std::collections::BTreeSet;

use holdfast_engine::{ConnectionId, LeaseWord, Listener, SocketEnd};
use holdfast_wire::store::{Request, StoreError};

use crate::lease::LEASE_MS;
use crate::mortal::{LastWord, MORTALS, Mortal, greeting};
use crate::shard::FIRST;
use crate::world::{DEVICES, SHARDS, World};

/// After the store has lost something everyone who is connected is written back by then, in ms: a node may not run for a while.
const STAYS_MS: u64 = 10_000;

impl World {
    // ---- nodes ----

    pub(crate) fn a_node_pauses(&mut self) {
        let shard = self.random.below(SHARDS);
        if self.shards[shard].is_still() {
            return;
        }
        let ms = 100 + self.random.below(3 * LEASE_MS as usize) as u64;
        self.tell(|| format!("node {shard} pauses for {ms} ms"));
        self.shards[shard].paused_until_ms = Some(self.now_ms() + ms);
        self.note_closing(shard);
        self.excuse_heralds(shard, false);
        self.note(&[8, shard as u64, ms]);
    }

    /// It runs again. Nothing is handled before the store has said whether it lives.
    pub(crate) fn wake(&mut self, shard: usize) {
        self.tell(|| format!("node {shard} runs again"));
        let now_ms = self.now_ms();
        self.shards[shard].paused_until_ms = None;
        self.shards[shard].lease.hold(now_ms);
    }

    pub(crate) fn a_clock_jumps(&mut self) {
        let shard = self.random.below(SHARDS);
        self.shards[shard].clock_ahead_ms += 1 + self.random.below(100_000) as u64;
    }

    pub(crate) fn answer_renewal(&mut self, shard: usize) {
        let latest = self.random.one_in(4);
        let Some(number) = self.shards[shard].lease.next(latest) else { return };
        let node = self.shards[shard].owner.node;
        let request = Request::RenewLease { node, for_ms: LEASE_MS };
        let fails = self.faults.store_fails && self.random.one_in(20);
        let failure = || Err(StoreError::Unavailable("it fails".to_owned()));
        let answer = match (fails, self.random.one_in(2)) {
            (false, _) => self.store.ask(request),
            (true, true) => failure(),
            (true, false) => self.store.ask(request).and_then(|_| failure()),
        };
        let held = self.shards[shard].lease.holds();
        for word in self.shards[shard].lease.handle_answer(number, &answer) {
            self.tell(|| format!("node {shard} hears of its lease: {word:?}"));
            let now = self.now_at(shard);
            self.shards[shard].engine.handle_lease(word, now);
            if word == LeaseWord::Buried {
                return self.node_was_buried(shard);
            }
            // One that holds still does so with everything that follows.
            if !self.shards[shard].is_still() {
                self.drain(shard);
            }
        }
        if held && !self.shards[shard].lease.holds() {
            self.goes_on(shard);
        }
    }

    fn node_was_buried(&mut self, shard: usize) {
        let acknowledged = self.shards[shard].engine.stats().acknowledged;
        self.drain(shard);
        assert_eq!(self.shards[shard].engine.stats().acknowledged, acknowledged);
        assert_eq!(self.shards[shard].engine.connections(), 0, "a buried node keeps nobody");
        assert!(!self.shards[shard].has_new_questions(), "a buried node saves nothing");
        self.node_ends(shard);
    }

    /// It lives: what waited for it is handled.
    fn goes_on(&mut self, shard: usize) {
        let now = self.now_at(shard);
        if std::mem::take(&mut self.shards[shard].missed_link_loss) {
            // What a bridge that came since has said over the lost link is lost too.
            self.lose_links(shard, now);
            self.drain(shard);
        }
        if self.bridge.up && !self.shards[shard].doors[FIRST].is_up {
            self.shards[shard].link(FIRST, self.bridge.id, now);
        }
        for number in 0..self.devices.len() {
            if self.devices[number].socket.as_ref().is_some_and(|socket| socket.shard == shard) {
                self.read(number);
            }
        }
        self.drain(shard);
    }

    // ---- the store ----

    pub(crate) fn store_forgets(&mut self) {
        self.has_died = true;
        self.has_forgotten = true;
        let mut lost_with_writes = BTreeSet::new();
        if self.random.one_in(3) {
            self.tell(|| "the store loses everything".to_owned());
            self.store.lose_everything();
        } else {
            let lost = self.random.below(8);
            self.tell(|| format!("the store fails over and loses {lost} writes"));
            lost_with_writes = self.store.fail_over(lost);
        }
        // What was published is lost with its streams. Whoever is connected, and stays so until it is written back, misses nothing of what follows.
        for published in self.published.values_mut() {
            published.owed_to.clear();
            published.owed_to_group = false;
        }
        self.bridge.pushes.excuse_all();
        self.told_seen = self.bridge.pushes.told.len();
        self.devices.iter_mut().for_each(|device| device.losses += 1);
        self.staying_until_ms = self.now_ms() + STAYS_MS;
        self.staying.clear();
        for number in std::mem::take(&mut self.standing) {
            let device = &self.devices[number];
            let Some(socket) = device.socket.as_ref().filter(|_| device.is_connected()) else { continue };
            let is_held = self.shards[socket.shard].engine.device(&device.client).is_some();
            if is_held && !lost_with_writes.contains(&*device.client) {
                self.standing.insert(number);
                self.staying.insert(number, (socket.shard, socket.id));
            }
        }
        self.note(&[9]);
    }

    /// Whoever has lost its connection before it was written back is owed nothing.
    pub(crate) fn excuse_those_who_left(&mut self) {
        if self.now_ms() >= self.staying_until_ms {
            return self.staying.clear();
        }
        let devices = &self.devices;
        let has_left = |number: usize, place: (usize, ConnectionId)| {
            let socket = devices[number].socket.as_ref();
            socket.is_none_or(|socket| (socket.shard, socket.id) != place)
        };
        let left = self.staying.iter().filter(|(number, place)| has_left(**number, **place));
        let left: Vec<usize> = left.map(|(number, _)| *number).collect();
        for number in left {
            self.staying.remove(&number);
            self.standing.remove(&number);
            for published in self.published.values_mut() {
                published.owed_to.remove(&number);
                // It may have been the one that had it.
                published.owed_to_group &= number < DEVICES;
            }
        }
    }

    pub(crate) fn reap(&mut self) {
        if !self.bridge.up {
            return;
        }
        let now_ms = self.now_ms();
        if let Some(will) = self.reaper.step(&mut self.store, now_ms) {
            self.tell(|| format!("the reaper publishes the will of {}", will.view().publisher));
            self.bridge.publish_will(&will);
        }
    }

    // ---- mortals ----

    /// One of them is born, or dies.
    pub(crate) fn live_and_die(&mut self, births: bool) {
        if births && self.mortals.len() < MORTALS {
            let client = format!("mortal-{}", self.born);
            self.born += 1;
            let delay_s = [0, 1, 3][self.random.below(3)];
            let persistent = delay_s > 0 || self.random.one_in(2);
            let word = LastWord { delay_ms: u64::from(delay_s) * 1_000, ..LastWord::default() };
            if self.enter(client.clone(), delay_s, persistent, false) {
                self.last_words.insert(client, word);
            }
            return;
        }
        let chosen = self.random.below(self.mortals.len());
        if !self.mortals[chosen].connected {
            // Its greeting is not answered, as its session's former owner or the store takes its time.
            let Mortal { shard, .. } = self.mortals[chosen];
            if !births && !self.shards[shard].is_still() {
                self.lose_mortal(chosen, true);
            } else if !births {
                self.lose_mortal(chosen, false);
            }
            return;
        }
        let notices = self.random.one_in(2) && !self.shards[self.mortals[chosen].shard].is_still();
        let Mortal { client, is_second_life, .. } = self.lose_mortal(chosen, notices);
        let comes_back =
            births && !is_second_life && self.last_words[&client].delay_ms > 0 && self.random.one_in(3);
        if comes_back {
            if let Some(word) = self.last_words.get_mut(&client) {
                // The gateway may not have noticed that it was gone.
                word.may_be_lost = true;
            }
            self.enter(client, 0, true, true);
        }
    }

    fn enter(&mut self, client: String, delay_s: u32, persistent: bool, is_second_life: bool) -> bool {
        let shard = self.random.below(SHARDS);
        if self.shards[shard].is_still() {
            return false;
        }
        let now = self.now_at(shard);
        let Ok(id) = self.shards[shard].engine.handle_accept(Listener::Mqtt, now) else { return false };
        let mut bytes = greeting(&client, delay_s, persistent, is_second_life);
        self.shards[shard].engine.handle_bytes(id, &mut bytes, now);
        if let Some(word) = self.last_words.get_mut(&client).filter(|_| is_second_life) {
            word.opened_by = Some(shard);
        }
        self.mortals.push(Mortal { client, shard, id, connected: false, is_second_life });
        self.drain(shard);
        true
    }

    /// It vanishes; the gateway notices, or has to find out.
    fn lose_mortal(&mut self, chosen: usize, notices: bool) -> Mortal {
        let mortal = self.mortals.swap_remove(chosen);
        let (shard, id) = (mortal.shard, mortal.id);
        self.tell(|| format!("{} vanishes, noticed: {notices}", mortal.client));
        self.note_death(&mortal, notices);
        if notices {
            let now = self.now_at(shard);
            self.shards[shard].engine.handle_closed(id, SocketEnd::Reset, now);
            self.drain(shard);
        }
        mortal
    }

    fn note_death(&mut self, mortal: &Mortal, notices: bool) {
        let now_ms = self.now_ms();
        if let Some(word) = self.last_words.get_mut(&mortal.client).filter(|_| !mortal.is_second_life) {
            if !mortal.connected {
                // It had not been told that its will is known.
                (word.may_be_lost, word.may_be_doubled) = (true, true);
            }
            word.died_ms.get_or_insert(now_ms);
            word.held_by = Some(mortal.shard).filter(|_| notices);
            if !notices {
                self.unnoticed.push((mortal.client.clone(), mortal.shard, mortal.id));
            }
        }
    }

    /// The gateway answers its greeting.
    pub(crate) fn greet_mortal(&mut self, shard: usize, id: ConnectionId, bytes: &[u8]) {
        let now_ms = self.now_ms();
        let Some(mortal) = self.mortals.iter_mut().find(|mortal| (mortal.shard, mortal.id) == (shard, id))
        else {
            return;
        };
        // CONNACK, with no error.
        if bytes.first() == Some(&0x20) && bytes.get(3).is_some_and(|code| *code < 0x80) {
            mortal.connected = true;
            if mortal.is_second_life
                && let Some(word) = self.last_words.get_mut(&mortal.client)
                && word.died_ms.is_some_and(|died_ms| now_ms < died_ms + word.delay_ms)
            {
                word.is_cancelled = true;
            }
        }
    }

    /// The gateway closes its connection.
    pub(crate) fn close_mortal(&mut self, shard: usize, id: ConnectionId) {
        let Some(at) = self.mortals.iter().position(|mortal| (mortal.shard, mortal.id) == (shard, id)) else {
            // It has vanished, and now the gateway knows.
            if let Some(at) = self.unnoticed.iter().position(|(_, of, other)| (*of, *other) == (shard, id)) {
                let (client, ..) = self.unnoticed.swap_remove(at);
                if let Some(word) = self.last_words.get_mut(&client) {
                    word.held_by = Some(shard);
                }
            }
            return;
        };
        let mortal = self.mortals.swap_remove(at);
        self.note_death(&mortal, true);
    }

    /// A node is gone, with what it held for those that had vanished.
    pub(crate) fn lose_mortals(&mut self, dead: usize) {
        self.note_closing(dead);
        while let Some(at) = self.mortals.iter().position(|mortal| mortal.shard == dead) {
            let mortal = self.mortals.swap_remove(at);
            self.note_death(&mortal, false);
        }
        self.unnoticed.retain(|(_, shard, _)| *shard != dead);
        for word in self.last_words.values_mut().filter(|word| word.held_by == Some(dead)) {
            word.may_be_lost = true;
        }
    }

    /// Wills that a node may have published of sessions which the store still believes connected.
    fn note_closing(&mut self, shard: usize) {
        for (client, word) in &mut self.last_words {
            // Published, perhaps, and not told to the store.
            let is_in_hand = word.held_by == Some(shard) || word.opened_by == Some(shard);
            word.may_be_doubled |= is_in_hand || self.shards[shard].is_closing(client);
        }
    }
}
