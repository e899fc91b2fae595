//! A broker that hangs: nothing is lost, nothing changes places, and what is withdrawn comes back.

use std::time::Duration;

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::sink::{Sink, Verdict};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::rig::{Broker, Way, config, frame, read};

#[test]
fn a_broker_that_hangs_loses_nothing_and_gives_back_what_is_withdrawn() {
    let broker = Broker::start();
    waits_out(&broker);
    gives_back(&broker);
    a_full_queue_holds_back(&broker);
}

/// A record that comes back by itself is not overtaken: what is pushed behind it comes back too, until somebody has seen to it.
#[test]
fn a_record_that_comes_back_stops_the_producer_until_it_is_withdrawn() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("frames", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let sink = KafkaSink::start(KafkaConfig { brokers, topic: "frames".into(), ..KafkaConfig::default() });
    let sink = sink.unwrap();
    let mut way = Way::into(&sink);
    push(&mut way, 0..1);
    assert_eq!(way.verdicts(), [Verdict::Stored]);
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN]);
    push(&mut way, 1..2);
    assert_eq!(way.verdicts()[1], Verdict::Withdrawn);
    push(&mut way, 2..3);
    assert_eq!(way.verdicts()[2], Verdict::Withdrawn, "it would overtake the one before");
    sink.withdraw();
    push(&mut way, 1..3);
    assert_eq!(way.verdicts()[3..], [const { Verdict::Stored }; 2]);
}

/// A device whose former link waits for room may go on over another one.
#[test]
fn whoever_comes_while_a_lane_waits_for_room_waits_behind_it() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("frames", 1, 1).unwrap();
    let (brokers, topic) = (cluster.bootstrap_servers(), "frames".to_owned());
    let config = KafkaConfig { brokers, topic, queue_records_max: 20, ..KafkaConfig::default() };
    let brokers = config.brokers.clone();
    let sink = KafkaSink::start(config).unwrap();
    let (mut full, mut former, mut later) = (Way::into(&sink), Way::into(&sink), Way::into(&sink));
    push(&mut full, 0..1);
    full.verdicts();
    cluster.broker_down(1).unwrap();
    (1..21).for_each(|number: u32| full.push(&frame("e", "t", number.to_string().as_bytes()), false));
    full.send();
    former.push(&frame("d", "t", b"1"), false);
    cluster.broker_up(1).unwrap();
    full.verdicts();
    // There is room by now, and the former link has not noticed.
    later.push(&frame("d", "t", b"2"), false);
    assert!(!later.send_within(Duration::from_millis(100)));
    former.send();
    former.verdicts();
    later.push(&frame("d", "t", b"3"), false);
    later.send();
    assert_eq!(later.verdicts(), [const { Verdict::Stored }; 2]);
    let of_d = |record: &crate::rig::Record| record.key == "d";
    let stored = read(&brokers, "frames", 24);
    let stored: Vec<_> = stored.iter().filter(|record| of_d(record)).map(crate::rig::Record::text).collect();
    assert_eq!(stored, ["1", "2", "3"]);
}

/// Without anybody's doing: the frames wait, and arrive once, in order.
fn waits_out(broker: &Broker) {
    let sink = KafkaSink::start(config(broker, "waits")).unwrap();
    let mut way = Way::into(&sink);
    push(&mut way, 0..100);
    way.verdicts();
    broker.signal("STOP");
    push(&mut way, 100..1_000);
    assert_eq!(way.told(), 100);
    broker.signal("CONT");
    assert!(way.verdicts().iter().all(|verdict| *verdict == Verdict::Stored));
    assert_eq!(numbers(broker, "waits", 1_000), (0..1_000).collect::<Vec<_>>());
}

/// Every frame without a report comes back withdrawn though the broker still hangs, and the fresh producer takes over when it is back.
fn gives_back(broker: &Broker) {
    let sink = KafkaSink::start(config(broker, "gives-back")).unwrap();
    let mut way = Way::into(&sink);
    push(&mut way, 0..100);
    way.verdicts();
    broker.signal("STOP");
    push(&mut way, 100..300);
    sink.withdraw();
    let verdicts = way.verdicts();
    assert!(verdicts[..100].iter().all(|verdict| *verdict == Verdict::Stored));
    assert!(verdicts[100..].iter().all(|verdict| *verdict == Verdict::Withdrawn));
    // The same frames again, as whoever keeps them would.
    push(&mut way, 100..300);
    broker.signal("CONT");
    assert!(way.verdicts()[300..].iter().all(|verdict| *verdict == Verdict::Stored));
    let mut seen = Vec::new();
    // Some of the first try may have been on the wire.
    let total = count(broker, "gives-back");
    for number in numbers(broker, "gives-back", total) {
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

/// A lane whose frames find no room completes its send when there is some, or when they are withdrawn.
fn a_full_queue_holds_back(broker: &Broker) {
    let config = KafkaConfig { queue_records_max: 50, ..config(broker, "full") };
    let sink = KafkaSink::start(config).unwrap();
    let (mut way, mut other) = (Way::into(&sink), Way::into(&sink));
    broker.signal("STOP");
    for number in 0..200_u32 {
        way.push(&frame("d", "t", number.to_string().as_bytes()), false);
    }
    assert!(!way.send_within(Duration::from_millis(300)), "the queue is full");
    assert_eq!(way.told(), 0);
    // Its link is gone: what librdkafka did not take comes back.
    drop(way);
    other.push(&frame("e", "t", b"0"), false);
    let sending = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            other.send();
            other.verdicts()
        });
        sink.withdraw();
        sending.join().unwrap()
    });
    assert_eq!(sending, [Verdict::Withdrawn]);
    broker.signal("CONT");
    let mut way = Way::into(&sink);
    // A hundred times what has room: each time that there is some, it is seen.
    for number in 0..5_000_u32 {
        way.push(&frame("f", "t", number.to_string().as_bytes()), false);
    }
    way.send();
    assert!(way.verdicts().iter().all(|verdict| *verdict == Verdict::Stored));
    let of_f = |record: &crate::rig::Record| record.key == "f";
    let stored = read(&broker.brokers, "full", count(broker, "full"));
    let stored: Vec<u32> =
        stored.iter().filter(|r| of_f(r)).map(|record| record.text().parse().unwrap()).collect();
    assert_eq!(stored, (0..5_000).collect::<Vec<_>>());
}

fn push(way: &mut Way, numbers: std::ops::Range<u32>) {
    for number in numbers {
        way.push(&frame("device", "t", number.to_string().as_bytes()), false);
        if number % 10 == 9 {
            way.send();
        }
    }
    way.send();
}

fn numbers(broker: &Broker, topic: &str, count: usize) -> Vec<u32> {
    read(&broker.brokers, topic, count).iter().map(|record| record.text().parse().unwrap()).collect()
}

fn count(broker: &Broker, topic: &str) -> usize {
    crate::rig::count(&broker.brokers, topic)
}
