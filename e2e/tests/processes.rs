//! Gateways and bridges as processes of their own, with a real Redis between them: what a frame, a device and a stranger meet there.
//!
//! Nobody here harms Redis, so `REDIS_URL` may name one. Frames rest in the bridges' logs, which tell more cheaply than Kafka what a bridge had when it died; `kafka.rs` and `chaos` have Kafka.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Proxy, Redis, Role, RoleSetup, Weather, Witness, log, request, run, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

/// From the last word of a link's other end to the end of the link.
const SILENCE: Duration = Duration::from_secs(15);

fn bridge(redis: &Redis) -> RoleSetup {
    RoleSetup::bridge().argument("--sink", "log").argument("--store", redis.url())
}

fn gateway(redis: &Redis, links: &[SocketAddr]) -> RoleSetup {
    let setup = RoleSetup::gateway().argument("--store", redis.url()).argument("--shards", 2);
    links.iter().fold(setup, |setup, link| setup.argument("--bridge", link))
}

/// Payloads in a bridge's log, in their order, with whether they were sent before.
fn frames(bridge: &Role) -> Vec<(String, Vec<u8>, bool)> {
    let frames = log::read(&bridge.data_dir().join("log"));
    frames.into_iter().map(|frame| (frame.client_id.clone(), frame.payload(), frame.dup)).collect()
}

/// Publishes numbers with QoS 1, and takes acknowledgements as they come.
struct Publisher {
    client_id: String,
    client: Client,
    sent: u16,
    acknowledged: u16,
}

impl Publisher {
    fn connect(gateway: &Role) -> Self {
        let client_id = unique("device");
        let client = Client::open(gateway.address("mqtt"), Version::V5, &client_id);
        Self { client_id, client, sent: 0, acknowledged: 0 }
    }

    fn publish(&mut self) {
        self.sent += 1;
        let payload = self.sent.to_string();
        self.client.send(&publish(Version::V5, 1, "numbers", self.sent, payload.as_bytes()));
    }

    /// Acknowledgements come in the order of the publications, each once [MQTT-4.6.0-2].
    fn await_acknowledgement(&mut self) {
        let packet = self.client.receive_kind(kind::PUBACK);
        self.acknowledged += 1;
        assert_eq!(packet.id(), self.acknowledged);
    }

    fn await_all(&mut self) {
        while self.acknowledged < self.sent {
            self.await_acknowledgement();
        }
    }
}

fn push(bridge: &Role, body: &Value) -> Value {
    let body = body.to_string();
    let headers = [("content-type", "application/json")];
    request(bridge.address("push"), "POST", "/v1/push", &headers, body.as_bytes()).expect("an answer").json()
}

#[test]
fn a_frame_is_in_the_log_of_the_bridge_when_it_is_acknowledged() {
    let redis = Redis::any();
    let bridge = bridge(&redis).start();
    let gateway = gateway(&redis, &[bridge.address("link")]).start();
    let mut publisher = Publisher::connect(&gateway);
    publisher.publish();
    publisher.await_all();
    assert_eq!(frames(&bridge), [(publisher.client_id, b"1".to_vec(), false)]);
    until_true("both to be ready", PATIENCE, || {
        (gateway.readiness(), bridge.readiness()) == (Some(200), Some(200))
    });
}

#[test]
fn a_bridge_that_is_killed_costs_no_acknowledged_frame_and_no_connection() {
    let redis = Redis::any();
    let mut bridge = bridge(&redis).start();
    let gateway = gateway(&redis, &[bridge.address("link")]).start();
    let mut publisher = Publisher::connect(&gateway);
    for round in 1..=3 {
        for _ in 0..10 {
            publisher.publish();
        }
        while publisher.acknowledged < publisher.sent - 5 {
            publisher.await_acknowledgement();
        }
        bridge.kill();
        let before = publisher.acknowledged;
        until_true("the gateway to notice", PATIENCE, || gateway.readiness() == Some(503));
        bridge.restart();
        publisher.await_all();
        assert_eq!(publisher.sent, 10 * round);
        assert!(publisher.acknowledged >= before);
    }
    publisher.client.ping();
    let mut distinct: Vec<u16> = Vec::new();
    for (_, payload, _) in frames(&bridge) {
        let number = String::from_utf8(payload).unwrap().parse().unwrap();
        // One that was on its way when the bridge died may stand there twice, the second one behind the first.
        if !distinct.contains(&number) {
            distinct.push(number);
        }
    }
    assert_eq!(distinct, (1..=30).collect::<Vec<u16>>(), "all of them, in their order");
}

#[test]
fn a_gateway_that_finds_no_bridge_admits_nobody_and_says_so_until_one_is_there() {
    let redis = Redis::any();
    let mut bridge = bridge(&redis).start();
    let mut gateway = gateway(&redis, &[bridge.address("link")]).start();
    // Once more without a bridge, on the addresses that are known now.
    gateway.terminate();
    assert!(gateway.await_exit(PATIENCE).success());
    bridge.kill();
    let (mqtt, admin) = (gateway.address("mqtt"), gateway.address("admin"));
    let says_so = || {
        request(admin, "GET", "/readyz", &[], b"").is_ok_and(|answer| {
            answer.status == 503 && answer.json()["reason"].as_str().is_some_and(|why| why.contains("bridge"))
        })
    };
    let (over, until_over) = mpsc::sync_channel::<()>(0);
    thread::scope(|scope| {
        let bridge = &mut bridge;
        scope.spawn(move || {
            until_true("the gateway to say that it has no link", PATIENCE, says_so);
            assert!(TcpStream::connect(mqtt).is_err(), "nobody is admitted");
            bridge.restart();
            // A child ends with the thread that started it.
            let _ = until_over.recv();
        });
        gateway.restart();
        let mut publisher = Publisher::connect(&gateway);
        publisher.publish();
        publisher.await_all();
        drop(over);
    });
}

#[test]
fn a_gateway_that_loses_its_only_bridge_keeps_its_devices_and_reads_them_again_later() {
    let redis = Redis::any();
    let mut bridge = bridge(&redis).start();
    let gateway = gateway(&redis, &[bridge.address("link")]).start();
    let mut publisher = Publisher::connect(&gateway);
    bridge.kill();
    until_true("the gateway to notice", PATIENCE, || gateway.readiness() == Some(503));
    until_true("the metric", PATIENCE, || gateway.metrics().sum("holdfast_links_up", &[]) == 0);
    publisher.publish();
    assert!(publisher.client.poll(Duration::from_millis(300)).is_err(), "nobody has the frame yet");
    bridge.restart();
    publisher.await_all();
    until_true("the gateway to be ready again", PATIENCE, || gateway.readiness() == Some(200));
}

#[test]
fn a_device_that_comes_back_on_the_other_gateway_resumes_there_and_a_push_finds_it() {
    let redis = Redis::any();
    let bridges = [bridge(&redis).start(), bridge(&redis).start()];
    let links = bridges.each_ref().map(|bridge| bridge.address("link"));
    let gateways = [gateway(&redis, &links).start(), gateway(&redis, &links).start()];
    let id = unique("device");
    let connect = Connect::new(Version::V5, &id).persistent();
    let (mut device, answer) = Client::connect(gateways[0].address("mqtt"), &connect);
    assert!(!answer.session_present());
    assert_eq!(device.subscribe(&format!("devices/{id}/push"), 1), 1);
    device.leave();

    // Away: it is kept, whichever bridge is asked.
    for bridge in &bridges {
        let answer = push(bridge, &json!({"device": id, "payload": "while away"}));
        assert_eq!(answer["outcome"], "queued", "{answer}");
    }
    let (mut device, answer) = Client::connect(gateways[1].address("mqtt"), &connect);
    assert!(answer.session_present());
    for _ in &bridges {
        let heard = device.receive_publish();
        assert_eq!(heard.payload, b"while away");
        device.send(&acknowledge(kind::PUBACK, heard.id));
    }

    // There: it is delivered, whichever bridge is asked.
    for bridge in &bridges {
        let answer = thread::scope(|scope| {
            let pushing = scope.spawn(|| push(bridge, &json!({"device": id, "payload": "live"})));
            let heard = device.receive_publish();
            device.send(&acknowledge(kind::PUBACK, heard.id));
            pushing.join().expect("an answer")
        });
        assert_eq!(answer["outcome"], "delivered", "{answer}");
    }

    // What one gateway's device publishes, the other's hears.
    let news = unique("news");
    assert_eq!(device.subscribe(&format!("{news}/#"), 1), 1);
    let mut publisher = Client::open(gateways[0].address("mqtt"), Version::V5, &unique("publisher"));
    publisher.send(&publish(Version::V5, 1, &format!("{news}/today"), 1, b"all's well"));
    assert_eq!(device.receive_publish().payload, b"all's well");
}

#[test]
fn a_bridge_that_leaves_hands_its_devices_over_in_order() {
    let redis = Redis::any();
    let mut bridges = [bridge(&redis).start(), bridge(&redis).start()];
    let links = bridges.each_ref().map(|bridge| bridge.address("link"));
    let gateway = gateway(&redis, &links).start();
    until_true("links to both", PATIENCE, || gateway.metrics().sum("holdfast_links_up", &[]) == 4);
    let mut publishers: Vec<_> = (0..8).map(|_| Publisher::connect(&gateway)).collect();
    let some = |publishers: &mut Vec<Publisher>| {
        for publisher in publishers.iter_mut() {
            (0..10).for_each(|_| publisher.publish());
        }
    };
    some(&mut publishers);
    bridges[0].terminate();
    some(&mut publishers);
    assert!(bridges[0].await_exit(PATIENCE).success());
    some(&mut publishers);
    publishers.iter_mut().for_each(Publisher::await_all);

    let mut by_device: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for bridge in &bridges {
        for (client, payload, _) in frames(bridge) {
            let numbers = by_device.entry(client).or_default();
            let number = String::from_utf8(payload).unwrap().parse().unwrap();
            // What the one that left had and could not say any more comes to the other one as well.
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
    }
    assert_eq!(by_device.len(), 8);
    for (device, numbers) in by_device {
        assert_eq!(numbers, (1..=30).collect::<Vec<u16>>(), "{device}");
    }
}

#[test]
fn a_bridge_that_joins_is_found_by_the_name_it_shares() {
    let redis = Redis::any();
    let bridge = bridge(&redis).start();
    let port = bridge.address("link").port();
    let gateway = gateway(&redis, &[])
        .argument("--bridge", format!("localhost:{port}"))
        .set("link.resolve_every_s", 1)
        .start();
    let mut publisher = Publisher::connect(&gateway);
    publisher.publish();
    publisher.await_all();
    assert_eq!(frames(&bridge).len(), 1);
}

#[test]
fn a_link_that_swallows_everything_is_given_up_and_what_it_swallowed_sent_again() {
    let redis = Redis::any();
    let bridge = bridge(&redis).start();
    let proxy = Proxy::to(bridge.address("link"));
    let gateway = gateway(&redis, &[proxy.address()]).start();
    let mut publisher = Publisher::connect(&gateway);
    proxy.set(Weather::BlackHole);
    publisher.publish();
    let begun = Instant::now();
    until_true("the link to be given up", 2 * SILENCE, || gateway.readiness() == Some(503));
    assert!(begun.elapsed() < SILENCE + Duration::from_secs(5), "after {:?}", begun.elapsed());
    proxy.set(Weather::Fair);
    publisher.await_all();
    assert_eq!(frames(&bridge).len(), 1, "it was sent again and is there once");
}

#[test]
fn a_wrong_secret_is_one_clear_line_at_both_ends_and_patience() {
    const WHY: &str = "link secret differs: set the same link.secret";
    let redis = Redis::any();
    let mut bridge = bridge(&redis).environment("HOLDFAST_LINK_SECRET", "right").start();
    let folder = TempDir::new().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "right\n").unwrap();
    let mut gateway = gateway(&redis, &[bridge.address("link")])
        .argument("--set", format!("link.secret_file={}", secret.display()))
        .start();
    until_true("the gateway to be ready", PATIENCE, || gateway.readiness() == Some(200));
    gateway.terminate();
    gateway.await_exit(PATIENCE);

    fs::write(&secret, "wrong\n").unwrap();
    let lines = |text: String| text.lines().filter(|line| line.contains(WHY)).count();
    let stop = gateway.address("admin");
    let said = gateway.folder().join("stderr");
    thread::scope(|scope| {
        // It is never ready; the test ends it once it has tried often enough.
        let ending = scope.spawn(|| gateway.try_restart());
        until_true("several attempts", PATIENCE, || {
            bridge.metrics().sum("holdfast_bridge_links_closed_total", &[("reason", "refused")]) >= 6
        });
        assert_eq!(lines(bridge.stderr()), 1, "the bridge says it once a minute");
        let told = || lines(fs::read_to_string(&said).unwrap());
        until_true("each of its two shards to say it", PATIENCE, || told() >= 2);
        assert_eq!(told(), 2, "once");
        request(stop, "POST", "/drain", &[], b"").expect("an answer");
        assert!(ending.join().expect("it ends").is_err_and(|failure| failure.status.success()));
    });
    assert!(bridge.ended().is_none());
}

#[test]
fn strangers_at_the_link_are_cut_and_nobody_else_notices() {
    let redis = Redis::any();
    let bridge = bridge(&redis).start();
    let gateway = gateway(&redis, &[bridge.address("link")]).start();
    let witness = Witness::start(gateway.address("mqtt"));
    let link = bridge.address("link");
    let dial = || {
        let socket = TcpStream::connect(link).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let answer = |mut socket: TcpStream| {
        let mut answer = Vec::new();
        // A reset is an end as well; that it is still open after so long is none.
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "a stranger is cut, be it a silent one");
        }
        answer
    };
    let silent: Vec<_> = (0..20).map(|_| dial()).collect();
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: bridge\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        // An interest before any greeting.
        &[2, 0, 0, 0, 3, 0],
    ] {
        for _ in 0..20 {
            let mut socket = dial();
            socket.write_all(garbage).unwrap();
            assert_eq!(answer(socket), b"", "{garbage:?}");
        }
    }
    // A greeting of version 1: length, kind, version, node, shard, no secret.
    let mut old = vec![17, 0, 0, 0, 1, 1, 0];
    old.extend_from_slice(&[7; 8]);
    old.extend_from_slice(&[0, 0]);
    old.extend_from_slice(&[0; 4]);
    let mut socket = dial();
    socket.write_all(&old).unwrap();
    let refusal = answer(socket);
    assert!(String::from_utf8_lossy(&refusal).contains("run the same release of both"), "{refusal:?}");
    for socket in silent {
        assert_eq!(answer(socket), b"");
    }
    witness.finish();
    let lines = || bridge.stderr().lines().filter(|line| line.contains("a link was not opened")).count();
    until_true("a line of each kind", PATIENCE, || lines() >= 3);
    assert!(lines() <= 4, "one line of each kind, not one of each stranger: {}", lines());
}

#[test]
fn a_start_that_cannot_be_is_refused_in_one_line_that_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let nowhere = "redis://127.0.0.1:1";
    let bridge = ["bridge", "--link", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", data];
    let gateway = ["gateway", "--mqtt", "127.0.0.1:0", "--ws", "off", "--admin", "127.0.0.1:0"];
    let log = ["--sink", "log"];
    let to = ["--bridge", "127.0.0.1:1"];
    for (arguments, words) in [
        ([&bridge[..], &log, &["--store", "memory:"]].concat(), &["store.url", "redis://"][..]),
        ([&bridge[..], &log, &["--store", "embedded:here"]].concat(), &["store.url", "redis://"]),
        ([&bridge[..], &log].concat(), &["store.url", "--store"]),
        ([&bridge[..], &["--store", nowhere]].concat(), &["sink.kind", "--sink log"]),
        ([&bridge[..], &log, &["--store", nowhere]].concat(), &["store.url", "127.0.0.1:1"]),
        ([&bridge[..], &log, &["--store", nowhere, "--link", "0.0.0.0:0"]].concat(), &["--link"]),
        ([&gateway[..], &["--store", nowhere]].concat(), &["link.bridges", "--bridge"]),
        ([&gateway[..], &to, &["--store", "memory:"]].concat(), &["store.url", "redis://"]),
        ([&gateway[..], &to, &["--store", nowhere]].concat(), &["store.url", "127.0.0.1:1"]),
        (
            [&gateway[..], &["--bridge", "bridges.example:7883", "--store", nowhere]].concat(),
            &["link.bridges", "bridges.example:7883", "HOLDFAST_LINK_SECRET"],
        ),
        (
            [&gateway[..], &["--bridge", "no-port", "--store", nowhere]].concat(),
            &["link.bridges", "no-port", "HOST:PORT"],
        ),
    ] {
        let end = run(&arguments, PATIENCE);
        assert_eq!(end.status.code(), Some(2), "{arguments:?}: {}", end.stderr);
        assert_eq!(end.stderr.trim_end().lines().count(), 1, "{arguments:?}: {}", end.stderr);
        for word in words {
            assert!(end.stderr.contains(word), "{word:?} is not in: {}", end.stderr);
        }
    }
}

#[test]
fn a_bridge_beyond_this_machine_needs_a_secret() {
    let end = run(
        &[
            "bridge",
            "--link",
            "0.0.0.0:0",
            "--admin",
            "127.0.0.1:0",
            "--sink",
            "log",
            "--store",
            "redis://127.0.0.1:1",
        ],
        PATIENCE,
    );
    assert_eq!(end.status.code(), Some(2));
    assert!(
        end.stderr.contains("bridge.listen = 0.0.0.0:0") && end.stderr.contains("link.secret_file"),
        "{}",
        end.stderr
    );
}

#[test]
fn sighup_gives_a_running_gateway_other_limits() {
    let redis = Redis::any();
    let bridge = bridge(&redis).start();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("holdfast.toml");
    fs::write(&file, "[mqtt]\nreceive_maximum = 7\n").unwrap();
    let gateway = gateway(&redis, &[bridge.address("link")]).argument("--config", file.display()).start();
    let receive_maximum = || {
        let (_client, answer) =
            Client::connect(gateway.address("mqtt"), &Connect::new(Version::V5, &unique("device")));
        let properties = answer.connack_properties();
        properties.into_iter().find(|(id, _)| *id == 0x21).map(|(_, value)| value)
    };
    let mut stays = Client::open(gateway.address("mqtt"), Version::V5, &unique("stays"));
    assert_eq!(receive_maximum(), Some(vec![0, 7]));
    fs::write(&file, "[mqtt]\nreceive_maximum = 0\n").unwrap();
    gateway.reload();
    until_true("the mistake to be told", PATIENCE, || gateway.stderr().contains("nothing changed"));
    assert_eq!(receive_maximum(), Some(vec![0, 7]));
    fs::write(&file, "[mqtt]\nreceive_maximum = 9\n").unwrap();
    gateway.reload();
    until_true("the new limit", PATIENCE, || receive_maximum() == Some(vec![0, 9]));
    stays.ping();
}
