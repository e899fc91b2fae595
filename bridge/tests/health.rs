//! What a bridge of its own says of itself: of the session store, and of the sink.

mod shard;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::admin::{self, Admin};
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::store::Request;
use serde_json::{Value, json};
use shard::{DEADLINE, Rig, memory_store};

/// A store that can stop to answer.
struct Hanging {
    store: Arc<dyn Store>,
    hangs: AtomicBool,
}

impl Store for Hanging {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if !self.hangs.load(Ordering::Acquire) {
            self.store.submit(request, reply);
        }
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

#[test]
fn a_store_that_does_not_answer_makes_the_bridge_unready_until_it_does() {
    let store = Arc::new(Hanging { store: memory_store(), hangs: AtomicBool::new(false) });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin { metrics: Box::new(String::new), drain: Box::new(|| ()) };
    rig.bridge.serve(listener, admin::router(rig.bridge.clone(), admin)).unwrap();

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
