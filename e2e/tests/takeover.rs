//! The same client id connects again: the former connection hears why it ends, whichever shards the two are on, and
//! the session has one owner.

use std::time::Duration;

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, End, Setup};

const TAKEOVERS: u16 = 300;

#[test]
fn each_of_many_takeovers_in_a_row_ends_the_former_connection() {
    let gateway = Setup::new().set("shards", 4).start();
    for persistent in [false, true] {
        let connect = Connect::new(Version::V5, if persistent { "kept" } else { "clean" });
        let connect = if persistent { connect.persistent() } else { connect };
        let (mut former, _) = Client::connect(gateway.mqtt(), &connect);
        for number in 1..=TAKEOVERS {
            let (next, answer) = Client::connect(gateway.mqtt(), &connect);
            assert_eq!(answer.session_present(), persistent, "takeover {number}");
            let heard = former.receive_to_end();
            let goodbye = heard.last().map(|last| (last.kind(), last.reason()));
            assert_eq!(goodbye, Some((kind::DISCONNECT, 0x8E)), "takeover {number}: {heard:?}");
            former = next;
        }
        former.ping();
    }
}

#[test]
fn of_many_that_connect_at_once_one_remains() {
    let gateway = Setup::new().set("shards", 4).start();
    for round in 0..20 {
        let connect = Connect::new(Version::V5, "crowd");
        let connect = if round % 2 == 0 { connect } else { connect.persistent() };
        let mut clients: Vec<_> = std::thread::scope(|scope| {
            let connecting: Vec<_> =
                (0..10).map(|_| scope.spawn(|| Client::try_connect(gateway.mqtt(), &connect))).collect();
            connecting.into_iter().map(|client| client.join().unwrap()).collect()
        });
        // Some may have been taken over before their CONNACK.
        clients.retain(|client| client.as_ref().is_ok_and(|(_, answer)| answer.connect_code() == 0));
        assert!(!clients.is_empty(), "round {round}: nobody got in");
        let mut live: Vec<_> = clients.into_iter().map(|client| client.unwrap().0).collect();
        until_true("one connection to be left", PATIENCE, || {
            // One that is taken over has a DISCONNECT or its end waiting; one that stands is silent.
            live.retain_mut(|client| client.poll(Duration::from_millis(1)) == Err(End::Silence));
            live.len() <= 1
        });
        let [last] = &mut live[..] else { panic!("round {round}: {} are left", live.len()) };
        last.ping();
    }
}

#[test]
fn what_the_former_connection_had_in_flight_goes_on_on_the_next() {
    let gateway = Setup::new().set("shards", 4).start();
    let connect = Connect::new(Version::V5, "device").persistent();
    let (mut former, _) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(former.subscribe("to/device", 1), 1);
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
    for number in 1..=50 {
        sender.send(&publish(Version::V5, 1, "to/device", number, number.to_string().as_bytes()));
        sender.receive_kind(kind::PUBACK);
        // Heard, and taken over before it is acknowledged.
        assert_eq!(former.receive_publish().payload, number.to_string().as_bytes());
        let (mut next, answer) = Client::connect(gateway.mqtt(), &connect);
        assert!(answer.session_present());
        let again = next.receive_publish();
        assert_eq!((again.payload, again.dup), (number.to_string().into_bytes(), true));
        next.send(&acknowledge(kind::PUBACK, again.id));
        next.ping();
        former = next;
    }
}
