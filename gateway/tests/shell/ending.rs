//! How connections, links and nodes end.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use holdfast_gateway::Drained;
use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{MemoryStore, ReplyTo, Store};
use socket2::SockRef;

use crate::client::{Client, DISCONNECT, PUBACK, Packet};
use crate::{DEADLINE, World, http, memory, wait_until};

/// A store in memory that declares whoever asks dead once it is told to, and forgets leases.
struct Undertaker {
    memory: Arc<MemoryStore>,
    buries: AtomicBool,
    forgets: AtomicBool,
    restored: AtomicBool,
}

impl Undertaker {
    fn new() -> Arc<Self> {
        let no = || AtomicBool::new(false);
        Arc::new(Self { memory: memory(), buries: no(), forgets: no(), restored: no() })
    }
}

impl Store for Undertaker {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let renews = matches!(request, Request::RenewLease { .. });
        self.restored.fetch_or(matches!(request, Request::Restore { .. }), Ordering::Relaxed);
        if renews && self.buries.load(Ordering::Relaxed) {
            reply(Err(StoreError::Fenced));
        } else if renews && self.forgets.swap(false, Ordering::Relaxed) {
            reply(Ok(Reply::Renewed { known: false }));
        } else {
            self.memory.submit(request, reply);
        }
    }
}

#[test]
fn a_node_that_was_declared_dead_sends_its_devices_elsewhere_and_ends() {
    let store = Undertaker::new();
    let mut world = World::start_on(Arc::clone(&store) as Arc<dyn Store>, |node| node, |_| ());
    let mut modern = Client::connect_5(world.mqtt(), "modern");
    let mut classic = world.connect("classic");
    classic.publish("t", 3, b"owed");
    world.bridge.wait_for_uplinks(1);
    store.buries.store(true, Ordering::Relaxed);
    let goodbye = modern.read();
    assert_eq!((goodbye.first, goodbye.body.first()), (DISCONNECT, Some(&0x8b)), "{goodbye:?}");
    modern.expect_end();
    assert_eq!(classic.read_or_end(), None, "nothing is acknowledged any more");
    world.node.drain_trigger().wait();
    let drained = world.node.drain(Duration::from_secs(30));
    assert!(drained.buried, "{drained:?}");
    world.node.join();
}

#[test]
fn the_devices_of_a_store_that_lost_its_data_are_written_back() {
    let store = Undertaker::new();
    let world = World::start_on(Arc::clone(&store) as Arc<dyn Store>, |node| node, |_| ());
    let mut client = world.connect("device");
    store.forgets.store(true, Ordering::Relaxed);
    wait_until("its session is written back", || store.restored.load(Ordering::Relaxed));
    client.ping();
}

#[test]
fn a_device_that_says_goodbye_sees_the_end_of_the_connection() {
    let world = World::start();
    let mut client = world.connect("polite");
    client.send(&[DISCONNECT, 0]);
    client.expect_end();
    drop(client);
    wait_until("its place is free again", || world.connections() == 0);
}

#[test]
fn a_device_that_resets_its_connection_costs_nothing_further() {
    let world = World::start();
    for index in 0..50 {
        let client = world.connect(&format!("client-{index}"));
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    wait_until("their places are free again", || world.connections() == 0);
}

#[test]
fn a_device_that_keeps_sending_after_it_was_closed_is_cut() {
    let world = World::start();
    let mut client = world.connect("stubborn");
    // A second CONNECT is a protocol error (MQTT-3.1.0-2).
    client.send(&crate::client::connect_311("stubborn"));
    wait_until("it is cut", || std::io::Write::write(&mut client.stream, &[0; 1_000]).is_err());
    wait_until("its place is free again", || world.connections() == 0);
}

#[test]
fn a_drain_says_goodbye_and_gives_the_acknowledgements_it_owes() {
    let mut world = World::start();
    let mut modern = Client::connect_5(world.mqtt(), "modern");
    let mut classic = world.connect("classic");
    classic.publish("t", 3, b"owed");
    let uplink = world.bridge.wait_for_uplinks(1).remove(0);
    let admin = world.admin();
    let trigger = world.node.drain_trigger();
    let watcher = std::thread::spawn(move || {
        trigger.wait();
        http::get(admin, "/readyz").status
    });
    let drained = std::thread::scope(|scope| {
        let node = &mut world.node;
        let draining = scope.spawn(|| node.drain(Duration::from_secs(15)));
        let goodbye = modern.read();
        assert_eq!((goodbye.first, goodbye.body.first()), (DISCONNECT, Some(&0x8b)), "{goodbye:?}");
        modern.expect_end();
        world.bridge.settle(&uplink);
        assert_eq!(classic.read(), Packet { first: PUBACK, body: vec![0, 3] });
        classic.expect_end();
        draining.join().unwrap()
    });
    assert_eq!(drained, Drained { complete: true, cut: 0, failed: false, buried: false });
    assert_eq!(watcher.join().unwrap(), 503);
    world.node.join();
}

#[test]
fn a_drain_that_is_asked_for_over_http_reaches_whoever_waits_for_it() {
    let world = World::start();
    assert_eq!(http::request(world.admin(), "POST", "/drain").status, 202);
    world.node.drain_trigger().wait();
    assert_eq!(http::get(world.admin(), "/readyz").json()["draining"], true);
}

/// Whether the node comes to its end, although this is all that somebody ever sends to its admin server.
fn ends_in_spite_of(request: &str) -> bool {
    let mut world = World::start();
    let mut held = TcpStream::connect(world.admin()).unwrap();
    held.write_all(request.as_bytes()).unwrap();
    // Connections are taken in their order, so that one has been taken once this is answered.
    assert_eq!(http::get(world.admin(), "/livez").status, 200);
    assert!(world.node.drain(DEADLINE).complete);
    let (tell, ended) = channel();
    let node = world.node;
    std::thread::spawn(move || {
        node.join();
        tell.send(())
    });
    ended.recv_timeout(DEADLINE).is_ok()
}

#[test]
fn half_a_head_does_not_keep_a_node_from_its_end() {
    assert!(ends_in_spite_of("GET /readyz HTTP/1.1\r\nHo"));
}

#[test]
fn a_body_that_never_ends_does_not_keep_a_node_from_its_end() {
    assert!(ends_in_spite_of("POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"));
}

#[test]
fn what_is_left_when_the_time_of_a_drain_is_up_is_cut() {
    let mut world = World::start();
    let mut client = world.connect("owed");
    client.publish("t", 3, b"never settled");
    world.bridge.wait_for_uplinks(1);
    let drained = world.node.drain(Duration::ZERO);
    assert_eq!(drained, Drained { complete: false, cut: 1, failed: false, buried: false });
    wait_until("it is gone", || client.read_or_end().is_none());
}

#[test]
fn a_node_whose_links_are_gone_is_not_ready_and_keeps_its_devices() {
    let world = World::start();
    let _client = world.connect("device");
    world.bridge.cut();
    wait_until("it is not ready", || http::get(world.admin(), "/readyz").status == 503);
    assert_eq!(world.connections(), 1);
    assert_eq!(http::get(world.admin(), "/livez").status, 200);
    // What devices send waits in the kernel; those that come are still admitted.
    world.connect("newcomer");
}

#[test]
fn a_bridge_that_sends_garbage_loses_that_link_and_nothing_else() {
    let world = World::start();
    world.bridge.say_garbage(0);
    wait_until("the link is down", || http::get(world.admin(), "/readyz").json()["links"] == false);
    // Of twenty devices some are with the other shard, whose frames go on.
    let mut clients: Vec<Client> = (0..20).map(|index| world.connect(&format!("client-{index}"))).collect();
    for client in &mut clients {
        client.publish("t", 1, b"frame");
    }
    assert_eq!(world.bridge.wait_for_uplinks(1)[0].shard, 1);
}
