//! Two bridges at one store: what one of them takes and the other one takes is all there, and the one that is left does the work of both.

use std::collections::BTreeSet;
use std::thread;

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Redis, Role, RoleSetup, log, request};
use serde_json::json;

/// Two gateways and two bridges, each with a log of its own.
struct Fleet {
    gateways: [Role; 2],
    bridges: [Role; 2],
    _redis: Redis,
}

impl Fleet {
    fn start() -> Self {
        let redis = Redis::start();
        let bridge =
            || RoleSetup::bridge().argument("--sink", "log").argument("--store", redis.url()).start();
        let bridges = [bridge(), bridge()];
        let gateway = || {
            let setup = RoleSetup::gateway().argument("--store", redis.url());
            bridges
                .iter()
                .fold(setup, |setup, bridge| setup.argument("--bridge", bridge.address("link")))
                .start()
        };
        Self { gateways: [gateway(), gateway()], bridges, _redis: redis }
    }

    fn connect(&self, gateway: usize, connect: &Connect) -> Client {
        Client::connect(self.gateways[gateway].address("mqtt"), connect).0
    }

    /// The outcome of a push by one of the bridges.
    fn push(&self, bridge: usize, device: &str, payload: &str) -> String {
        let body = json!({ "device": device, "payload": payload }).to_string();
        let headers = [("content-type", "application/json")];
        let to = self.bridges[bridge].address("push");
        let answer = request(to, "POST", "/v1/push", &headers, body.as_bytes()).expect("an answer");
        answer.json()["outcome"].as_str().unwrap_or_else(|| panic!("{}", answer.json())).to_owned()
    }

    fn logged(&self, bridge: usize) -> usize {
        log::read(&self.bridges[bridge].data_dir().join("log")).len()
    }

    fn reaped(&self, bridge: usize) -> u64 {
        self.bridges[bridge].metrics().sum("holdfast_bridge_reaped_sessions_total", &[])
    }
}

fn persistent(client_id: &str) -> Connect {
    Connect::new(Version::V5, client_id).persistent()
}

/// So many different messages, in whatever order.
fn receive(client: &mut Client, messages: usize) -> BTreeSet<String> {
    let mut heard = BTreeSet::new();
    while heard.len() < messages {
        let message = client.receive_publish();
        client.send(&acknowledge(kind::PUBACK, message.id));
        heard.insert(String::from_utf8(message.payload).expect("text"));
    }
    heard
}

#[test]
fn a_persistent_session_gets_all_that_devices_publish_at_once_through_both() {
    const PUBLISHERS: usize = 16;
    const EACH: usize = 60;
    let fleet = Fleet::start();
    let mut reader = fleet.connect(0, &persistent("reader"));
    assert_eq!(reader.subscribe("numbers/#", 1), 1);
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let mut client =
                fleet.connect(publisher % 2, &Connect::new(Version::V5, &format!("p{publisher}")));
            scope.spawn(move || {
                for number in 1..=EACH {
                    let payload = format!("{publisher}-{number}");
                    client.send(&publish(Version::V5, 1, "numbers/x", number as u16, payload.as_bytes()));
                    client.receive_kind(kind::PUBACK);
                }
            });
        }
        receive(&mut reader, PUBLISHERS * EACH);
    });
    let logged = [fleet.logged(0), fleet.logged(1)];
    assert!(logged.iter().all(|frames| *frames > 0), "both take part: {logged:?}");
    assert_eq!(logged.iter().sum::<usize>(), PUBLISHERS * EACH);
}

#[test]
fn a_device_that_was_away_gets_all_that_was_pushed_at_once_through_both() {
    const EACH: usize = 150;
    let fleet = Fleet::start();
    let mut device = fleet.connect(0, &persistent("device"));
    assert_eq!(device.subscribe("devices/device/push", 1), 1);
    device.leave();
    until_true("it to be away", PATIENCE, || fleet.push(0, "device", "first") == "queued");
    thread::scope(|scope| {
        for bridge in 0..2 {
            let fleet = &fleet;
            scope.spawn(move || {
                for number in 0..EACH {
                    assert_eq!(fleet.push(bridge, "device", &format!("{bridge}-{number}")), "queued");
                }
            });
        }
    });
    let mut device = fleet.connect(1, &persistent("device"));
    receive(&mut device, 1 + 2 * EACH);
}

#[test]
fn the_bridge_that_is_left_buries_a_gateway() {
    let mut fleet = Fleet::start();
    let _first = fleet.connect(0, &persistent("first"));
    let mut listener = fleet.connect(1, &persistent("listener"));
    assert_eq!(listener.subscribe("gone/#", 1), 1);
    fleet.gateways[0].kill();
    until_true("its session to be reaped", PATIENCE, || fleet.reaped(0) + fleet.reaped(1) == 1);
    let led = usize::from(fleet.reaped(1) == 1);
    fleet.bridges[led].kill();
    fleet.gateways[0].restart();
    let _second = fleet.connect(0, &persistent("second").will("gone/second", b"second", &[]));
    fleet.gateways[0].pause();
    assert_eq!(receive(&mut listener, 1), BTreeSet::from(["second".to_owned()]));
    until_true("the other bridge to have reaped it", PATIENCE, || fleet.reaped(1 - led) == 1);
    fleet.gateways[0].resume();
    assert!(!fleet.gateways[0].await_exit(PATIENCE).success(), "it was buried");
}
