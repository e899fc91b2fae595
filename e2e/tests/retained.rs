//! Retained messages for new subscriptions, more of them than a client has room for at a time.

use holdfast_e2e::packet::{Version, acknowledge, kind, publish, subscribe};
use holdfast_e2e::{Client, Gateway};

const V5: Version = Version::V5;
const RETAIN: u8 = 1;
/// More than `limits.inflight_max` and `limits.pending_messages_max` together.
const STATES: u16 = 3_000;
/// Publications at a time: within `mqtt.receive_maximum`.
const WINDOW: u16 = 30;

/// Retains a message on each of so many topics.
fn retain_states(gateway: &Gateway) {
    let mut publisher = Client::open(gateway.mqtt(), V5, "publisher");
    for first in (1..=STATES).step_by(WINDOW.into()) {
        for id in first..first + WINDOW {
            let mut packet = publish(V5, 1, &format!("state/{id:05}"), id, &id.to_be_bytes());
            packet[0] |= RETAIN;
            publisher.send(&packet);
        }
        for id in first..first + WINDOW {
            let acknowledged = publisher.receive_kind(kind::PUBACK);
            assert_eq!((acknowledged.id(), acknowledged.reason() < 0x80), (id, true));
        }
    }
    publisher.leave();
}

#[test]
fn every_retained_message_arrives_at_a_client_that_acknowledges() {
    let gateway = Gateway::start();
    retain_states(&gateway);
    for version in [Version::V311, V5] {
        let mut reader = Client::open(gateway.mqtt(), version, "reader");
        assert_eq!(reader.subscribe("state/+", 1), 1);
        for id in 1..=STATES {
            let heard = reader.receive_publish();
            assert_eq!((heard.topic, heard.payload), (format!("state/{id:05}"), id.to_be_bytes().to_vec()));
            reader.send(&acknowledge(kind::PUBACK, heard.id));
        }
        reader.ping();
        reader.leave();
    }
}

#[test]
fn a_client_that_subscribes_to_everything_again_and_again_delays_nobody() {
    const SUBSCRIBES: u16 = 500;
    /// The default of `limits.inflight_max`.
    const INFLIGHT_MAX: u32 = 256;
    let gateway = Gateway::start();
    retain_states(&gateway);
    let mut other = Client::open(gateway.mqtt(), V5, "other");
    let mut flooding = Client::open(gateway.mqtt(), V5, "flooding");
    let bytes: Vec<u8> = (1..=SUBSCRIBES).flat_map(|id| subscribe(V5, id, "#", 1)).collect();
    flooding.send(&bytes);
    other.ping();
    // All are granted; it acknowledges nothing, so it is sent no more than it has room for, however often it has asked.
    let (mut granted, mut messages) = (0, 0);
    while granted < SUBSCRIBES {
        match flooding.receive().kind() {
            kind::SUBACK => granted += 1,
            _ => messages += 1,
        }
    }
    assert!(messages <= INFLIGHT_MAX, "{messages} messages");
    other.ping();
}
