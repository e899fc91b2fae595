//! Clients that say "here" with each connection and leave "gone" as their will, each with the connection's number.
//!
//! Who listens to one must not hear that it is gone after it has said that it is here again, nor that it is here after it was gone: that is what retained presence is
//! made of.

use holdfast_engine::{ConnectionId, Listener, SocketEnd};
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, Disconnect, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, Will,
    WillProperties,
};

use crate::world::{SHARDS, World};

/// So many of them.
pub(crate) const HERALDS: usize = 3;
const TOPIC: &str = "presence";

pub(crate) struct Herald {
    pub(crate) client: String,
    /// Its connection, as far as it knows.
    socket: Option<(usize, ConnectionId)>,
    has_spoken: bool,
    /// Its connections, the first one first.
    pub(crate) lives: Vec<Life>,
    /// The last connection whose "here" is in the sink.
    pub(crate) last_here: usize,
}

/// One connection, and what is known of its will.
#[derive(Debug, Default)]
pub(crate) struct Life {
    shard: usize,
    /// Handovers that had come too late when it was dialled.
    late_before: u64,
    clean_start: bool,
    /// For how long its will waits if it does not come back.
    delay_ms: u64,
    /// CONNACK came.
    pub(crate) is_accepted: bool,
    pub(crate) has_said_goodbye: bool,
    pub(crate) ended_ms: Option<u64>,
    /// A node did not run or died: so its will may come twice, late, or in spite of a goodbye ...
    pub(crate) is_excused: bool,
    /// ... or not at all, as it died with the node that was publishing it.
    pub(crate) may_be_lost: bool,
    /// The client came back to its session in time.
    pub(crate) is_cancelled: bool,
    pub(crate) published: u32,
}

/// What a herald has said, or left to be said.
pub(crate) enum Word {
    Here(usize),
    Gone(usize),
}

impl Herald {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            client: format!("herald-{number}"),
            socket: None,
            has_spoken: false,
            lives: Vec::new(),
            last_here: 0,
        }
    }

    /// The word in a payload, and the number of the connection.
    pub(crate) fn word(payload: &[u8]) -> Word {
        let text = std::str::from_utf8(payload).expect("heralds write text");
        let (word, number) = text.split_once(':').expect("and a number");
        let number = number.parse().expect("a number");
        if word == "here" { Word::Here(number) } else { Word::Gone(number) }
    }

    fn life(&mut self) -> &mut Life {
        self.lives.last_mut().expect("it has dialled")
    }

    fn greeting(&self, life: &Life, expiry_s: u32) -> Vec<u8> {
        let payload = format!("gone:{}", self.lives.len());
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: TOPIC,
            payload: payload.as_bytes(),
            properties: WillProperties {
                delay_interval_s: Some((life.delay_ms / 1_000) as u32).filter(|delay_s| *delay_s > 0),
                ..WillProperties::default()
            },
        };
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: life.clean_start,
            keep_alive_s: 1,
            client_id: &self.client,
            will: Some(will),
            username: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval_s: Some(expiry_s),
                ..ConnectProperties::default()
            },
        };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        bytes
    }

    /// A will that is owed and was not published.
    pub(crate) fn unspoken(&self) -> Option<String> {
        let number = self.lives.iter().enumerate().position(|(at, life)| {
            let next = self.lives.get(at + 1);
            // One that comes back to its session may do so in time or not; and so may, in the store's order, one that had dialled before and heard nothing: a
            // gateway that did not notice its end goes on with it. One that begins anew and hears nothing may come behind another one.
            let begins_anew =
                |next: &Life| next.clean_start && (next.is_accepted || at + 2 == self.lives.len());
            let is_last =
                next.is_none_or(begins_anew) && self.lives[..at].iter().all(|former| former.is_accepted);
            let falls_due = life.delay_ms == 0 || is_last;
            let is_owed = life.is_accepted && life.ended_ms.is_some() && !life.has_said_goodbye && falls_due;
            is_owed && !life.may_be_lost && life.published == 0
        })?;
        Some(format!("will {number} of {} was not published: {:?}", self.client, self.lives))
    }
}

impl World {
    /// One of them dials, says that it is here, says goodbye, or vanishes.
    pub(crate) fn come_and_go(&mut self) {
        let number = self.random.below(HERALDS);
        let herald = &self.heralds[number];
        match herald.socket {
            None => self.dial_herald(number),
            Some((shard, _)) if self.shards[shard].is_still() => self.lose_herald(number, false),
            Some(_) if !herald.has_spoken => self.speak(number),
            Some(_) if self.random.one_in(4) => self.say_goodbye(number),
            Some(_) => {
                let notices = self.random.one_in(2);
                self.lose_herald(number, notices);
            }
        }
    }

    /// All are gone for good.
    pub(crate) fn dismiss_heralds(&mut self) {
        for number in 0..self.heralds.len() {
            if let Some((shard, _)) = self.heralds[number].socket {
                let notices = !self.shards[shard].is_still();
                self.lose_herald(number, notices);
            }
        }
    }

    fn dial_herald(&mut self, number: usize) {
        let shard = self.random.below(SHARDS);
        if self.shards[shard].is_still() {
            return;
        }
        let now = self.now_at(shard);
        let Ok(id) = self.shards[shard].engine.handle_accept(Listener::Mqtt, now) else { return };
        let clean_start = self.random.one_in(3);
        let expiry_s = [0, 100][self.random.below(2)];
        let delay_ms = if expiry_s == 0 { 0 } else { [0, 1_000, 3_000][self.random.below(3)] };
        let late_before = self.late_handovers();
        let life = Life { shard, late_before, clean_start, delay_ms, ..Life::default() };
        let herald = &mut self.heralds[number];
        let mut bytes = herald.greeting(&life, expiry_s);
        let connection = herald.lives.len();
        herald.lives.push(life);
        herald.socket = Some((shard, id));
        herald.has_spoken = false;
        self.tell(|| {
            format!("herald-{number} dials shard {shard} as {connection}, clean {clean_start}, {delay_ms}")
        });
        self.shards[shard].engine.handle_bytes(id, &mut bytes, now);
        self.drain(shard);
    }

    fn late_handovers(&self) -> u64 {
        self.shards.iter().map(|shard| shard.engine.stats().handovers_late).sum()
    }

    fn speak(&mut self, number: usize) {
        let Some((shard, id)) = self.heralds[number].socket else { return };
        if !self.heralds[number].life().is_accepted {
            // It does not wait for ever.
            if self.random.one_in(20) {
                self.lose_herald(number, true);
            }
            return;
        }
        if !self.shards[shard].engine.may_read(id) {
            return;
        }
        let payload = format!("here:{}", self.heralds[number].lives.len() - 1);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: TOPIC,
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        };
        let mut bytes = Vec::new();
        publish.encode(ProtocolVersion::V5, &mut bytes);
        self.heralds[number].has_spoken = true;
        self.hear_herald(shard, id, &mut bytes);
    }

    fn say_goodbye(&mut self, number: usize) {
        let Some((shard, id)) = self.heralds[number].socket else { return };
        if !self.shards[shard].engine.may_read(id) {
            return;
        }
        self.tell(|| format!("herald-{number} says goodbye"));
        let now_ms = self.now_ms();
        let herald = &mut self.heralds[number];
        herald.socket = None;
        let life = herald.life();
        (life.has_said_goodbye, life.ended_ms) = (true, Some(now_ms));
        let mut bytes = Vec::new();
        Disconnect::default().encode(ProtocolVersion::V5, &mut bytes);
        self.hear_herald(shard, id, &mut bytes);
    }

    fn hear_herald(&mut self, shard: usize, id: ConnectionId, bytes: &mut [u8]) {
        let now = self.now_at(shard);
        self.shards[shard].engine.handle_bytes(id, bytes, now);
        self.drain(shard);
    }

    /// It vanishes; the gateway notices, or has to find out.
    fn lose_herald(&mut self, number: usize, notices: bool) {
        let Some((shard, id)) = self.heralds[number].socket.take() else { return };
        self.tell(|| format!("herald-{number} vanishes, noticed: {notices}"));
        let now = self.now_at(shard);
        let now_ms = self.now_ms();
        self.heralds[number].life().ended_ms = Some(now_ms);
        if notices {
            self.shards[shard].engine.handle_closed(id, SocketEnd::Reset, now);
            self.drain(shard);
        }
    }

    /// The gateway answers its greeting.
    pub(crate) fn greet_herald(&mut self, shard: usize, id: ConnectionId, bytes: &[u8]) {
        let now_ms = self.now_ms();
        let Some(herald) = self.heralds.iter_mut().find(|herald| herald.socket == Some((shard, id))) else {
            return;
        };
        if bytes.first() != Some(&0x20) || bytes.get(3).is_none_or(|code| *code >= 0x80) {
            return;
        }
        let resumes = bytes.get(2) == Some(&1);
        if let Some((life, former)) = herald.lives.split_last_mut() {
            life.is_accepted = true;
            if let Some(former) = former.last_mut() {
                former.is_cancelled =
                    resumes && former.ended_ms.is_some_and(|ended_ms| now_ms < ended_ms + former.delay_ms);
            }
        }
    }

    /// The gateway closes its connection.
    pub(crate) fn close_herald(&mut self, shard: usize, id: ConnectionId) {
        let now_ms = self.now_ms();
        if let Some(herald) = self.heralds.iter_mut().find(|herald| herald.socket == Some((shard, id))) {
            herald.socket = None;
            herald.life().ended_ms = Some(now_ms);
        }
    }

    /// A node does not run for a while, or is gone.
    pub(crate) fn excuse_heralds(&mut self, shard: usize, is_dead: bool) {
        let now_ms = self.now_ms();
        for herald in &mut self.heralds {
            for life in &mut herald.lives {
                life.is_excused = true;
                life.may_be_lost |= is_dead && life.shard == shard && life.ended_ms.is_some();
            }
            if is_dead && herald.socket.take_if(|(of, _)| *of == shard).is_some() {
                herald.life().ended_ms = Some(now_ms);
            }
        }
    }

    /// What a herald said, or left to be said, has come to the sink.
    pub(crate) fn hear_of_herald(&mut self, client: &str, payload: &[u8], is_strict: bool) {
        if self.heralds.iter().all(|herald| herald.client != client) {
            return;
        }
        self.tell(|| format!("the sink has {} of {client}", String::from_utf8_lossy(payload)));
        let late = self.late_handovers();
        let Some(herald) = self.heralds.iter_mut().find(|herald| herald.client == client) else { return };
        match Herald::word(payload) {
            Word::Here(number) => {
                herald.last_here = herald.last_here.max(number);
                let life = &herald.lives[number];
                // What waits in the store for its time may fall due by a connection that begins anew.
                let is_judged =
                    is_strict && life.delay_ms == 0 && !life.is_excused && late == life.late_before;
                assert!(!is_judged || life.published == 0, "{client} is here ({number}) after it was gone");
            }
            Word::Gone(number) => {
                let last_here = herald.last_here;
                let life = &mut herald.lives[number];
                life.published += 1;
                // Whose former owner is not heard in time is not waited for.
                if !is_strict || life.is_excused || late != life.late_before {
                    return;
                }
                assert!(life.is_accepted, "{client} leaves a will without having been accepted: {number}");
                assert!(
                    !life.has_said_goodbye,
                    "{client} has said goodbye and has a will all the same: {number}"
                );
                assert!(
                    !life.is_cancelled,
                    "{client} came back in time and has a will all the same: {number}"
                );
                assert!(life.published == 1, "{client} has two wills {number}");
                assert!(last_here <= number, "{client} is gone ({number}) after it was here ({last_here})");
            }
        }
    }
}
