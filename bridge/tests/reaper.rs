//! A gateway that dies: its sessions come to rest and its clients' last words are published, once, and not for those who came back.

mod shard;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::BridgeConfig;
use holdfast_store::{Bounds, MemoryStore, ReplyTo, Store, clock};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner};
use holdfast_wire::link::InterestKind;
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::store::{Progress, Reply, Request, SessionInfo, StoreError, WillRecord};
use shard::*;

const LEASE_MS: u32 = 1_000;

fn renew(rig: &Rig, node: NodeId) -> Result<Reply, StoreError> {
    rig.ask(Request::RenewLease { node, for_ms: LEASE_MS })
}

fn will(client: &str, delay_s: u32) -> WillRecord {
    let topic = format!("gone/{client}");
    let message = SharedMessage::new(&Message {
        id: 0,
        topic: &topic,
        qos: QoS::AtLeastOnce,
        retain: true,
        publisher: client,
        published_at_ms: 1,
        expires_at_ms: 0,
        properties: &[],
        payload: client.as_bytes(),
    });
    WillRecord { message, delay_s, expiry_s: 3_600 }
}

fn connect(rig: &Rig, client: &str, owner: Owner, expiry_s: u32, will: Option<WillRecord>) -> Epoch {
    let open = Request::Open { client: ClientId::new(client), owner, clean_start: false, expiry_s, will };
    let Ok(Reply::Opened(opened)) = rig.ask(open) else { panic!("the session opens") };
    opened.epoch
}

fn find(rig: &Rig, client: &str) -> Option<SessionInfo> {
    match rig.ask(Request::Lookup { client: ClientId::new(client) }) {
        Ok(Reply::Session(session)) => session,
        other => panic!("{other:?}"),
    }
}

fn retained(rig: &Rig) -> Vec<SharedMessage> {
    match rig.ask(Request::ReadRetained {
        filter: "gone/#".into(),
        after: None,
        messages_max: 100,
        bytes_max: u32::MAX,
    }) {
        Ok(Reply::Retained(messages)) => messages,
        other => panic!("{other:?}"),
    }
}

/// Waits for a state, while the living node keeps its lease.
fn until(rig: &Rig, living: NodeId, reached: impl Fn() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < DEADLINE, "still not so");
        renew(rig, living).expect("the other node lives");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sessions_of_a_dead_node_come_to_rest_and_their_wills_are_published() {
    let rig = Rig::start();
    let (dead, living) = (owner(1), owner(2));
    renew(&rig, dead.node).unwrap();
    renew(&rig, living.node).unwrap();
    connect(&rig, "kept", dead, 3_600, Some(will("kept", 0)));
    connect(&rig, "clean", dead, 0, Some(will("clean", 0)));
    connect(&rig, "elsewhere", living, 3_600, Some(will("elsewhere", 0)));
    let epoch = connect(&rig, "late", dead, 3_600, Some(will("late", 3_600)));

    until(&rig, living.node, || retained(&rig).len() == 2);
    let kept = find(&rig, "kept").expect("a persistent session is kept");
    assert_eq!(kept.owner, None);
    assert_eq!(find(&rig, "clean"), None, "it ended with its connection");
    until(&rig, living.node, || find(&rig, "late").is_some_and(|session| session.owner.is_none()));
    assert!(find(&rig, "late").unwrap().epoch > epoch, "the dead node cannot write");
    assert_eq!(find(&rig, "elsewhere").unwrap().owner, Some(living));

    let mut logged = rig.logged();
    logged.sort_unstable();
    assert_eq!(logged, ["clean", "kept"], "a will is a frame like any other");
    for message in retained(&rig) {
        let message = message.view();
        assert_eq!(message.expires_at_ms, message.published_at_ms + 3_600_000);
        assert_ne!(message.id, 0);
    }
    assert_eq!(renew(&rig, dead.node), Err(StoreError::Fenced), "it was buried");
}

/// A store whose time stands still until a test moves it.
fn store_with_a_clock() -> (Arc<dyn Store>, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(1_000_000));
    let shown = Arc::clone(&now_ms);
    let clock: clock::Clock = Arc::new(move || shown.load(Ordering::Relaxed));
    (Arc::new(MemoryStore::new(clock, Bounds::default())), now_ms)
}

fn pass(clock: &AtomicU64, time: Duration) {
    clock.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
}

#[test]
fn a_client_that_came_back_has_no_last_word_and_the_others_have_one() {
    let (store, clock) = store_with_a_clock();
    let first = Rig::start_with(BridgeConfig::default(), Arc::clone(&store));
    let second = Rig::start_with(BridgeConfig::default(), store);
    let (dead, living) = (owner(1), owner(2));
    renew(&first, dead.node).unwrap();
    connect(&first, "returns", dead, 86_400, Some(will("returns", 60)));
    connect(&first, "stays away", dead, 86_400, Some(will("stays away", 60)));
    connect(&first, "later", dead, 86_400, Some(will("later", 3_600)));
    pass(&clock, Duration::from_millis(u64::from(LEASE_MS)));
    let rests = |client: &str| find(&first, client).is_some_and(|session| session.owner.is_none());
    until(&first, living.node, || ["returns", "stays away", "later"].iter().all(|client| rests(client)));
    connect(&first, "returns", living, 86_400, None);
    pass(&clock, Duration::from_mins(1));
    until(&first, living.node, || !retained(&first).is_empty());
    // Far beyond the time after which what was not struck out is given again.
    pass(&clock, Duration::from_hours(1));
    until(&first, living.node, || retained(&first).len() == 2);
    let mut logged = [first.logged(), second.logged()].concat();
    logged.sort_unstable();
    assert_eq!(logged, ["later", "stays away"], "each once");
}

#[test]
fn one_bridge_of_several_publishes_each_will_once() {
    let store: Arc<dyn Store> = memory_store();
    let first = Rig::start_with(BridgeConfig::default(), Arc::clone(&store));
    let second = Rig::start_with(BridgeConfig::default(), store);
    let (dead, living) = (owner(1), owner(2));
    renew(&first, dead.node).unwrap();
    let clients: Vec<_> = (0..300).map(|number| format!("device-{number:03}")).collect();
    for client in &clients {
        connect(&first, client, dead, 3_600, Some(will(client, 0)));
    }
    let all = || [first.logged(), second.logged()].concat();
    until(&first, living.node, || all().len() >= clients.len());
    let mut logged = all();
    logged.sort_unstable();
    assert_eq!(logged, clients);
}

/// A store in which some things go wrong.
struct Troubled {
    store: Arc<dyn Store>,
    /// How often it will not say whether a will was struck out.
    silences: AtomicU64,
    /// It has no room for the retained message of this topic.
    no_room_for: Mutex<Option<&'static str>>,
    /// A part of it is away, so that it cannot say of nodes whether they own anything.
    names_no_dead: bool,
}

impl Troubled {
    fn rig(silences: u64, no_room_for: Option<&'static str>) -> (Rig, Arc<Self>) {
        let (silences, no_room_for) = (AtomicU64::new(silences), Mutex::new(no_room_for));
        let store = Arc::new(Self { store: memory_store(), silences, no_room_for, names_no_dead: false });
        (Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as _), store)
    }
}

impl Store for Troubled {
    fn submit(&self, request: Request, reply: ReplyTo) {
        match &request {
            Request::WillPublished { .. }
                if self
                    .silences
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
                    .is_ok() =>
            {
                reply(Err(StoreError::Unavailable("it does not answer".to_owned())));
            }
            Request::Retain { message }
                if Some(message.view().topic) == *self.no_room_for.lock().unwrap() =>
            {
                reply(Err(StoreError::Full("there is no room".to_owned())));
            }
            Request::DeadNodes if self.names_no_dead => {
                reply(Err(StoreError::Unavailable("a part of it is away".to_owned())));
            }
            _ => self.store.submit(request, reply),
        }
    }
}

/// What a shard hears that has subscribed to all wills, up to the payload `last`.
fn heard_until(shard: &mut Shard, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|payload| payload != last) {
        match shard.hear() {
            Heard::Deliver { payload, .. } => heard.push(payload),
            Heard::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    heard
}

#[test]
fn a_will_is_heard_once_however_often_the_store_does_not_answer() {
    let (rig, store) = Troubled::rig(7, None);
    let mut shard = rig.shard(2);
    shard.announce(InterestKind::Filter, "gone/#", false);
    let dead = owner(1);
    renew(&rig, dead.node).unwrap();
    for client in ["a", "b"] {
        connect(&rig, client, dead, 3_600, Some(will(client, 0)));
    }
    until(&rig, shard.owner.node, || store.silences.load(Ordering::Acquire) == 0);
    shard.publish(uplink(1, "gone/end", "end"));
    let mut heard = heard_until(&mut shard, "end");
    heard.sort_unstable();
    assert_eq!(heard, ["a", "b", "end"]);
}

#[test]
fn a_will_waits_for_room_in_the_store_and_holds_up_no_other() {
    let (rig, store) = Troubled::rig(0, Some("gone/full"));
    let mut shard = rig.shard(2);
    shard.announce(InterestKind::Filter, "gone/#", false);
    let dead = owner(1);
    renew(&rig, dead.node).unwrap();
    for client in ["fits", "full", "too"] {
        connect(&rig, client, dead, 3_600, Some(will(client, 0)));
    }
    let retains =
        |client: &str| retained(&rig).iter().any(|message| message.view().payload == client.as_bytes());
    until(&rig, shard.owner.node, || retains("fits") && retains("too"));
    assert!(!retains("full"));
    *store.no_room_for.lock().unwrap() = None;
    let mut heard = heard_until(&mut shard, "full");
    heard.sort_unstable();
    assert_eq!(heard, ["fits", "full", "too"]);
    assert!(retains("full"));
}

#[test]
fn wills_are_published_while_the_store_cannot_name_the_dead() {
    let store = Troubled {
        store: memory_store(),
        silences: AtomicU64::new(0),
        no_room_for: Mutex::new(None),
        names_no_dead: true,
    };
    let rig = Rig::start_with(BridgeConfig::default(), Arc::new(store));
    let living = owner(1);
    let epoch = connect(&rig, "left", living, 3_600, None);
    let close = Request::Close {
        client: ClientId::new("left"),
        epoch,
        expiry_s: 3_600,
        progress: Progress::default(),
        will: Some(will("left", 0)),
    };
    rig.ask(close).unwrap();
    until(&rig, living.node, || !retained(&rig).is_empty());
}
