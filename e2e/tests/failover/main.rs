//! Gateways that die or stop, and a store that loses its data: what becomes of sessions, wills and pushes.

mod shared_groups;

use std::thread;
use std::time::{Duration, Instant};

use holdfast_e2e::packet::{
    Connect, Version, acknowledge, kind, publish, publish_with, receive_maximum, session_expiry_s,
};
use holdfast_e2e::wait::{PATIENCE, pause, until, until_true};
use holdfast_e2e::{Client, Redis, Role, RoleSetup, log, request};
use serde_json::{Value, json};

/// A death is noticed once the lease has run out and the doubt is over: 5 s and 3 s.
const NOTICED: Duration = Duration::from_secs(8);

/// Less than that by as much as clocks and looks of one second may make of it.
const AT_LEAST: Duration = Duration::from_secs(6);

/// Two gateways and a bridge with a log, and a Redis between them.
struct Fleet {
    gateways: [Role; 2],
    bridge: Role,
    redis: Redis,
}

impl Fleet {
    fn start() -> Self {
        Self::start_with(|bridge| bridge, |gateway| gateway)
    }

    fn start_with(
        of_bridge: impl FnOnce(RoleSetup) -> RoleSetup,
        of_gateway: impl Fn(RoleSetup) -> RoleSetup,
    ) -> Self {
        let redis = Redis::start();
        let bridge = RoleSetup::bridge().argument("--sink", "log").argument("--store", redis.url());
        let bridge = of_bridge(bridge).start();
        let gateway = || {
            let setup = RoleSetup::gateway().argument("--store", redis.url()).argument("--shards", 2);
            of_gateway(setup).argument("--bridge", bridge.address("link")).start()
        };
        Self { gateways: [gateway(), gateway()], bridge, redis }
    }

    fn connect(&self, gateway: usize, connect: &Connect) -> (Client, bool) {
        let (client, answer) = Client::connect(self.gateways[gateway].address("mqtt"), connect);
        (client, answer.session_present())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let headers = [("content-type", "application/json")];
        let answer = request(self.bridge.address("push"), method, path, &headers, body.as_bytes());
        let answer = answer.expect("an answer");
        (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
    }

    fn push(&self, device: &str, payload: &str) -> Value {
        self.ask("POST", "/v1/push", &json!({"device": device, "payload": payload}).to_string()).1
    }

    fn device(&self, client_id: &str) -> Value {
        self.ask("GET", &format!("/v1/devices/{client_id}"), "").1
    }

    fn reaped(&self) -> u64 {
        self.bridge.metrics().sum("holdfast_bridge_reaped_sessions_total", &[])
    }
}

fn persistent(client_id: &str) -> Connect {
    Connect::new(Version::V5, client_id).persistent()
}

/// Will delay interval, a property of wills.
fn delay(seconds: u32) -> Vec<u8> {
    [&[0x18_u8][..], &seconds.to_be_bytes()].concat()
}

fn heard(client: &mut Client) -> String {
    let heard = client.receive_publish();
    client.send(&acknowledge(kind::PUBACK, heard.id));
    String::from_utf8(heard.payload).expect("text")
}

#[test]
fn a_killed_gateway_leaves_wills_that_are_published_and_sessions_that_resume_elsewhere() {
    let mut fleet = Fleet::start();
    let (mut listener, _) = fleet.connect(1, &persistent("listener"));
    assert_eq!(listener.subscribe("gone/#", 1), 1);
    let (mut returns, _) = fleet.connect(0, &persistent("returns").will("gone/returns", b"returns", &[]));
    assert_eq!(returns.subscribe("devices/returns/push", 1), 1);
    let (mut away, _) = fleet.connect(0, &persistent("away").will("gone/away", b"away", &[]));
    assert_eq!(away.subscribe("devices/away/push", 1), 1);
    let clean = Connect::new(Version::V5, "clean").will("gone/clean", b"clean", &[]);
    let (_clean, _) = fleet.connect(0, &clean);
    let (_silent, _) = fleet.connect(0, &persistent("silent"));
    assert_eq!(fleet.device("away")["connected"], true);

    let killed_at = Instant::now();
    fleet.gateways[0].kill();
    // One does not wait until anybody notices, and is where its pushes find it.
    let (mut returns, session_present) = fleet.connect(1, &persistent("returns"));
    assert!(session_present);
    thread::scope(|scope| {
        let pushing = scope.spawn(|| fleet.push("returns", "here"));
        assert_eq!(heard(&mut returns), "here");
        assert_eq!(pushing.join().expect("an answer")["outcome"], "delivered");
    });

    assert_eq!(heard(&mut listener), "returns", "at once: who takes the session over sees to its will");
    let mut wills = [heard(&mut listener), heard(&mut listener)];
    wills.sort();
    assert_eq!(wills, ["away", "clean"]);
    assert!(killed_at.elapsed() >= AT_LEAST, "nobody is buried in haste");
    until_true("all to be reaped", PATIENCE, || fleet.reaped() == 3);
    assert_eq!(fleet.device("away")["connected"], false);
    assert_eq!(fleet.ask("GET", "/v1/devices/clean", "").0, 404);

    assert_eq!(fleet.push("away", "queued")["outcome"], "queued");
    let (mut away, session_present) = fleet.connect(1, &persistent("away"));
    assert!(session_present);
    assert_eq!(heard(&mut away), "queued");
    let mut stored: Vec<_> =
        log::read(&fleet.bridge.data_dir().join("log")).into_iter().map(|frame| frame.topic).collect();
    stored.sort();
    assert_eq!(
        stored,
        ["gone/away", "gone/clean", "gone/returns"],
        "a will is a frame like any other, and there once"
    );
}

#[test]
fn a_gateway_that_was_stopped_for_longer_than_its_lease_finds_itself_buried_and_acknowledges_nothing() {
    let mut fleet = Fleet::start();
    let (mut device, _) = fleet.connect(0, &persistent("device"));
    let (mut clean, _) = fleet.connect(0, &Connect::new(Version::V5, "clean"));
    fleet.gateways[0].pause();
    // What a device says to a gateway that does not run waits in the kernel.
    clean.send(&publish(Version::V5, 1, "numbers", 1, b"unheard"));
    device.send(&publish(Version::V5, 1, "numbers", 1, b"unheard"));
    until_true("its sessions to be reaped", NOTICED + PATIENCE, || fleet.reaped() == 2);
    let (mut back, session_present) = fleet.connect(1, &persistent("device"));
    assert!(session_present);
    fleet.gateways[0].resume();

    for client in [device, clean] {
        let mut client = client;
        let last_words = client.receive_to_end();
        assert!(last_words.iter().all(|packet| packet.kind() != kind::PUBACK), "{last_words:?}");
    }
    let status = fleet.gateways[0].await_exit(PATIENCE);
    assert!(!status.success(), "its supervisor starts it anew");
    let said = fleet.gateways[0].stderr();
    assert!(said.contains("lease"), "{said}");
    back.send(&publish(Version::V5, 1, "numbers", 1, b"heard"));
    back.receive_kind(kind::PUBACK);
    assert_eq!(fleet.gateways[1].readiness(), Some(200), "and the other one notices nothing");
}

#[test]
fn live_sessions_are_written_back_after_redis_lost_its_data() {
    let mut fleet = Fleet::start();
    let (mut device, _) = fleet.connect(0, &persistent("device"));
    assert_eq!(device.subscribe("devices/device/push", 1), 1);
    assert_eq!(device.subscribe("news/#", 1), 1);
    fleet.redis.kill();
    fleet.redis.forget();
    fleet.redis.restart();
    until_true("the session to be written back", PATIENCE, || fleet.device("device")["connected"] == true);
    device.ping();

    // Connected: a push is delivered. Away: it is kept, in the session that was never closed.
    thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            until("a push to be delivered", PATIENCE, || {
                let answer = fleet.push("device", "live");
                (answer["outcome"] == "delivered").then_some(())
            });
        });
        assert_eq!(heard(&mut device), "live");
        pushing.join().expect("an answer");
    });
    device.leave();
    until_true("it to be away", PATIENCE, || fleet.device("device")["connected"] == false);
    assert_eq!(fleet.push("device", "kept")["outcome"], "queued");
    let (mut publisher, _) = fleet.connect(1, &Connect::new(Version::V5, "publisher"));
    publisher.send(&publish(Version::V5, 1, "news/today", 1, b"news"));
    publisher.receive_kind(kind::PUBACK);
    let (mut device, session_present) = fleet.connect(1, &persistent("device"));
    assert!(session_present);
    let mut kept = [heard(&mut device), heard(&mut device)];
    kept.sort();
    assert_eq!(kept, ["kept", "news"]);
}

/// Frames that are published at a few hundred a second, and the one before which Redis loses its data.
const FRAMES: u16 = 1_800;
const LOST_BEFORE: u16 = 300;

/// Two persistent subscribers stay connected while Redis loses its data under load. `filter` is what each subscribes to, and `topic` where a frame goes. Each
/// takes `rest` before it acknowledges what was published behind the loss; gives what it has heard of that.
fn lose_under_load(
    fleet: &Fleet,
    filter: impl Fn(usize) -> String,
    topic: impl Fn(u16) -> String,
    rest: Duration,
) -> [Vec<u16>; 2] {
    let subscribers = [0, 1].map(|number| {
        let connect = persistent(&format!("subscriber-{number}")).property(&receive_maximum(4));
        let (mut client, _) = fleet.connect(number, &connect);
        assert_eq!(client.subscribe(&filter(number), 1), 1);
        client
    });
    thread::scope(|scope| {
        let hearing = subscribers.map(|mut client| {
            scope.spawn(move || {
                let mut numbers = Vec::new();
                // Whichever of the last two is this one's.
                while numbers.last().is_none_or(|last| *last < FRAMES - 1) {
                    let heard = client.receive_publish();
                    let number = String::from_utf8(heard.payload).expect("text").parse().expect("a number");
                    numbers.push(number);
                    if number >= LOST_BEFORE && !rest.is_zero() {
                        pause(rest);
                    }
                    client.send(&acknowledge(kind::PUBACK, heard.id));
                }
                numbers.retain(|number| *number >= LOST_BEFORE);
                numbers
            })
        });
        let (mut publisher, _) = fleet.connect(1, &Connect::new(Version::V5, "publisher"));
        let mut acknowledged = 0;
        for number in 1..=FRAMES {
            if number == LOST_BEFORE {
                fleet.redis.ask("FLUSHALL");
            }
            let payload = number.to_string();
            publisher.send(&publish(Version::V5, 1, &topic(number), number, payload.as_bytes()));
            pause(Duration::from_millis(2));
            while number - acknowledged >= 16 || (number == FRAMES && acknowledged < FRAMES) {
                assert_eq!(publisher.receive_kind(kind::PUBACK).reason(), 0);
                acknowledged += 1;
            }
        }
        hearing.map(|hearing| hearing.join().expect("it hears the last one"))
    })
}

#[test]
fn what_is_acknowledged_after_redis_lost_its_data_reaches_everyone_who_stays_connected() {
    let fleet = Fleet::start();
    let heard = lose_under_load(&fleet, |_| "news/#".to_owned(), |_| "news/today".to_owned(), Duration::ZERO);
    // Each stops at the last but one.
    let expected: Vec<_> = (LOST_BEFORE..FRAMES).collect();
    for heard in heard {
        let missing: Vec<_> = expected.iter().filter(|number| !heard.contains(number)).collect();
        assert!(missing.is_empty(), "{} are missing: {missing:?}", missing.len());
        assert_eq!(heard, expected, "in their order, and none twice");
    }
}

/// Each subscriber hears on a topic of its own.
fn lose_under_load_for_single_devices(fleet: &Fleet, rest: Duration) {
    let heard = lose_under_load(
        fleet,
        |number| format!("devices/subscriber-{number}/push"),
        |number| format!("devices/subscriber-{}/push", number % 2),
        rest,
    );
    for (subscriber, heard) in (0..).zip(heard) {
        let expected: Vec<_> = (LOST_BEFORE..=FRAMES).filter(|number| number % 2 == subscriber).collect();
        assert_eq!(heard, expected);
    }
}

#[test]
fn what_is_published_to_single_devices_after_redis_lost_its_data_reaches_those_who_stay_connected() {
    lose_under_load_for_single_devices(&Fleet::start(), Duration::ZERO);
}

#[test]
fn those_who_read_slowly_have_it_in_order_after_redis_lost_its_data() {
    // They read most of it from the store, and their bridge hears of their filters, and misses them, again and again.
    let fleet = Fleet::start_with(
        |bridge| bridge.set("bridge.durable_filters_every_s", 1),
        |gateway| gateway.set("limits.pending_messages_max", 20),
    );
    lose_under_load_for_single_devices(&fleet, Duration::from_millis(6));
}

#[test]
fn a_redis_without_memory_is_told_of_by_gateways_and_bridges_before_anybody_is_refused() {
    let fleet = Fleet::start();
    let roles = [&fleet.gateways[0], &fleet.bridge];
    for role in roles {
        until_true("everyone to be ready", PATIENCE, || role.readiness() == Some(200));
    }
    fleet.redis.ask("CONFIG SET maxmemory 1");
    for role in roles {
        until_true("everyone to know", PATIENCE, || role.readiness() == Some(503));
        let answer = request(role.address("admin"), "GET", "/readyz", &[], b"").unwrap().json();
        assert_eq!(answer["store"], false, "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains("cannot store"), "{answer}");
    }
    fleet.redis.ask("CONFIG SET maxmemory 0");
    for role in roles {
        until_true("everyone to be ready again", PATIENCE, || role.readiness() == Some(200));
    }
}

#[test]
fn a_fleet_is_listed_page_by_page_and_any_bridge_ends_a_connection() {
    let fleet = Fleet::start();
    let names: Vec<_> = (0..25).map(|number| format!("device-{number:02}")).collect();
    let mut clients: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| fleet.connect(number % 2, &persistent(name)).0)
        .collect();
    let list = |query: &str| {
        let (mut names, mut page) = (Vec::new(), String::new());
        loop {
            let (status, answer) = fleet.ask("GET", &format!("/v1/devices?limit=10{query}{page}"), "");
            assert_eq!(status, 200, "{answer}");
            let devices = answer["devices"].as_array().expect("a list");
            assert!(devices.len() <= 10, "a page has at most what was asked for");
            names.extend(devices.iter().map(|device| device["client_id"].as_str().unwrap().to_owned()));
            match answer["next"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        names.sort();
        names
    };
    assert_eq!(list(""), names);
    let node = fleet.device("device-00")["node"].as_str().expect("it is connected").to_owned();
    let every_other: Vec<_> = names.iter().step_by(2).cloned().collect();
    assert_eq!(list(&format!("&node={node}")), every_other);

    let (status, _) = fleet.ask("DELETE", "/v1/devices/device-01", "");
    assert_eq!(status, 202);
    let goodbye = clients[1].receive_kind(kind::DISCONNECT);
    assert_eq!(goodbye.reason(), 0x98, "administrative action");
    until_true("it to be away", PATIENCE, || fleet.device("device-01")["connected"] == false);
    assert_eq!(list("&connected=false"), ["device-01"]);
    assert_eq!(fleet.ask("DELETE", "/v1/devices/device-01", "").0, 404);
    assert_eq!(fleet.ask("GET", "/v1/devices?limit=0", "").0, 400);
    assert_eq!(fleet.ask("GET", "/v1/devices?page=%21", "").0, 400);
}

#[test]
fn a_will_waits_for_its_delay_when_its_gateway_died() {
    let mut fleet = Fleet::start();
    let (mut listener, _) = fleet.connect(1, &persistent("listener"));
    assert_eq!(listener.subscribe("gone/#", 1), 1);
    let later = persistent("later").will("gone/later", b"later", &delay(3));
    let (_later, _) = fleet.connect(0, &later);
    // A session that ends before the delay takes its will along: it is published then (MQTT-3.1.3-9).
    let short = Connect::new(Version::V5, "short").property(&session_expiry_s(1));
    let (_short, _) = fleet.connect(0, &short.will("gone/short", b"short", &delay(3_600)));
    fleet.gateways[0].kill();
    assert_eq!([heard(&mut listener), heard(&mut listener)], ["short", "later"]);
}

#[test]
fn a_will_whose_delay_runs_outlives_its_gateway() {
    let mut fleet = Fleet::start();
    let (mut listener, _) = fleet.connect(1, &persistent("listener"));
    assert_eq!(listener.subscribe("gone/#", 1), 1);
    let (later, _) = fleet.connect(0, &persistent("later").will("gone/later", b"later", &delay(4)));
    let (back, _) = fleet.connect(0, &persistent("back").will("gone/back", b"back", &delay(6)));
    let (last, _) = fleet.connect(0, &persistent("last").will("gone/last", b"last", &delay(8)));
    let vanished_at = Instant::now();
    later.cut();
    back.cut();
    last.cut();
    for client_id in ["later", "back", "last"] {
        until_true("it to be away", PATIENCE, || fleet.device(client_id)["connected"] == false);
    }
    fleet.gateways[0].kill();
    let (_back, session_present) = fleet.connect(1, &persistent("back"));
    assert!(session_present);
    assert_eq!(heard(&mut listener), "later");
    assert!(vanished_at.elapsed() >= Duration::from_secs(3), "to the second");
    assert_eq!(heard(&mut listener), "last", "and not the one that came back in time");
}

#[test]
fn a_device_that_is_back_at_once_is_not_said_to_be_gone() {
    let mut fleet = Fleet::start();
    let (mut listener, _) = fleet.connect(1, &persistent("listener"));
    assert_eq!(listener.subscribe("presence/#", 1), 1);
    let present = |client_id: &str| {
        let topic = format!("presence/{client_id}");
        persistent(client_id).will(&topic, b"offline", &[]).retained_will()
    };
    let says_online = |client: &mut Client, client_id: &str| {
        let topic = format!("presence/{client_id}");
        client.send(&publish_with(Version::V5, 0b011, &topic, 1, &[], b"online"));
        client.receive_kind(kind::PUBACK);
    };
    let devices = ["cut", "moves", "mourned"];
    let mut first: Vec<_> = devices.iter().map(|client_id| fleet.connect(0, &present(client_id)).0).collect();
    for (client, client_id) in first.iter_mut().zip(devices) {
        says_online(client, client_id);
        assert_eq!(heard(&mut listener), "online");
    }
    let (_left, _) = fleet.connect(0, &persistent("left"));
    // One loses its connection, one comes anew while the other connection stands, and one finds its gateway dead.
    first.remove(0).cut();
    for client_id in devices {
        if client_id == "mourned" {
            fleet.gateways[0].kill();
        }
        let (mut client, session_present) = fleet.connect(1, &present(client_id));
        assert!(session_present);
        says_online(&mut client, client_id);
        assert_eq!([heard(&mut listener), heard(&mut listener)], ["offline", "online"], "{client_id}");
        first.push(client);
    }
    // Nor is it said later, when the dead gateway has been found out.
    until_true("the dead gateway to be found out", NOTICED + PATIENCE, || fleet.reaped() == 1);
    let (mut late, _) = fleet.connect(1, &Connect::new(Version::V5, "late"));
    late.subscribe("presence/#", 1);
    assert_eq!([heard(&mut late), heard(&mut late), heard(&mut late)], ["online"; 3]);
    let (mut marker, _) = fleet.connect(1, &Connect::new(Version::V5, "marker"));
    says_online(&mut marker, "marker");
    let mark = listener.receive_publish();
    assert_eq!(mark.topic, "presence/marker");
}
