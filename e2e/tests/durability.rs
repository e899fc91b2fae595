//! `kill -9` at any moment: what was acknowledged is in the log, and sessions carry on where they were.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_e2e::packet::{self, Connect, Version, acknowledge, kind, publish, publish_with};
use holdfast_e2e::wait::{PATIENCE, pause, until, until_true};
use holdfast_e2e::{Client, Gateway, Setup};

const DEVICES: u16 = 16;
const KILLS: u32 = 20;
/// Frames that a device has in flight.
const WINDOW: usize = 16;

#[test]
fn no_acknowledged_frame_is_lost_however_often_the_gateway_is_killed() {
    let mut gateway = Gateway::start();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| Sender::spawn(number, gateway.mqtt(), Arc::clone(&stop), Arc::clone(&acknowledged)))
        .collect();
    // The moments differ from run to run; what must hold does not.
    let mut random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() | 1;
    for _ in 0..KILLS {
        // Some work must be done between two kills, else nothing is tested.
        let so_far = acknowledged.load(Ordering::Relaxed);
        until_true("acknowledgements after a start", PATIENCE, || {
            acknowledged.load(Ordering::Relaxed) > so_far + 200
        });
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        pause(Duration::from_micros(u64::from(random % 100_000)));
        gateway.kill();
        gateway.restart();
    }
    stop.store(true, Ordering::Relaxed);
    let ledgers: Vec<_> = devices.into_iter().map(|device| device.join().expect("a device")).collect();
    // Not even an orderly end helps.
    gateway.kill();

    let found = frames_by_device(&gateway);
    for ledger in ledgers {
        let found = found.get(&ledger.client_id).map(Vec::as_slice).unwrap_or_default();
        let there: BTreeSet<u64> = found.iter().copied().collect();
        let lost: Vec<_> = ledger.acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{} lost {} acknowledged frames: {lost:?}", ledger.client_id, lost.len());
        assert!(
            there.iter().all(|&sequence| sequence < ledger.sent),
            "{}: unexplained frames",
            ledger.client_id
        );
        assert_in_order(&ledger.client_id, found);
    }
}

/// P3: a frame that was sent again may be there twice, but no frame comes first behind a later one.
fn assert_in_order(client_id: &str, found: &[u64]) {
    let mut seen = BTreeSet::new();
    let firsts: Vec<_> = found.iter().filter(|&&sequence| seen.insert(sequence)).collect();
    assert!(firsts.is_sorted(), "{client_id}: out of order");
}

fn frames_by_device(gateway: &Gateway) -> HashMap<String, Vec<u64>> {
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for frame in gateway.frames() {
        let sequence = String::from_utf8(frame.payload()).unwrap().parse().expect("a sequence number");
        found.entry(frame.client_id).or_default().push(sequence);
    }
    found
}

/// What a device knows in the end.
struct Ledger {
    client_id: String,
    /// Sequence numbers below this were sent.
    sent: u64,
    acknowledged: BTreeSet<u64>,
}

/// A device with a persistent session that publishes as fast as it is acknowledged, and comes back after each cut.
struct Sender {
    ledger: Ledger,
    qos: u8,
    version: Version,
    /// In the order of sending: packet id, sequence, and whether PUBREC has come.
    in_flight: VecDeque<(u16, u64, bool)>,
    total: Arc<AtomicU64>,
}

impl Sender {
    fn spawn(
        number: u16,
        mqtt: SocketAddr,
        stop: Arc<AtomicBool>,
        total: Arc<AtomicU64>,
    ) -> JoinHandle<Ledger> {
        let ledger = Ledger { client_id: format!("device-{number}"), sent: 0, acknowledged: BTreeSet::new() };
        let version = if number.is_multiple_of(2) { Version::V311 } else { Version::V5 };
        let qos = if number % 4 < 3 { 1 } else { 2 };
        let mut device = Self { ledger, qos, version, in_flight: VecDeque::new(), total };
        thread::spawn(move || {
            while !(stop.load(Ordering::Relaxed) && device.in_flight.is_empty()) {
                // The end of a connection is the point of the test: on with the next.
                if let Some(client) = device.connect(mqtt) {
                    device.converse(client, &stop);
                }
            }
            device.ledger
        })
    }

    fn connect(&self, mqtt: SocketAddr) -> Option<Client> {
        let connect = Connect::new(self.version, &self.ledger.client_id).persistent();
        let Ok((client, answer)) = Client::try_connect(mqtt, &connect) else {
            pause(Duration::from_millis(10));
            return None;
        };
        // "Server unavailable" is an honest answer while the node starts.
        (answer.connect_code() == 0).then_some(client)
    }

    fn converse(&mut self, mut client: Client, stop: &AtomicBool) {
        // Everything unacknowledged goes out again, in its order [MQTT-4.4.0-1], [MQTT-4.6.0-1].
        let again: Vec<_> = self
            .in_flight
            .iter()
            .map(
                |&(id, sequence, received)| {
                    if received { acknowledge(kind::PUBREL, id) } else { self.publish(id, sequence, true) }
                },
            )
            .collect();
        if client.try_send(&again.concat()).is_err() {
            return;
        }
        loop {
            while self.in_flight.len() < WINDOW && !stop.load(Ordering::Relaxed) {
                let sequence = self.ledger.sent;
                self.ledger.sent += 1;
                let id = self.free_id();
                self.in_flight.push_back((id, sequence, false));
                if client.try_send(&self.publish(id, sequence, false)).is_err() {
                    return;
                }
            }
            if self.in_flight.is_empty() {
                return;
            }
            let Ok(answer) = client.poll(PATIENCE) else { return };
            let Some(place) = self.in_flight.iter().position(|(id, ..)| *id == answer.id()) else {
                panic!("{}: an acknowledgement for nothing: {answer:?}", self.ledger.client_id)
            };
            match answer.kind() {
                kind::PUBREC => {
                    // The promise is made here (P1): the rest only frees the packet id.
                    self.ledger.acknowledged.insert(self.in_flight[place].1);
                    self.in_flight[place].2 = true;
                    if client.try_send(&acknowledge(kind::PUBREL, answer.id())).is_err() {
                        return;
                    }
                }
                kind::PUBACK | kind::PUBCOMP => {
                    // A PUBCOMP may say that the id is not known any more; the frame is safe since the PUBREC.
                    assert!(answer.kind() == kind::PUBCOMP || answer.reason() < 0x80, "refused: {answer:?}");
                    self.ledger.acknowledged.insert(self.in_flight[place].1);
                    self.in_flight.remove(place);
                    self.total.fetch_add(1, Ordering::Relaxed);
                }
                _ => panic!("{answer:?}"),
            }
        }
    }

    fn free_id(&self) -> u16 {
        let last = self.in_flight.back().map_or(0, |(id, ..)| *id);
        let mut id = last % 60_000 + 1;
        while self.in_flight.iter().any(|(used, ..)| *used == id) {
            id = id % 60_000 + 1;
        }
        id
    }

    fn publish(&self, id: u16, sequence: u64, dup: bool) -> Vec<u8> {
        let flags = self.qos << 1 | u8::from(dup) << 3;
        let topic = format!("frames/{}", self.ledger.client_id);
        publish_with(self.version, flags, &topic, id, &[], sequence.to_string().as_bytes())
    }
}

#[test]
fn a_persistent_session_finds_its_subscriptions_and_messages_after_a_kill() {
    for version in [Version::V311, Version::V5] {
        let mut gateway = Setup::new().set("mqtt.receive_maximum", 100).start();
        let receiver = Connect::new(version, "receiver").persistent();
        let (mut client, answer) = Client::connect(gateway.mqtt(), &receiver);
        assert!(!answer.session_present());
        assert_eq!(client.subscribe("away/#", 1), 1);
        client.leave();
        let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
        for id in 1..=100 {
            sender.send(&publish(Version::V5, 1, "away/x", id, id.to_string().as_bytes()));
        }
        for id in 1..=100 {
            assert_eq!(sender.receive_kind(kind::PUBACK).id(), id);
        }
        gateway.kill();
        gateway.restart();
        let (mut client, answer) = Client::connect(gateway.mqtt(), &receiver);
        assert!(answer.session_present(), "the session died with the process");
        for number in 1..=100 {
            let push = client.receive_publish();
            assert_eq!(String::from_utf8(push.payload).unwrap(), number.to_string());
            client.send(&acknowledge(kind::PUBACK, push.id));
        }
        // The subscription itself is alive as well.
        let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
        sender.send(&publish(Version::V5, 1, "away/live", 1, b"live"));
        assert_eq!(client.receive_publish().payload, b"live");
    }
}

#[test]
fn what_is_published_to_a_resting_device_after_a_kill_waits_for_it() {
    let mut gateway = Gateway::start();
    let resting = Connect::new(Version::V5, "resting").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &resting);
    assert_eq!(client.subscribe("devices/resting/push", 1), 1);
    client.leave();
    gateway.kill();
    gateway.restart();
    // Nobody has announced the device's own filter to the bridge that started anew.
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
    sender.send(&publish(Version::V5, 1, "devices/resting/push", 1, b"for you"));
    sender.receive_kind(kind::PUBACK);
    let (mut client, answer) = Client::connect(gateway.mqtt(), &resting);
    assert!(answer.session_present());
    assert_eq!(client.receive_publish().payload, b"for you");
}

#[test]
fn what_a_connected_client_had_not_acknowledged_comes_again_after_a_kill() {
    let mut gateway = Gateway::start();
    let receiver = Connect::new(Version::V5, "receiver").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &receiver);
    client.subscribe("owed", 1);
    let mut sender = Client::open(gateway.mqtt(), Version::V311, "sender");
    for id in 1..=10 {
        sender.send(&publish(Version::V311, 1, "owed", id, id.to_string().as_bytes()));
        assert_eq!(sender.receive_kind(kind::PUBACK).id(), id);
    }
    for _ in 1..=10 {
        // Heard and not acknowledged.
        client.receive_publish();
    }
    gateway.kill();
    gateway.restart();
    let (mut client, answer) = Client::connect(gateway.mqtt(), &receiver);
    assert!(answer.session_present());
    let again: Vec<_> =
        (1..=10).map(|_| String::from_utf8(client.receive_publish().payload).unwrap()).collect();
    assert_eq!(again, (1..=10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_qos_2_exchange_goes_on_after_a_kill() {
    let mut gateway = Gateway::start();
    let publisher = Connect::new(Version::V5, "publisher").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &publisher);
    client.send(&publish(Version::V5, 2, "once", 7, b"0"));
    assert_eq!(client.receive_kind(kind::PUBREC).id(), 7);
    gateway.kill();
    gateway.restart();
    let (mut client, answer) = Client::connect(gateway.mqtt(), &publisher);
    assert!(answer.session_present());
    client.send(&acknowledge(kind::PUBREL, 7));
    assert_eq!(client.receive_kind(kind::PUBCOMP).id(), 7);
}

#[test]
fn a_qos_2_message_sent_again_on_a_new_connection_is_delivered_once() {
    let gateway = Gateway::start();
    let mut watcher = Client::open(gateway.mqtt(), Version::V5, "watcher");
    watcher.subscribe("once/#", 2);
    let publisher = Connect::new(Version::V5, "publisher").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &publisher);
    client.send(&publish(Version::V5, 2, "once/a", 7, b"first"));
    assert_eq!(client.receive_kind(kind::PUBREC).id(), 7);
    client.cut();
    let (mut client, answer) = Client::connect(gateway.mqtt(), &publisher);
    assert!(answer.session_present());
    // The PUBREC may have been lost, so it is sent again [MQTT-4.3.3-5], [MQTT-4.4.0-1].
    client.send(&publish_with(Version::V5, 0b1100, "once/a", 7, &[], b"first"));
    assert_eq!(client.receive_kind(kind::PUBREC).id(), 7);
    client.send(&acknowledge(kind::PUBREL, 7));
    assert_eq!(client.receive_kind(kind::PUBCOMP).id(), 7);
    client.send(&publish(Version::V5, 1, "once/b", 8, b"second"));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 8);
    let heard: Vec<_> = (0..2).map(|_| watcher.receive_publish().payload).collect();
    assert_eq!(heard, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn wills_of_sessions_that_outlive_the_process_are_published_after_a_kill() {
    let mut gateway = Gateway::start();
    let persistent = |client_id: &str| Connect::new(Version::V5, client_id).persistent();
    let (mut listener, _) = Client::connect(gateway.mqtt(), &persistent("listener"));
    assert_eq!(listener.subscribe("gone/#", 1), 1);
    // One that was connected, one whose delay (its property is 0x18) runs, and one that the process takes along.
    let _connected =
        Client::connect(gateway.mqtt(), &persistent("connected").will("gone/connected", b"", &[]));
    let delayed = persistent("delayed").will("gone/delayed", b"", &[0x18, 0, 0, 0, 4]);
    let (delayed, _) = Client::connect(gateway.mqtt(), &delayed);
    let clean = Connect::new(Version::V5, "clean").will("gone/clean", b"", &[]);
    let _clean = Client::connect(gateway.mqtt(), &clean);
    delayed.cut();
    until_true("it to be away", PATIENCE, || {
        gateway.http("GET", "/v1/devices/delayed", &[], b"").json()["connected"] == false
    });
    gateway.kill();
    gateway.restart();
    let (mut listener, _) = Client::connect(gateway.mqtt(), &persistent("listener"));
    let mut heard = [listener.receive_publish().topic, listener.receive_publish().topic];
    heard.sort();
    assert_eq!(heard, ["gone/connected", "gone/delayed"]);
}

#[test]
fn retained_messages_survive_a_kill() {
    let mut gateway = Gateway::start();
    let mut sender = Client::open(gateway.mqtt(), Version::V311, "sender");
    for id in 1..=20 {
        let retained = publish_with(Version::V311, 0b0011, &format!("kept/{id}"), id, &[], b"kept");
        sender.send(&retained);
        assert_eq!(sender.receive_kind(kind::PUBACK).id(), id);
    }
    sender.send(&publish_with(Version::V311, 0b0011, "kept/20", 21, &[], b""));
    sender.receive_kind(kind::PUBACK);
    gateway.kill();
    gateway.restart();
    let mut receiver = Client::open(gateway.mqtt(), Version::V311, "receiver");
    receiver.send(&packet::subscribe(Version::V311, 1, "kept/+", 1));
    let mut topics = BTreeSet::new();
    until("all retained messages", PATIENCE, || {
        let packet = receiver.receive();
        if packet.kind() == kind::PUBLISH {
            let publish = packet.publish(Version::V311);
            assert!(publish.retain);
            receiver.send(&acknowledge(kind::PUBACK, publish.id));
            topics.insert(publish.topic);
        }
        (topics.len() == 19).then_some(())
    });
    assert!(!topics.contains("kept/20"), "removed before the kill");
}

#[test]
fn a_frame_sent_again_after_a_reconnect_is_one_record() {
    let gateway = Gateway::start();
    let device = Connect::new(Version::V5, "device").persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &device);
    client.send(&publish(Version::V5, 1, "frames", 3, b"1"));
    // The device is cut before the acknowledgement reaches it.
    client.receive_kind(kind::PUBACK);
    client.cut();
    let (mut client, _) = Client::connect(gateway.mqtt(), &device);
    client.send(&publish_with(Version::V5, 0b1010, "frames", 3, &[], b"1"));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 3);
    client.send(&publish(Version::V5, 1, "frames", 3, b"1"));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 3);
    // The second was the same frame; the third is a new one that says the same.
    assert_eq!(gateway.frames().len(), 2);
}
