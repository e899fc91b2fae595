//! How connections begin, and how a node does.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use holdfast_gateway::{Node, NodeConfig, StartError};
use holdfast_store::contract::Request;
use holdfast_store::{MemoryStore, ReplyTo, Store};

use crate::client::{CONNACK, Client, Packet, connect_311};
use crate::{World, config, wait_until};

#[test]
fn a_connect_is_answered_by_whichever_shard_took_the_connection() {
    let world = World::start();
    let mut clients: Vec<Client> = (0..40).map(|index| world.connect(&format!("client-{index}"))).collect();
    clients.iter_mut().for_each(Client::ping);
    assert_eq!(world.connections(), 40);
}

#[test]
fn a_client_that_sends_one_byte_at_a_time_is_served() {
    let world = World::start();
    let mut client = Client::open(world.mqtt());
    let mut bytes = connect_311("slow");
    bytes.extend_from_slice(&[0xc0, 0]);
    for byte in bytes {
        client.stream.write_all(&[byte]).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(client.read(), Packet { first: CONNACK, body: vec![0, 0] });
    assert_eq!(client.read().first, crate::client::PINGRESP);
}

#[test]
fn a_connection_without_a_connect_is_cut_when_its_time_is_up() {
    let world = World::start_with(|config| config.limits.connect_timeout_ms = 100);
    let mut silent = Client::open(world.mqtt());
    let mut half = Client::open(world.mqtt());
    half.send(&connect_311("half")[..5]);
    silent.expect_end();
    half.expect_end();
    wait_until("their places are free again", || world.connections() == 0);
}

#[test]
fn thousands_of_half_open_connections_leave_the_others_unharmed() {
    let world = World::start();
    let mut honest = world.connect("honest");
    let half_open: Vec<Client> = (0..2_000).map(|_| Client::open(world.mqtt())).collect();
    honest.ping();
    let mut late = world.connect("late");
    late.ping();
    drop(half_open);
    wait_until("their places are free again", || world.connections() == 2);
}

#[test]
fn a_connection_beyond_the_limit_is_closed_and_the_others_stay() {
    let world = World::start_with(|config| {
        config.shards = 1;
        config.limits.connections_max = 2;
    });
    let (mut first, mut second) = (world.connect("first"), world.connect("second"));
    let mut third = Client::open(world.mqtt());
    third.expect_end();
    first.ping();
    second.ping();
    drop(second);
    wait_until("a place is free again", || world.connections() == 1);
    world.connect("fourth").ping();
}

#[test]
fn a_connect_behind_which_the_device_half_closes_is_still_answered() {
    let world = World::start();
    let mut client = Client::open(world.mqtt());
    client.send(&connect_311("brief"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    wait_until("it is gone", || client.read_or_end().is_none());
    wait_until("its place is free again", || world.connections() == 0);
}

#[test]
fn a_websocket_upgrade_is_answered_on_its_own_listener() {
    let world = World::start();
    let mut stream = std::net::TcpStream::connect(world.node.addresses().ws.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::DEADLINE)).unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    // Key and answer are the example of RFC 6455, section 1.3.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
}

#[test]
fn a_port_in_use_is_one_line_and_opens_nothing() {
    let world = World::start();
    let mut config = config();
    config.listeners.mqtt = world.mqtt().to_string();
    let options = holdfast_store::Options::default();
    let store = std::sync::Arc::new(holdfast_store::MemoryStore::new(options.clock, options.bounds));
    let started = Node::start(NodeConfig::new(config.validate().unwrap()), store, vec![]);
    let Err(error @ StartError::Bind(_)) = started.map(drop) else { panic!("it must not start") };
    let line = error.to_string();
    assert!(
        line.starts_with(&format!("listeners.mqtt = {}: Address already in use", world.mqtt())),
        "{line}"
    );
    assert!(!line.contains('\n'), "{line}");
    world.connect("still-served").ping();
}

/// A store in memory that keeps questions about sessions to itself until it is told to answer.
struct Slow {
    memory: Arc<MemoryStore>,
    held: Mutex<Option<Vec<(Request, ReplyTo)>>>,
    opened: AtomicUsize,
}

impl Slow {
    fn answers(&self) {
        for (request, reply) in self.held.lock().unwrap().take().unwrap_or_default() {
            self.memory.submit(request, reply);
        }
    }
}

impl Store for Slow {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if !matches!(request, Request::Open { .. }) {
            return self.memory.submit(request, reply);
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        match &mut *self.held.lock().unwrap() {
            Some(held) => held.push((request, reply)),
            None => self.memory.submit(request, reply),
        }
    }
}

#[test]
fn a_device_that_gives_up_while_it_waits_for_a_slow_store_is_let_go_and_never_asked_about() {
    let store = Arc::new(Slow {
        memory: crate::memory(),
        held: Mutex::new(Some(Vec::new())),
        opened: AtomicUsize::new(0),
    });
    let world = World::start_on(
        Arc::clone(&store) as Arc<dyn Store>,
        |node| node,
        |config| {
            config.shards = 1;
            config.limits.connect_timeout_ms = 600_000;
        },
    );
    let dial = |name: String| {
        let mut client = Client::open(world.mqtt());
        client.send(&connect_311(&name));
        client
    };
    let mut asked: Vec<Client> = (0..32).map(|number| dial(format!("asked-{number}"))).collect();
    wait_until("the store is asked", || store.opened.load(Ordering::Relaxed) == 32);
    let waiting: Vec<Client> = (0..8).map(|number| dial(format!("waiting-{number}"))).collect();
    wait_until("all are here", || world.connections() == 40);
    drop(waiting);
    wait_until("those who waited are let go", || world.connections() == 32);
    store.answers();
    for client in &mut asked {
        assert_eq!(client.read(), Packet { first: CONNACK, body: vec![0, 0] });
    }
    world.connect("later").ping();
    assert_eq!(store.opened.load(Ordering::Relaxed), 33);
}
