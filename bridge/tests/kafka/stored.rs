//! What is stored, where, and in which order.

use std::collections::HashMap;

use holdfast_bridge::TopicRule;
use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Receipt, Sink, Verdict};

use crate::rig::{NOW, Way, config, create, frame, name, read, shared, until};

#[test]
fn a_stored_frame_is_where_its_receipt_says_and_as_the_documentation_says() {
    let topic = name("frames");
    let sink = KafkaSink::start(config(shared(), &topic)).unwrap();
    let mut way = Way::into(&sink);
    way.push(&frame("sensor-7", "plant/7", b"21.5"), true);
    way.push(&LogRecord { event_time_ms: NOW - 5, dup: true, ..frame("sensor-8", "plant/8", b"") }, false);
    way.send();
    let verdicts = way.verdicts();
    let Verdict::StoredAt(Receipt { topic: at, partition, offset }) = &verdicts[0] else {
        panic!("{verdicts:?}")
    };
    assert_eq!((&**at, &verdicts[1]), (&*topic, &Verdict::Stored));
    let records = read(&shared().brokers, &topic, 2);
    let first = records.iter().find(|record| record.key == "sensor-7").unwrap();
    assert_eq!((first.partition, first.offset, first.timestamp), (*partition, *offset, NOW.cast_signed()));
    assert_eq!(first.payload, b"21.5");
    let header = |name| first.header(name);
    assert_eq!(
        (header("topic"), header("client-id"), header("qos")),
        (Some("plant/7"), Some("sensor-7"), Some("1"))
    );
    assert_eq!((header("packet-id"), header("dup"), header("session")), (Some("9"), None, Some("7")));
    let second = records.iter().find(|record| record.key == "sensor-8").unwrap();
    assert_eq!((second.timestamp, second.header("dup")), (NOW.cast_signed() - 5, Some("1")));
}

#[test]
fn frames_of_each_device_keep_their_order_whatever_waits_with_them() {
    const FRAMES: usize = 20_000;
    let topic = name("order");
    let sink = KafkaSink::start(config(shared(), &topic)).unwrap();
    let mut ways = [Way::into(&sink), Way::into(&sink)];
    for number in 0..FRAMES {
        let client = format!("device-{}", number % 50);
        // A device's frames come over one link.
        let way = &mut ways[number % 2];
        way.push(&frame(&client, "t", number.to_string().as_bytes()), false);
        if number % 97 < 2 {
            way.send();
        }
    }
    for way in &mut ways {
        way.send();
        assert!(way.verdicts().iter().all(|verdict| *verdict == Verdict::Stored));
    }
    let mut last = HashMap::new();
    for record in read(&shared().brokers, &topic, FRAMES) {
        let number: usize = record.text().parse().unwrap();
        if let Some((before, partition)) = last.insert(record.key.clone(), (number, record.partition)) {
            assert!(before < number && partition == record.partition, "{}: {before}, {number}", record.key);
        }
    }
    assert_eq!(last.len(), 50);
}

#[test]
fn rules_lead_frames_to_topics_that_levels_name() {
    let (default, plant) = (name("default"), name("sensors"));
    create(&shared().brokers, &format!("{plant}.north"), &[]);
    let topic_map =
        vec![TopicRule { filter: "plant/+/#".into(), sink: format!("kafka:{plant}.{{2}}").parse().unwrap() }];
    let sink = KafkaSink::start(KafkaConfig { topic_map, ..config(shared(), &default) }).unwrap();
    let mut way = Way::into(&sink);
    for topic in ["plant/north/1", "office", "plant/south/1", "plant/a b/1"] {
        way.push(&frame("d", topic, topic.as_bytes()), false);
    }
    way.send();
    let refused = Verdict::Refused(0x90);
    assert_eq!(way.verdicts(), [Verdict::Stored, Verdict::Stored, refused.clone(), refused]);
    assert_eq!(read(&shared().brokers, &format!("{plant}.north"), 1)[0].text(), "plant/north/1");
    assert_eq!(read(&shared().brokers, &default, 1)[0].text(), "office");
}

#[test]
fn topics_of_templates_are_made_if_they_may_be_and_no_more_than_the_bound() {
    let (default, plant) = (name("default"), name("made"));
    let topic_map =
        vec![TopicRule { filter: "plant/+".into(), sink: format!("kafka:{plant}.{{2}}").parse().unwrap() }];
    let config = KafkaConfig {
        topic_map,
        topic: default,
        brokers: shared().brokers.clone(),
        create_topics: true,
        partitions: 2,
        topics_max: 2,
        ..KafkaConfig::default()
    };
    let sink = KafkaSink::start(config).unwrap();
    let mut way = Way::into(&sink);
    for topic in ["plant/1", "plant/2", "plant/1", "plant/3"] {
        way.push(&frame("d", topic, b"x"), false);
    }
    way.send();
    let stored = Verdict::Stored;
    assert_eq!(way.verdicts(), [stored.clone(), stored.clone(), stored, Verdict::Refused(0x97)]);
    assert_eq!(read(&shared().brokers, &format!("{plant}.1"), 2).len(), 2);
}

#[test]
fn verdicts_come_to_whoever_takes_them_and_by_themselves_to_whoever_does_not() {
    let sink = KafkaSink::start(config(shared(), &name("taken"))).unwrap();
    let mut way = Way::into(&sink);
    let mut pushed = 0;
    let mut settled = |takes: bool| {
        pushed += 500;
        for number in 0..500 {
            way.push(&frame(&format!("device-{}", number % 7), "t", b""), number % 50 == 0);
        }
        way.send();
        until("everything is settled", || {
            if takes {
                sink.take_verdicts();
            }
            way.told() == pushed
        });
    };
    settled(true);
    sink.leave_verdicts();
    settled(false);
    settled(true);
    // Whoever took them is gone without a word.
    settled(false);
    sink.take_verdicts();
    sink.withdraw();
    settled(false);
    sink.take_verdicts();
    settled(true);
    let verdicts = way.verdicts();
    let stored = |verdict: &&Verdict| matches!(verdict, Verdict::Stored | Verdict::StoredAt(_));
    assert_eq!((verdicts.len(), verdicts.iter().filter(stored).count()), (3_000, 3_000));
}
