//! SIGTERM and `POST /drain`: goodbye to devices, owed acknowledgements out, exit 0 in time.

use std::time::{Duration, Instant};

use holdfast_e2e::packet::{Connect, Packet, Version, kind, publish};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Gateway, Setup};

/// `drain.deadline_ms` here, and what the process may take beyond it to end.
const DEADLINE: Duration = Duration::from_secs(5);
const END: Duration = Duration::from_secs(3);

fn gateway() -> Gateway {
    Setup::new().set("mqtt.receive_maximum", 200).set("drain.deadline_ms", DEADLINE.as_millis()).start()
}

#[test]
fn sigterm_says_goodbye_and_ends_in_time() {
    let mut gateway = gateway();
    let mut v5 = Client::open(gateway.mqtt(), Version::V5, "v5");
    let mut v311 = Client::open(gateway.mqtt(), Version::V311, "v311");
    v5.ping();
    v311.ping();
    let begun = Instant::now();
    gateway.terminate();
    let goodbye = v5.receive_to_end();
    assert_eq!(goodbye.last().map(said), Some((kind::DISCONNECT, 0x8B)), "server shutting down");
    assert_eq!(v311.receive_to_end(), [], "MQTT 3.1.1 has no goodbye from a server");
    let status = gateway.await_exit(DEADLINE + END);
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < DEADLINE + END);
}

fn said(packet: &Packet) -> (u8, u8) {
    (packet.kind(), packet.reason())
}

#[test]
fn what_is_in_the_log_has_been_acknowledged() {
    let mut gateway = gateway();
    let mut clients: Vec<_> =
        (0..20).map(|number| Client::open(gateway.mqtt(), Version::V5, &format!("owed-{number}"))).collect();
    for client in &mut clients {
        let burst: Vec<u8> = (1..=200).flat_map(|id| publish(Version::V5, 1, "owed", id, b"x")).collect();
        client.send(&burst);
    }
    gateway.terminate();
    let mut acknowledged = 0;
    for client in &mut clients {
        let heard = client.receive_to_end();
        assert_eq!(heard.last().map(said), Some((kind::DISCONNECT, 0x8B)));
        let acks = &heard[..heard.len() - 1];
        assert!(acks.iter().all(|ack| said(ack) == (kind::PUBACK, 0) || said(ack) == (kind::PUBACK, 0x10)));
        // In their order, from the first on [MQTT-4.6.0-2].
        assert!(acks.iter().zip(1..).all(|(ack, id)| ack.id() == id));
        acknowledged += acks.len();
    }
    assert!(gateway.await_exit(DEADLINE + END).success());
    assert_eq!(gateway.frames().len(), acknowledged, "frames in the log and acknowledgements received");
}

#[test]
fn sessions_are_there_after_an_orderly_restart() {
    let mut gateway = gateway();
    let connect = Connect::new(Version::V5, "device").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    client.subscribe("news", 1);
    gateway.terminate();
    client.receive_to_end();
    assert!(gateway.await_exit(DEADLINE + END).success());
    gateway.restart();
    let (mut client, answer) = Client::connect(gateway.mqtt(), &connect);
    assert!(answer.session_present());
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
    sender.send(&publish(Version::V5, 1, "news", 1, b"x"));
    assert_eq!(client.receive_publish().payload, b"x");
}

#[test]
fn a_drain_can_be_asked_for_over_http() {
    let mut gateway = gateway();
    until_true("the node to be ready", PATIENCE, || gateway.http("GET", "/readyz", &[], b"").status == 200);
    assert_eq!(gateway.http("GET", "/livez", &[], b"").status, 200);
    let mut client = Client::open(gateway.mqtt(), Version::V5, "device");
    assert_eq!(gateway.http("POST", "/drain", &[], b"").status / 100, 2);
    assert_eq!(client.receive_to_end().last().map(said), Some((kind::DISCONNECT, 0x8B)));
    assert!(gateway.await_exit(DEADLINE + END).success());
}

#[test]
fn a_device_that_does_not_listen_cannot_hold_up_the_end() {
    let mut gateway = gateway();
    let mut deaf = Client::open(gateway.mqtt(), Version::V5, "deaf");
    deaf.subscribe("flood", 0);
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
    let payload = vec![b'x'; 64 * 1024];
    for _ in 0..256 {
        sender.send(&publish(Version::V5, 0, "flood", 0, &payload));
    }
    sender.ping();
    gateway.terminate();
    assert!(gateway.await_exit(DEADLINE + END).success());
    drop(deaf);
}

#[test]
fn nobody_is_admitted_after_the_goodbye() {
    let mut gateway = gateway();
    // One that waits for its goodbye keeps the process until then.
    let mut client = Client::open(gateway.mqtt(), Version::V5, "device");
    gateway.terminate();
    client.receive_to_end();
    until_true("connections to be refused", PATIENCE, || {
        Client::try_connect(gateway.mqtt(), &Connect::new(Version::V5, "late"))
            .map_or(true, |(_, answer)| answer.connect_code() != 0)
    });
    assert!(gateway.await_exit(DEADLINE + END).success());
}
