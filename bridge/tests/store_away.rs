//! A session store that answers no read of retained messages holds up those reads and nothing else that a link brings.

mod shard;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use holdfast_bridge::BridgeConfig;
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{RetainedRead, Takeover, ToBridge};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::store::{Request, StoreError};
use shard::*;

/// A store that is away for reads of some retained messages until it is back.
struct Away {
    store: Arc<dyn Store>,
    gone: AtomicBool,
    /// Reads below `silent/` are not answered; those below `away/` are told so.
    unanswered: Mutex<Vec<(Request, ReplyTo)>>,
}

impl Store for Away {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if let Request::ReadRetained { filter, .. } = &request
            && self.gone.load(Ordering::SeqCst)
        {
            if filter.starts_with("silent/") {
                return self.unanswered.lock().unwrap().push((request, reply));
            }
            if filter.starts_with("away/") {
                return reply(Err(StoreError::Unavailable("away".into())));
            }
        }
        self.store.submit(request, reply);
    }
}

impl Away {
    fn begin() -> (Arc<Self>, Rig) {
        let store = memory_store();
        let away = Arc::new(Self { store, gone: true.into(), unanswered: Mutex::default() });
        let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&away) as Arc<dyn Store>);
        for topic in ["silent/1", "away/1", "here/1"] {
            let message = SharedMessage::new(&message(topic, QoS::AtLeastOnce, topic));
            rig.ask(Request::Retain { message }).unwrap();
        }
        (away, rig)
    }

    fn is_back(&self) {
        self.gone.store(false, Ordering::SeqCst);
        for (request, reply) in std::mem::take(&mut *self.unanswered.lock().unwrap()) {
            self.store.submit(request, reply);
        }
    }
}

fn ask(shard: &mut Shard, tokens: std::ops::RangeInclusive<u64>, filter: &str) {
    for token in tokens {
        shard.say(&ToBridge::RetainedRead(RetainedRead { token, filter, after: "", messages_max: 10 }));
    }
}

/// Hears the answers of so many reads; each has one message.
fn hear_answers(shard: &mut Shard, count: usize, topic: &str) {
    let mut messages = 0;
    let mut ended = 0;
    while ended < count {
        match shard.hear() {
            Heard::Retained { topic: heard, .. } if heard == topic => messages += 1,
            Heard::RetainedEnd { more: false, .. } => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(messages, count);
}

#[test]
fn frames_and_all_the_rest_go_on_while_the_store_answers_no_read_of_retained_messages() {
    const READS: u64 = 2_000;
    let (away, rig) = Away::begin();
    let mut shard = rig.shard(1);
    let mut other = rig.shard(2);
    ask(&mut shard, 1..=READS, "silent/#");
    shard.publish(uplink(1, "t", "1"));
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
    let takeover = Takeover { client: "c", epoch: Epoch(8), former: owner(2), owner: owner(1) };
    shard.say(&ToBridge::Takeover(takeover));
    assert_eq!(other.hear(), Heard::Takeover { client: "c".into(), epoch: Epoch(8) });
    away.is_back();
    hear_answers(&mut shard, READS as usize, "silent/1");
}

#[test]
fn a_read_that_the_store_cannot_answer_is_tried_again_and_holds_up_no_other() {
    const READS: u64 = 500;
    let (away, rig) = Away::begin();
    let mut shard = rig.shard(1);
    ask(&mut shard, 1..=READS, "away/#");
    ask(&mut shard, READS + 1..=READS + 1, "here/#");
    hear_answers(&mut shard, 1, "here/1");
    away.is_back();
    hear_answers(&mut shard, READS as usize, "away/1");
}

#[test]
fn a_bridge_drains_though_reads_are_not_answered() {
    let (_away, rig) = Away::begin();
    let mut shard = rig.shard(1);
    ask(&mut shard, 1..=1_000, "silent/#");
    ask(&mut shard, 1_001..=2_000, "away/#");
    shard.publish(uplink(1, "t", "1"));
    assert_eq!(shard.hear(), Heard::Settled(stored(1, 1)));
    assert!(rig.bridge.shutdown(DEADLINE));
    assert_eq!(shard.hear(), Heard::Closed);
}

#[test]
fn what_may_wait_for_the_store_has_a_bound_and_who_comes_then_is_told_at_once() {
    const READS: u64 = 2_000;
    let (_away, rig) = Away::begin();
    let mut shard = rig.shard(1);
    let filter = format!("silent/{}", "x".repeat(60_000));
    let mut asking = shard.stream.try_clone().unwrap();
    let asks = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for token in 1..=READS {
            let read = RetainedRead { token, filter: &filter, after: "", messages_max: 10 };
            ToBridge::RetainedRead(read).encode(&mut bytes);
        }
        std::io::Write::write_all(&mut asking, &bytes).unwrap();
    });
    let first = (32 << 20) / 60_000;
    for _ in first..READS {
        let Heard::RetainedEnd { token, more: false } = shard.hear() else { panic!("no end") };
        assert!(token > first - 10, "{token} had room");
    }
    asks.join().unwrap();
    shard.publish(uplink(1, "t", "1"));
    while shard.hear() != Heard::Settled(stored(1, 1)) {}
}
