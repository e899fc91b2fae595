//! A session on its way from one gateway to another: what was in flight goes on there, exactly as MQTT says.

use std::time::Duration;

use holdfast_e2e::packet::{Connect, Packet, Publish, Version, acknowledge, kind, user_property};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, DeviceWay, Weather};

use crate::fleet::{Fleet, persistent};

/// Messages on their way to a device, each at another step. A fourth, of QoS 2, is done.
struct InFlight {
    /// QoS 1, heard and not acknowledged.
    first: Publish,
    /// QoS 2, heard and not acknowledged.
    second: Publish,
    /// QoS 2, acknowledged by PUBREC and released by PUBREL.
    third: Publish,
}

impl InFlight {
    /// Leaves the device's inbox empty.
    fn bring_about(fleet: &Fleet, device: &mut Client) -> Self {
        let mut publisher = fleet.publisher(1, Version::V5);
        for (qos, payload) in [(1, "first"), (2, "second"), (2, "third"), (2, "fourth")] {
            publisher.publish("news/today", qos, payload);
        }
        let [first, second, third, fourth] = [(); 4].map(|()| device.receive_publish());
        assert_eq!([&first, &second, &third, &fourth].map(|heard| heard.qos), [1, 2, 2, 2]);
        for heard in [&third, &fourth] {
            assert!(!heard.dup);
            device.send(&acknowledge(kind::PUBREC, heard.id));
            assert_eq!(device.receive_kind(kind::PUBREL).id(), heard.id);
        }
        device.send(&acknowledge(kind::PUBCOMP, fourth.id));
        device.ping();
        Self { first, second, third }
    }

    /// What a resumed session begins with: unacknowledged PUBLISH and PUBREL with their packet ids [MQTT-4.4.0-1], DUP set [MQTT-3.3.1-1], in
    /// the order of the first time [MQTT-4.6.0-1], and nothing else.
    fn go_on(&self, device: &mut Client) {
        for sent in [&self.first, &self.second] {
            assert_eq!(device.receive_publish(), Publish { dup: true, ..sent.clone() });
        }
        assert_eq!(device.receive_kind(kind::PUBREL).id(), self.third.id);
        device.ping();
    }

    fn settle(&self, device: &mut Client) {
        device.send(&acknowledge(kind::PUBACK, self.first.id));
        device.send(&acknowledge(kind::PUBREC, self.second.id));
        assert_eq!(device.receive_kind(kind::PUBREL).id(), self.second.id);
        device.send(&acknowledge(kind::PUBCOMP, self.second.id));
        device.send(&acknowledge(kind::PUBCOMP, self.third.id));
        device.ping();
    }
}

fn resume(fleet: &Fleet, gateway: usize, connect: &Connect) -> Client {
    let (client, answer) = Client::connect(fleet.mqtt(gateway), connect);
    assert!(answer.session_present());
    client
}

/// Nothing is left from before: what comes next is new.
fn hears_what_is_new(fleet: &Fleet, device: &mut Client) {
    fleet.publisher(1, Version::V5).publish("news/today", 2, "new");
    let heard = device.receive_publish();
    assert_eq!((heard.payload.as_slice(), heard.dup, heard.qos), (b"new".as_slice(), false, 2));
    device.send(&acknowledge(kind::PUBREC, heard.id));
    assert_eq!(device.receive_kind(kind::PUBREL).id(), heard.id);
    device.send(&acknowledge(kind::PUBCOMP, heard.id));
    device.ping();
}

/// The last words of a connection that was taken over; MQTT 3.1.1 has none.
fn assert_told(version: Version, last_words: &[Packet]) {
    match version {
        Version::V5 => {
            let [goodbye] = last_words else { panic!("only a goodbye is due: {last_words:?}") };
            assert_eq!((goodbye.kind(), goodbye.reason()), (kind::DISCONNECT, 0x8E));
        }
        Version::V311 => assert!(last_words.is_empty(), "{last_words:?}"),
    }
}

#[test]
fn what_is_in_flight_at_one_gateway_goes_on_at_the_other_in_a_takeover() {
    let fleet = Fleet::start(&[]);
    for version in [Version::V5, Version::V311] {
        let connect = persistent(version, &format!("device-{version:?}"));
        let (mut device, _) = Client::connect(fleet.mqtt(0), &connect);
        assert_eq!(device.subscribe("news/#", 2), 2);
        let in_flight = InFlight::bring_about(&fleet, &mut device);
        // There and back again, several times, without a word of the device about it.
        for gateway in [1, 0, 1] {
            let mut former = std::mem::replace(&mut device, resume(&fleet, gateway, &connect));
            assert_told(version, &former.receive_to_end());
            in_flight.go_on(&mut device);
        }
        in_flight.settle(&mut device);
        let mut former = std::mem::replace(&mut device, resume(&fleet, 0, &connect));
        assert_told(version, &former.receive_to_end());
        hears_what_is_new(&fleet, &mut device);
        device.leave();
    }
}

#[test]
fn what_is_in_flight_at_a_gateway_that_is_killed_goes_on_at_the_other() {
    // What the device has said is in the store soon, or would be said again to it.
    let mut fleet = Fleet::start(&[("limits.save_interval_ms", "10")]);
    let connect = persistent(Version::V5, "device");
    let (mut device, _) = Client::connect(fleet.mqtt(0), &connect);
    assert_eq!(device.subscribe("news/#", 2), 2);
    let in_flight = InFlight::bring_about(&fleet, &mut device);
    await_saved(&fleet, &mut device);
    fleet.gateways[0].kill();
    let mut device = resume(&fleet, 1, &connect);
    in_flight.go_on(&mut device);
    in_flight.settle(&mut device);
    let mut former = std::mem::replace(&mut device, resume(&fleet, 1, &connect));
    assert_told(Version::V5, &former.receive_to_end());
    hears_what_is_new(&fleet, &mut device);
}

/// All that the device has said. What it knows of messages is saved whole and once in a while, whereas a filter is written into the record by itself, with the
/// SUBSCRIBE: so only one more message tells an old state from one of now. It is delivered behind everything that was said, and seen to come and to go.
fn await_saved(fleet: &Fleet, device: &mut Client) {
    fleet.publisher(1, Version::V5).publish("news/today", 1, "marker");
    let marker = device.receive_publish();
    assert_eq!((marker.payload.as_slice(), marker.qos), (b"marker".as_slice(), 1));
    let await_record = |with: &[&str], without: &[&str]| {
        until_true("the session to be saved", PATIENCE, || {
            let record = fleet.redis.value("hf{*}:s:device");
            let has = |text: &&str| record.windows(text.len()).any(|bytes| bytes == text.as_bytes());
            with.iter().all(has) && !without.iter().any(has)
        });
    };
    await_record(&["first", "second", "marker"], &["third", "fourth"]);
    device.send(&acknowledge(kind::PUBACK, marker.id));
    await_record(&["first", "second"], &["marker"]);
}

/// Keep alive of a connection that nobody is to give up, however busy the machine is, in seconds.
const PATIENT: u16 = 60;
/// That of one that is given up while it is waited for; half as long again passes before. Long enough for what comes before the wait.
const IMPATIENT: u16 = 6;

#[test]
fn a_device_whose_way_is_cut_late_or_a_black_hole_goes_on_where_it_was() {
    let fleet = Fleet::start(&[]);
    let ways = [DeviceWay::to(&fleet.gateways[0]), DeviceWay::to(&fleet.gateways[1])];
    let mut publisher = fleet.publisher(1, Version::V5);
    let through = |way: usize, keep_alive_s: u16| {
        let connect = persistent(Version::V5, "device").keep_alive_s(keep_alive_s);
        let (client, answer) = Client::connect(ways[way].mqtt.address(), &connect);
        (client, answer.session_present())
    };
    let (mut device, session_present) = through(0, PATIENT);
    assert!(!session_present);
    assert_eq!(device.subscribe("news/#", 1), 1);

    // Cut: the gateway hears of it, and the device comes back.
    publisher.publish("news/today", 1, "before the cut");
    let sent = device.receive_publish();
    ways[0].cut();
    assert!(device.receive_to_end().is_empty(), "nobody is left to say goodbye");
    // By what is counted: the number of connections is told once a second, and may still be that from before the device came.
    until_true("the gateway to notice", PATIENCE, || {
        fleet.gateways[0].metrics().sum("holdfast_connections_closed_total", &[]) == 1
    });
    publisher.publish("news/today", 1, "while away");
    let (mut device, session_present) = through(0, PATIENT);
    assert!(session_present);
    assert_eq!(device.receive_publish(), Publish { dup: true, ..sent.clone() });
    let while_away = device.receive_publish();
    assert_eq!((while_away.payload.as_slice(), while_away.dup), (b"while away".as_slice(), false));
    for heard in [&sent, &while_away] {
        device.send(&acknowledge(kind::PUBACK, heard.id));
    }

    // Late: it is waited for.
    ways[0].set(Weather::Late(Duration::from_secs(1)));
    for _ in 0..3 {
        device.ping();
    }
    ways[0].set(Weather::Fair);
    device.ping();

    // A black hole: keep alive ends the connection, and the session goes on at the other gateway.
    device.leave();
    let given_up = || fleet.gateways[0].metrics().closed("keep_alive_timeout");
    let before = given_up();
    let (mut device, session_present) = through(0, IMPATIENT);
    assert!(session_present);
    ways[0].set(Weather::BlackHole);
    publisher.publish("news/today", 1, "into the black hole");
    until_true("the gateway to give the device up", PATIENCE, || given_up() > before);
    let (mut elsewhere, session_present) = through(1, PATIENT);
    assert!(session_present);
    let heard = elsewhere.receive_publish();
    assert_eq!((heard.payload.as_slice(), heard.dup), (b"into the black hole".as_slice(), true));
    elsewhere.send(&acknowledge(kind::PUBACK, heard.id));
    elsewhere.ping();

    // What the black hole held comes out of it, and disturbs nobody.
    ways[0].set(Weather::Fair);
    let late: Vec<_> =
        device.receive_to_end().iter().map(|packet| (packet.kind(), packet.reason())).collect();
    assert_eq!(late.last(), Some(&(kind::DISCONNECT, 0x8D)), "keep alive timeout: {late:?}");
    elsewhere.ping();
    publisher.publish("news/today", 1, "in the end");
    assert_eq!(elsewhere.receive_publish().payload, b"in the end");
}

#[test]
fn a_black_hole_that_a_device_leaves_by_itself_ends_with_a_takeover() {
    let fleet = Fleet::start(&[]);
    let way = DeviceWay::to(&fleet.gateways[0]);
    // Without a keep alive nobody would ever notice.
    let connect = persistent(Version::V5, "device").property(&user_property("keep", "alive"));
    let (mut former, _) = Client::connect(way.mqtt.address(), &connect);
    assert_eq!(former.subscribe("news/#", 2), 2);
    let in_flight = InFlight::bring_about(&fleet, &mut former);
    way.set(Weather::BlackHole);
    former.send(&acknowledge(kind::PUBACK, in_flight.first.id));
    let mut device = resume(&fleet, 1, &connect);
    in_flight.go_on(&mut device);
    way.set(Weather::Fair);
    assert_told(Version::V5, &former.receive_to_end());
    in_flight.settle(&mut device);
}
