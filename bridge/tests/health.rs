//! What a bridge of its own says of itself: of the session store, and of the sink.

mod shard;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::admin::{self, Admin};
use holdfast_bridge::push::{PushRequest, PushTarget};
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::link::InterestKind;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::store::Request;
use serde_json::{Value, json};
use shard::{DEADLINE, Rig, memory_store, owner, uplink};

/// A store that can stop to answer, or say that a part of it has.
struct Hanging {
    store: Arc<dyn Store>,
    hangs: AtomicBool,
    is_partly_away: AtomicBool,
}

impl Hanging {
    fn start() -> Arc<Self> {
        let (hangs, is_partly_away) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { store: memory_store(), hangs, is_partly_away })
    }
}

impl Store for Hanging {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if !self.hangs.load(Ordering::Acquire) {
            self.store.submit(request, reply);
        }
    }

    fn is_partly_away(&self) -> bool {
        self.is_partly_away.load(Ordering::Acquire)
    }
}

fn readyz(address: SocketAddr) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn until_status(address: SocketAddr, wanted: u16) -> Value {
    let started = Instant::now();
    loop {
        let (status, body) = readyz(address);
        if status == wanted {
            return body;
        }
        assert!(started.elapsed() < DEADLINE, "still {status}: {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The admin address of a rig's bridge.
fn admin_address(rig: &Rig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin { metrics: Box::new(String::new), drain: Box::new(|| ()) };
    rig.bridge.serve(listener, admin::router(rig.bridge.clone(), admin)).unwrap();
    address
}

/// A gateway whose process stands still takes nothing that it is told, and its bridge cannot tell it that its frames are stored.
#[test]
fn a_drain_ends_in_its_time_though_a_gateway_cannot_be_told() {
    const WITHIN: Duration = Duration::from_secs(4);
    let config = BridgeConfig { stuck_after: Duration::from_mins(10), ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    let address = admin_address(&rig);
    let mut shard = rig.shard(1);
    rig.session("d", owner(1), &[]);
    until_status(address, 200);
    // More than the kernel has room for, and nobody reads it.
    shard.announce(InterestKind::Filter, "news/#", false);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let news = || PushRequest {
        target: PushTarget::Topic("news/today".into()),
        topic: None,
        payload: vec![b'x'; 1 << 20],
        qos: QoS::AtMostOnce,
        ttl_s: None,
        content_type: None,
        collapse_key: None,
        retain: false,
        id: None,
        wait: DEADLINE,
    };
    for _ in 0..4 {
        runtime.block_on(rig.bridge.push(news())).unwrap();
    }
    shard.publish(uplink(1, "t", "stored"));
    let begun = Instant::now();
    while rig.logged().is_empty() {
        assert!(begun.elapsed() < DEADLINE, "the frame is stored");
        std::thread::sleep(Duration::from_millis(10));
    }
    let bridge = rig.bridge.clone();
    let draining = std::thread::spawn(move || {
        let begun = Instant::now();
        (bridge.shutdown(WITHIN), begun.elapsed())
    });
    let body = until_status(address, 503);
    assert_eq!((&body["draining"], &body["reason"]), (&json!(true), &json!("the bridge drains")));
    let (is_drained, took) = draining.join().unwrap();
    assert!(!is_drained, "the shard was not told");
    assert!(took >= WITHIN, "{took:?}");
    // While the process still ends, it says so.
    assert_eq!(until_status(address, 503)["draining"], true);
}

#[test]
fn a_drain_with_nobody_to_tell_is_done_at_once() {
    let rig = Rig::start();
    let address = admin_address(&rig);
    until_status(address, 200);
    assert!(rig.bridge.shutdown(DEADLINE));
    assert!(TcpStream::connect(address).is_err(), "nobody answers any more");
}

#[test]
fn a_store_that_does_not_answer_makes_the_bridge_unready_until_it_does() {
    let store = Hanging::start();
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let address = admin_address(&rig);
    let body = until_status(address, 200);
    assert_eq!((&body["store"], &body["reason"]), (&json!(true), &json!("")), "{body}");
    assert_eq!(body["sink"], json!({ "kind": "log", "stores": true, "spool": null }), "{body}");
    store.hangs.store(true, Ordering::Release);
    let body = until_status(address, 503);
    assert_eq!((&body["ready"], &body["store"]), (&json!(false), &json!(false)), "{body}");
    assert!(body["reason"].as_str().unwrap().starts_with("the session store does not answer"), "{body}");
    store.hangs.store(false, Ordering::Release);
    until_status(address, 200);
}

#[test]
fn a_store_of_which_a_part_does_not_answer_leaves_every_bridge_ready_and_each_says_so() {
    let store = Hanging::start();
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let address = admin_address(&rig);
    until_status(address, 200);
    // The name that this bridge asks for may be with the servers that are away.
    store.is_partly_away.store(true, Ordering::Release);
    store.hangs.store(true, Ordering::Release);
    let hung_at = Instant::now();
    while hung_at.elapsed() < Duration::from_secs(4) {
        let (status, body) = readyz(address);
        assert_eq!((status, &body["store"]), (200, &json!(true)), "{body}");
        assert!(
            body["reason"].as_str().unwrap().contains("a part of the session store does not answer"),
            "{body}"
        );
    }
    // Now nothing of it does.
    store.is_partly_away.store(false, Ordering::Release);
    let body = until_status(address, 503);
    assert!(body["reason"].as_str().unwrap().starts_with("the session store does not answer"), "{body}");
}
