//! Everything together, one random step at a time. The promises that must hold are in `invariants`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine::{CloseReason, ConnectionId, EngineConfig, Limits, LinkIndex, Listener, Now, SocketEnd};
use holdfast_wire::ids::{BridgeId, NodeId, Owner, ShardId};
use holdfast_wire::mqtt::{ProtocolVersion, QoS};
use holdfast_wire::store::{Reply, Request};

use crate::bridge::Bridge;
use crate::device::Device;
use crate::herald::{HERALDS, Herald};
use crate::hostile::{HOSTILE, Hostile};
use crate::lease::LEASE_MS;
use crate::members::members;
use crate::mortal::{LastWord, Mortal};
use crate::random::Random;
use crate::reaper::Reaper;
use crate::shard::{DOORS, FIRST, OTHER, Shard};
use crate::store::Store;

/// What may go wrong besides bytes being late.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) cuts: bool,
    pub(crate) bridge_dies: bool,
    /// Single links are lost and come back; the bridge lives, and serves the other shards.
    pub(crate) links_flap: bool,
    pub(crate) nodes_die: bool,
    /// Devices stop reading for a while.
    pub(crate) slow: bool,
    /// Peers that send damaged packets and noise.
    pub(crate) hostile: bool,
    /// Some questions to the store are answered with an error, whether it carried them out or not.
    pub(crate) store_fails: bool,
    /// The store fails over to one that has not heard of its last writes, or loses everything.
    pub(crate) store_forgets: bool,
    /// Nodes do not run for a while, often for longer than their lease.
    pub(crate) nodes_pause: bool,
    /// System clocks of nodes are set forward.
    pub(crate) clocks_jump: bool,
    /// A bridge reaps dead nodes, and clients with wills come and go. Time passes faster.
    pub(crate) reaps: bool,
    /// Clients whose will says that they are gone come back at once, and say that they are here.
    pub(crate) heralds: bool,
    /// A second bridge meets some shards and leaves them again. It has not met the others.
    pub(crate) newcomers: bool,
    /// Now and then one of the bridges takes nothing for a while, and the other one goes on.
    pub(crate) bridges_lag: bool,
    /// Devices that share a subscription, and stop reading, vanish and come back.
    pub(crate) groups: bool,
    /// All of those stop together, for long enough to fill their queues, and stay connected.
    pub(crate) members_stop: bool,
}

/// The pace of time where nothing hurries it, in ms.
const LEISURELY_MS: usize = 4;
/// How often devices ping.
const PING_MS: u64 = 1_000;
pub(crate) const SHARDS: usize = 3;
pub(crate) const DEVICES: usize = 8;
const FRAMES: u32 = 40;
/// Steps within which a world without faults must come to rest.
const REST_STEPS: usize = 200_000;

/// A message with QoS > 0, from when its publisher sent it.
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) acknowledged: bool,
    /// Persistent subscribers whose subscription stood by then.
    pub(crate) owed_to: BTreeSet<usize>,
    /// One of the group's members is to have it.
    pub(crate) owed_to_group: bool,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) store: Store,
    pub(crate) reaper: Reaper,
    pub(crate) heralds: Vec<Herald>,
    pub(crate) mortals: Vec<Mortal>,
    /// Those that have vanished, as far as their gateway has not noticed: client, shard and connection.
    pub(crate) unnoticed: Vec<(String, usize, ConnectionId)>,
    pub(crate) born: u64,
    pub(crate) last_words: BTreeMap<String, LastWord>,
    /// Entries of the sink that were looked at for wills.
    pub(crate) sink_seen: usize,
    pub(crate) shards: Vec<Shard>,
    pub(crate) bridge: Bridge,
    pub(crate) devices: Vec<Device>,
    pub(crate) hostile: Vec<Hostile>,
    pub(crate) published: BTreeMap<Vec<u8>, Published>,
    /// By device: how often each message came.
    pub(crate) received: Vec<BTreeMap<Vec<u8>, u32>>,
    /// Devices whose subscription stands for good.
    pub(crate) standing: BTreeSet<usize>,
    /// Those of them that were connected when the store lost something, and where; and until when they count as lost if that connection ends.
    pub(crate) staying: BTreeMap<usize, (usize, ConnectionId)>,
    pub(crate) staying_until_ms: u64,
    /// By payload: the member that was given a message with QoS 2.
    pub(crate) given_exactly_once: BTreeMap<Vec<u8>, usize>,
    /// Pushes whose outcome was looked at.
    pub(crate) told_seen: usize,
    pub(crate) next_node: u64,
    pub(crate) trace: rustc_hash::FxHasher,
    pub(crate) has_died: bool,
    /// A link was lost, with what was on it.
    pub(crate) has_flapped: bool,
    /// The store has lost writes.
    pub(crate) has_forgotten: bool,
    /// The door by which nothing is taken for now; beyond them: none.
    lagging: usize,
    /// How far time goes at most in one step, in ms. Fast, so that leases run out within a play, or slow, so that nobody is waited for too long.
    pace_ms: usize,
    pub(crate) tells: bool,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let store = Store::new(Arc::clone(&clock));
        let mut world = Self {
            random: Random::new(seed),
            faults,
            clock,
            store,
            reaper: Reaper::default(),
            heralds: (0..HERALDS).map(Herald::new).collect(),
            mortals: Vec::new(),
            unnoticed: Vec::new(),
            born: 0,
            last_words: BTreeMap::new(),
            sink_seen: 0,
            shards: Vec::new(),
            bridge: Bridge::new(1),
            devices: Vec::new(),
            hostile: Vec::new(),
            published: BTreeMap::new(),
            received: Vec::new(),
            standing: BTreeSet::new(),
            staying: BTreeMap::new(),
            staying_until_ms: 0,
            given_exactly_once: BTreeMap::new(),
            told_seen: 0,
            next_node: 1,
            trace: rustc_hash::FxHasher::default(),
            has_died: false,
            has_flapped: false,
            has_forgotten: false,
            lagging: DOORS,
            pace_ms: match faults {
                Faults { reaps: true, .. } => 100,
                Faults { store_forgets: true, .. } | Faults { groups: true, .. } => 20,
                _ => LEISURELY_MS,
            },
            tells: std::env::var_os("SIM_TELL").is_some(),
        };
        for _ in 0..SHARDS {
            let shard = world.new_shard();
            world.shards.push(shard);
        }
        for number in 0..DEVICES {
            world.devices.push(new_device(number));
        }
        if faults.groups {
            world.devices.extend(members());
        }
        world.received = vec![BTreeMap::new(); world.devices.len()];
        world
    }

    /// What happened, in one number.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn new_shard(&mut self) -> Shard {
        let owner = Owner { node: NodeId(self.next_node), shard: ShardId(0) };
        self.next_node += 1;
        // Small bounds, so that they are met.
        let limits = Limits {
            inflight_max: 4,
            pending_messages_max: if self.faults.members_stop { 2 } else { 6 },
            save_interval_ms: 200,
            fan_out_slice_deliveries: 2,
            ..Limits::default()
        };
        let mut shard = Shard::new(
            owner,
            EngineConfig { limits, events: true, ..EngineConfig::default() },
            self.random.next(),
        );
        let lease = self.store.ask(Request::RenewLease { node: owner.node, for_ms: LEASE_MS });
        assert_eq!(lease, Ok(Reply::Renewed { known: false }));
        if self.bridge.up {
            shard.link(FIRST, self.bridge.id, self.now());
        }
        shard
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// The present by the world's clock.
    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms(), unix_ms: self.now_ms() }
    }

    /// The present as a shard's node sees it.
    pub(crate) fn now_at(&self, shard: usize) -> Now {
        Now { monotonic_ms: self.now_ms(), unix_ms: self.now_ms() + self.shards[shard].clock_ahead_ms }
    }

    /// Something happens.
    pub(crate) fn step(&mut self) {
        match self.random.below(100) {
            0 if self.faults.cuts => self.cut(),
            1 if self.faults.bridge_dies && self.random.one_in(8) => self.bridge_dies_or_returns(),
            1 if self.faults.links_flap && self.random.one_in(2) => self.link_goes_or_returns(),
            2 if self.faults.nodes_die && self.random.one_in(15) => self.a_node_dies(),
            2 if self.faults.nodes_pause && self.random.one_in(5) => self.a_node_pauses(),
            2 if self.faults.store_forgets && self.random.one_in(if self.faults.cuts { 20 } else { 5 }) => {
                self.store_forgets();
            }
            2 if self.faults.clocks_jump && self.random.one_in(5) => self.a_clock_jumps(),
            13..=16 if self.faults.reaps => self.live_and_die(true),
            17..=19 if self.faults.heralds => self.come_and_go(),
            20..=21 if self.faults.newcomers => self.newcomer_comes_or_leaves(),
            22 if self.faults.bridges_lag => self.lagging = self.random.below(DOORS + 1),
            23 if self.faults.groups && self.random.one_in(2) => self.trouble_a_member(),
            3..=5 => self.push(),
            6..=7 if self.faults.slow => self.stop_or_go_on_reading(),
            8..=12 if self.faults.hostile => self.be_hostile(),
            _ => self.go_on(true),
        }
        self.check();
    }

    /// Something happens that is nobody's fault.
    fn go_on(&mut self, publishing: bool) {
        match self.random.below(100) {
            0..=9 => self.dial(),
            10..=29 if publishing => self.publish(),
            10..=49 => self.move_up(),
            50..=64 => self.read_bridge(),
            65..=74 => self.settle_one(),
            75..=84 => self.answer_store(),
            93..=94 if self.faults.reaps || self.faults.heralds => self.reap(),
            85..=94 => self.move_down(),
            _ => self.let_time_pass(),
        }
    }

    /// The faults end; everything that was begun must come to its end.
    pub(crate) fn come_to_rest(&mut self) {
        if !self.bridge.up {
            self.bridge_dies_or_returns();
        }
        for shard in 0..SHARDS {
            if self.shards[shard].paused_until_ms.is_some() {
                self.wake(shard);
            }
            if !self.shards[shard].doors[FIRST].is_up && !self.shards[shard].missed_link_loss {
                self.switch_link(shard);
            }
        }
        self.faults.store_fails = false;
        self.lagging = DOORS;
        self.pace_ms = LEISURELY_MS;
        self.dismiss_heralds();
        while !self.mortals.is_empty() {
            self.live_and_die(false);
        }
        for number in 0..self.devices.len() {
            self.read_again(number);
        }
        while !self.hostile.is_empty() {
            self.end_hostile(0);
        }
        for _ in 0..REST_STEPS {
            self.go_on(true);
            self.check();
            if self.is_at_rest() {
                break;
            }
        }
        assert!(self.is_at_rest(), "the world does not come to rest: {}", self.describe());
        self.check_at_rest();
    }

    /// Everyone goes; nothing must be left of them (P7, P9).
    pub(crate) fn leave(&mut self) {
        let now = self.now();
        for shard in 0..SHARDS {
            self.shards[shard].engine.handle_drain(now, 0);
            self.drain(shard);
        }
        for _ in 0..REST_STEPS {
            if self.shards.iter().all(|shard| shard.engine.is_drained()) {
                break;
            }
            match self.random.below(5) {
                0 => self.read_bridge(),
                1 => self.settle_one(),
                2 => self.answer_store(),
                3 => self.move_down(),
                _ => self.let_time_pass(),
            }
        }
        for shard in &self.shards {
            assert!(shard.engine.is_drained(), "{:?} does not drain", shard.owner);
            assert_eq!((shard.engine.connections(), shard.engine.half_open()), (0, 0));
        }
    }

    fn is_at_rest(&self) -> bool {
        self.devices.iter().all(Device::is_done)
            && self.bridge.is_idle()
            && self.shards.iter().all(|shard| !shard.has_questions() && shard.has_heard_all())
            && self.devices.iter().all(|device| {
                let view = device
                    .socket
                    .as_ref()
                    .and_then(|socket| self.shards[socket.shard].engine.device(&device.client));
                view.is_some_and(|view| view.inflight == 0 && view.pending == 0 && view.owed == 0)
            })
            && self.devices.iter().all(|device| self.owners(device) == 1)
            && self.shards.iter().all(|shard| !shard.is_still())
            && self.bridge.awaited.is_empty()
            && self.missing().is_none()
            && self.missing_push().is_none()
            && self.missing_in_group().is_none()
            && self.unspoken().is_none()
    }

    /// Shards that hold a connection of this device. One that it has left without a word stays until its keep alive has run out.
    fn owners(&self, device: &Device) -> usize {
        self.shards.iter().filter(|shard| shard.engine.device(&device.client).is_some()).count()
    }

    fn dial(&mut self) {
        let number = self.random.below(self.devices.len());
        // Now and then a device comes anew though its connection stands: it has lost it and the gateway has not noticed.
        if self.devices[number].socket.is_some() && !(self.faults.cuts && self.random.one_in(40)) {
            return;
        }
        let shard = self.random.below(SHARDS);
        if self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        if let Ok(id) = self.shards[shard].engine.handle_accept(Listener::Mqtt, now) {
            self.tell(|| format!("device-{number} dials shard {shard}"));
            self.devices[number].dial(shard, id);
            self.note(&[1, number as u64, shard as u64]);
        }
    }

    fn publish(&mut self) {
        let number = self.random.below(DEVICES);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][self.random.below(3)];
        let Some((topic, payload, qos)) = self.devices[number].publish(qos) else { return };
        if qos > QoS::AtMostOnce {
            let owed_to = self
                .standing
                .iter()
                .copied()
                .filter(|subscriber| self.devices[*subscriber].subscribes_to(&topic) > Some(QoS::AtMostOnce))
                .collect();
            let owed_to_group = self.is_owed_to_group(&topic);
            self.published.insert(payload, Published { topic, acknowledged: false, owed_to, owed_to_group });
        }
        self.note(&[2, number as u64]);
    }

    /// Some bytes of a device arrive.
    fn move_up(&mut self) {
        let number = self.random.below(self.devices.len());
        let Some(socket) = &mut self.devices[number].socket else { return };
        let shard = socket.shard;
        if socket.under_way() == 0 {
            return;
        }
        let count = 1 + self.random.below(socket.under_way());
        socket.arrive(count);
        self.read(number);
        self.drain(shard);
        self.note(&[3, number as u64, count as u64]);
    }

    /// A socket is ready, or wanted again.
    pub(crate) fn read(&mut self, number: usize) {
        let Some(socket) = &self.devices[number].socket else { return };
        let (shard, id) = (socket.shard, socket.id);
        let now = self.now_at(shard);
        let Some(socket) = &mut self.devices[number].socket else { return };
        if !self.shards[shard].is_still() && self.shards[shard].engine.may_read(id) {
            let mut bytes = socket.read();
            if !bytes.is_empty() {
                self.shards[shard].engine.handle_bytes(id, &mut bytes, now);
            }
        }
    }

    fn stop_or_go_on_reading(&mut self) {
        let number = self.random.below(DEVICES);
        let Some(socket) = &mut self.devices[number].socket else { return };
        if socket.reads {
            socket.reads = false;
        } else {
            self.read_again(number);
        }
    }

    /// A device reads everything that waits for it.
    pub(crate) fn read_again(&mut self, number: usize) {
        let Some(socket) = &mut self.devices[number].socket else { return };
        let (shard, id) = (socket.shard, socket.id);
        socket.reads = true;
        let was_blocked = std::mem::replace(&mut socket.blocked, false);
        self.receive(number);
        if was_blocked {
            let now = self.now_at(shard);
            self.shards[shard].engine.handle_unblocked(id, now);
            self.drain(shard);
        }
    }

    fn receive(&mut self, number: usize) {
        for noticed in self.devices[number].receive() {
            self.judge(number, noticed);
        }
    }

    /// A hostile peer comes, says something, or goes.
    fn be_hostile(&mut self) {
        if self.hostile.len() < HOSTILE {
            let shard = self.random.below(SHARDS);
            let listener = Hostile::listener(&mut self.random);
            let number = self.random.below(HOSTILE);
            if self.shards[shard].is_still() {
                return;
            }
            let now = self.now_at(shard);
            if let Ok(id) = self.shards[shard].engine.handle_accept(listener, now) {
                self.hostile.push(Hostile::new(shard, id, number));
            }
            return;
        }
        let chosen = self.random.below(HOSTILE);
        let Hostile { shard, id, .. } = self.hostile[chosen];
        if self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        if self.random.one_in(10) {
            return self.end_hostile(chosen);
        }
        let mut bytes = self.hostile[chosen].says(&mut self.random);
        if self.shards[shard].engine.may_read(id) {
            self.trace.write(&bytes);
            self.shards[shard].engine.handle_bytes(id, &mut bytes, now);
            self.drain(shard);
        } else if self.random.one_in(2) {
            self.shards[shard].engine.handle_blocked(id);
        } else {
            self.shards[shard].engine.handle_unblocked(id, now);
            self.drain(shard);
        }
    }

    fn end_hostile(&mut self, chosen: usize) {
        let Hostile { shard, id, .. } = self.hostile.swap_remove(chosen);
        let now = self.now_at(shard);
        self.shards[shard].engine.handle_closed(id, SocketEnd::Reset, now);
        self.drain(shard);
    }

    fn read_bridge(&mut self) {
        let shard = self.random.below(SHARDS);
        for door in (0..DOORS).filter(|door| *door != self.lagging) {
            self.bridge.read((shard, door), &mut self.shards);
        }
    }

    /// The bridge goes on with a frame, and with whatever was sent and has to go elsewhere.
    fn settle_one(&mut self) {
        self.bridge.settle_one(&mut self.random, &mut self.store, &mut self.shards);
        self.bridge.see_groups_through(&mut self.store, &mut self.shards);
        self.bridge.see_pushes_through(&mut self.store, &mut self.shards);
        if self.bridge.up {
            self.bridge.remind_groups(&mut self.store, &mut self.shards);
        }
    }

    fn answer_store(&mut self) {
        let shard = self.random.below(SHARDS);
        if self.shards[shard].paused_until_ms.is_some() {
            return;
        }
        if self.random.one_in(2) || self.shards[shard].lease.holds() {
            self.answer_renewal(shard);
        }
        if self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        let fails = self.faults.store_fails && self.random.one_in(20);
        if self.shards[shard].answer_one(&mut self.store, fails, &mut self.random, now) {
            // What a session knew may be lost with the write.
            self.has_died = true;
        }
        self.drain(shard);
    }

    fn move_down(&mut self) {
        let shard = self.random.below(SHARDS);
        if self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        for door in 0..DOORS {
            self.shards[shard].hear_one(door, now);
        }
        self.drain(shard);
    }

    fn let_time_pass(&mut self) {
        let ms = 1 + self.random.below(self.pace_ms) as u64;
        let before = self.clock.fetch_add(ms, Ordering::Relaxed);
        let now = self.now();
        if before / PING_MS != now.monotonic_ms / PING_MS {
            self.devices.iter_mut().for_each(Device::ping);
        }
        for shard in 0..SHARDS {
            if self.shards[shard].paused_until_ms.is_some_and(|until_ms| until_ms <= now.monotonic_ms) {
                self.wake(shard);
            }
            if self.shards[shard].paused_until_ms.is_some() {
                continue;
            }
            let now = self.now_at(shard);
            self.shards[shard].lease.pass(now.monotonic_ms);
            if self.shards[shard].is_still() {
                continue;
            }
            self.shards[shard].engine.handle_timers(now);
            self.drain(shard);
        }
    }

    fn push(&mut self) {
        let client = self.devices[self.random.below(DEVICES)].client.clone();
        if self.bridge.up {
            self.bridge.push(&client, &mut self.store, &mut self.shards);
        }
    }

    fn cut(&mut self) {
        let number = self.random.below(self.devices.len());
        self.lose_connection(number);
    }

    pub(crate) fn lose_connection(&mut self, number: usize) {
        let Some(socket) = &self.devices[number].socket else { return };
        let (shard, id) = (socket.shard, socket.id);
        let now = self.now_at(shard);
        self.tell(|| format!("device-{number} is cut"));
        self.devices[number].lose();
        // The gateway may notice at once, or only when the device comes again.
        if self.random.one_in(2) && !self.shards[shard].is_still() {
            self.shards[shard].engine.handle_closed(id, SocketEnd::Reset, now);
            self.drain(shard);
        }
        self.note(&[4, number as u64]);
    }

    fn bridge_dies_or_returns(&mut self) {
        if self.bridge.up {
            self.bridge.die();
            self.has_died = true;
            for shard in 0..SHARDS {
                if self.shards[shard].is_still() {
                    self.shards[shard].missed_link_loss = true;
                    continue;
                }
                let now = self.now_at(shard);
                self.lose_links(shard, now);
                self.drain(shard);
            }
        } else {
            self.bridge.up = true;
            for shard in 0..SHARDS {
                if self.shards[shard].is_still() {
                    continue;
                }
                let now = self.now_at(shard);
                self.shards[shard].link(FIRST, self.bridge.id, now);
                self.drain(shard);
            }
        }
        self.note(&[5, u64::from(self.bridge.up)]);
    }

    fn link_goes_or_returns(&mut self) {
        if self.bridge.up {
            let shard = self.random.below(SHARDS);
            if !self.shards[shard].is_still() {
                self.switch_link(shard);
            }
        }
    }

    fn switch_link(&mut self, shard: usize) {
        let now = self.now_at(shard);
        self.tell(|| format!("the link of shard {shard} is switched"));
        self.has_flapped = true;
        if self.shards[shard].doors[FIRST].is_up {
            self.bridge.forget_link((shard, FIRST));
            self.shards[shard].unlink(FIRST, now);
        } else {
            self.shards[shard].link(FIRST, self.bridge.id, now);
        }
        self.drain(shard);
        self.note(&[7, shard as u64]);
    }

    pub(crate) fn lose_links(&mut self, shard: usize, now: Now) {
        for door in 0..DOORS {
            self.bridge.forget_link((shard, door));
            self.shards[shard].unlink(door, now);
        }
    }

    /// A bridge that has just started meets a shard, or leaves it.
    fn newcomer_comes_or_leaves(&mut self) {
        let shard = self.random.below(SHARDS);
        if !self.bridge.up || self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        if !self.shards[shard].doors[OTHER].is_up {
            self.tell(|| format!("a new bridge meets shard {shard}"));
            let bridge = BridgeId(1_000 + self.random.below(1_000) as u64);
            self.shards[shard].link(OTHER, bridge, now);
        } else if self.bridge.owes_nothing((shard, OTHER))
            && self.shards[shard].doors[OTHER].records.is_empty()
        {
            // Nothing that it was told is told again by anybody but this shard.
            self.tell(|| format!("the new bridge leaves shard {shard}"));
            self.bridge.forget_link((shard, OTHER));
            self.shards[shard].unlink(OTHER, now);
        }
        self.drain(shard);
        self.note(&[10, shard as u64]);
    }

    fn a_node_dies(&mut self) {
        let dead = self.random.below(SHARDS);
        self.node_ends(dead);
    }

    /// A node is gone, and another one takes its place.
    pub(crate) fn node_ends(&mut self, dead: usize) {
        self.tell(|| format!("node {dead} ends"));
        self.has_died = true;
        for device in &mut self.devices {
            if device.socket.as_ref().is_some_and(|socket| socket.shard == dead) {
                device.lose();
            }
        }
        self.lose_mortals(dead);
        self.excuse_heralds(dead, true);
        self.hostile.retain(|hostile| hostile.shard != dead);
        (0..DOORS).for_each(|door| self.bridge.forget_link((dead, door)));
        self.shards[dead] = self.new_shard();
        self.drain(dead);
        self.note(&[6, dead as u64]);
    }

    /// Carries what a shard did to devices and bridge.
    pub(crate) fn drain(&mut self, shard: usize) {
        let now = self.now_at(shard);
        loop {
            let effects = self.shards[shard].drain(now);
            for (id, bytes) in effects.sent {
                self.greet_mortal(shard, id, &bytes);
                self.greet_herald(shard, id, &bytes);
                let Some(number) = self.device_at(shard, id) else { continue };
                self.trace.write(&bytes);
                let Some(socket) = &mut self.devices[number].socket else { continue };
                if socket.write(&bytes) {
                    self.shards[shard].engine.handle_blocked(id);
                }
                self.receive(number);
            }
            for (id, reason) in effects.closed {
                if let Some(number) = self.device_at(shard, id) {
                    self.tell(|| format!("device-{number} is closed: {reason:?}"));
                    // It pings in time, so whoever does not hear it has forgotten to read.
                    assert_ne!(reason, CloseReason::KeepAliveTimeout, "device {number} was not heard");
                    // What was sent before the end still arrives.
                    if let Some(socket) = &mut self.devices[number].socket {
                        socket.reads = true;
                    }
                    self.receive(number);
                    self.devices[number].lose();
                }
                self.hostile.retain(|hostile| (hostile.shard, hostile.id) != (shard, id));
                self.close_mortal(shard, id);
                self.close_herald(shard, id);
            }
            for id in &effects.resumed {
                if let Some(number) = self.device_at(shard, *id) {
                    self.read(number);
                }
            }
            if effects.resumed.is_empty() {
                break;
            }
        }
        for door in 0..DOORS {
            let output = std::mem::take(self.shards[shard].engine.link_output(LinkIndex(door as u16)));
            self.trace.write(&output);
            if self.shards[shard].doors[door].is_up {
                self.bridge.take_bytes((shard, door), &output);
            }
        }
    }

    fn device_at(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        self.devices.iter().position(|device| {
            device.socket.as_ref().is_some_and(|socket| socket.shard == shard && socket.id == id)
        })
    }

    /// With `SIM_TELL` set, what happens is printed.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{} {}", self.clock.load(Ordering::Relaxed), what());
        }
    }

    pub(crate) fn note(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.trace.write_u64(*number);
        }
    }
}

/// Some subscribe to everything, some to one site, some to themselves; some persist.
fn new_device(number: usize) -> Device {
    let client = format!("device-{number}");
    let version = if number.is_multiple_of(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    let filters = match number % 4 {
        0 => vec![("site/#".to_owned(), QoS::ExactlyOnce)],
        1 => vec![
            ("site/1".to_owned(), QoS::AtLeastOnce),
            (format!("devices/{client}/push"), QoS::AtLeastOnce),
        ],
        2 => vec![("site/+".to_owned(), QoS::AtMostOnce), (format!("devices/{client}/#"), QoS::ExactlyOnce)],
        _ => vec![(format!("devices/{client}/push"), QoS::AtLeastOnce)],
    };
    // The neighbour's own topic, so that personal filters are served too.
    let topic = match number % 3 {
        0 => "site/1".to_owned(),
        1 => "site/2".to_owned(),
        _ => format!("devices/device-{}/push", (number + 1) % DEVICES),
    };
    // Those who do not persist publish longest, so that what others miss of the last frames is revealed by nothing that follows.
    let frames = if number < 6 { FRAMES } else { 2 * FRAMES };
    Device::new(client, version, number < 6, filters, topic, frames)
}
