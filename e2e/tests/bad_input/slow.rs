//! Peers that take their time, and many of them.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use holdfast_e2e::packet::{self, Connect, Version, kind};
use holdfast_e2e::wait::{PATIENCE, pause, until_true};
use holdfast_e2e::{Client, End, Setup, Witness};
use rustix::process::{Resource, getrlimit};

use super::{Memory, assert_closed, closed};

#[test]
fn a_connect_at_one_byte_a_second_is_cut_when_its_time_is_over() {
    let gateway = Setup::new().set("limits.connect_timeout_ms", 3000).start();
    let before = closed(&gateway, &["connect_timeout"]);
    let begun = Instant::now();
    let mut client = Client::dial(gateway.mqtt(), Version::V5);
    for byte in Connect::new(Version::V5, "slow").encode() {
        if client.try_send(&[byte]).is_err() || client.poll(Duration::from_secs(1)) == Err(End::Closed) {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_secs(10), "cut after {took:?}");
    assert_closed(&gateway, &["connect_timeout"], before, 1, "one byte a second");
}

#[test]
fn a_slow_publish_of_a_connected_client_is_taken() {
    let gateway = Setup::new().set("limits.connect_timeout_ms", 500).start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "patient");
    let begun = Instant::now();
    for byte in packet::publish(Version::V5, 1, "slow", 9, b"x") {
        client.send(&[byte]);
        pause(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > Duration::from_millis(500));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 9);
}

#[test]
fn half_a_packet_does_not_count_as_a_sign_of_life_for_ever() {
    let gateway = Setup::new().start();
    let before = closed(&gateway, &["keep_alive_timeout"]);
    let begun = Instant::now();
    let (mut client, _) = Client::connect(gateway.mqtt(), &Connect::new(Version::V5, "half").keep_alive_s(1));
    client.send(&packet::publish(Version::V5, 1, "half", 9, b"never finished")[..8]);
    let heard = client.receive_to_end();
    assert_eq!(heard.last().map(|last| (last.kind(), last.reason())), Some((kind::DISCONNECT, 0x8D)));
    assert!(begun.elapsed() >= Duration::from_millis(1400), "one and a half keep alives [MQTT-3.1.2-22]");
    assert_closed(&gateway, &["keep_alive_timeout"], before, 1, "half a packet");
}

#[test]
fn thousands_of_half_open_connections_harm_nobody() {
    let gateway = Setup::new().set("limits.connect_timeout_ms", 5000).start();
    let witness = Witness::start(gateway.mqtt());
    let before = closed(&gateway, &["connect_timeout"]);
    let memory = Memory::of(&gateway);
    // Both processes run under the same limit.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = files.saturating_sub(500).min(10_000);
    let sockets: Vec<_> = (0..count).map(|number| half_open(gateway.mqtt(), number)).collect();
    // A few hundred bytes for each at most, and what a shard keeps for so many sockets.
    memory.assert_flat(16);
    assert_closed(&gateway, &["connect_timeout"], before, count, "half-open connections");
    drop(sockets);
    until_true("all sockets to be gone", PATIENCE, || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
        open < 200
    });
    memory.assert_flat(16);
    witness.finish();
}

/// A third is silent, a third has begun a CONNECT, a third has begun an upgrade of the wrong kind.
fn half_open(mqtt: SocketAddr, number: u64) -> TcpStream {
    use std::io::Write;
    let mut socket = TcpStream::connect_timeout(&mqtt, PATIENCE).expect("half-open connections are accepted");
    match number % 3 {
        0 => {}
        1 => socket.write_all(&Connect::new(Version::V311, "half-open").encode()[..7]).unwrap(),
        _ => socket.write_all(&[0x10]).unwrap(),
    }
    socket
}

#[test]
fn a_client_that_does_not_read_costs_only_itself() {
    let gateway = Setup::new().start();
    let witness = Witness::start(gateway.mqtt());
    let mut deaf = Client::open(gateway.mqtt(), Version::V5, "deaf");
    assert_eq!(deaf.subscribe("flood/#", 1), 1);
    let memory = Memory::of(&gateway);
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "flood");
    let payload = vec![b'x'; 16 * 1024];
    // 128 MiB in all, in QoS 0 and 1: far beyond what kernels buffer for one socket.
    for number in 0..8192_u16 {
        let qos = u8::from(number % 4 == 0);
        sender.send(&packet::publish(Version::V5, qos, "flood/x", number + 1, &payload));
        if qos == 1 {
            // The publisher is told, and never held back by the one that does not read.
            sender.receive_kind(kind::PUBACK);
        }
    }
    sender.ping();
    memory.assert_flat(32);
    witness.finish();
    drop(deaf);
}
