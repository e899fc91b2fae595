//! What Kafka refuses for good, and where it goes.

use holdfast_bridge::TopicRule;
use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Sink, Verdict};

use crate::rig::{Way, config, create, frame, name, read, shared};

#[test]
fn a_frame_larger_than_its_topic_takes_is_refused_and_holds_nobody_up() {
    let topic = name("small");
    create(&shared().brokers, &topic, &[("max.message.bytes", "2000")]);
    let brokers = shared().brokers.clone();
    let sink =
        KafkaSink::start(KafkaConfig { brokers, topic: topic.clone(), ..KafkaConfig::default() }).unwrap();
    let mut way = Way::into(&sink);
    // Sizes around the bound, so that none passes us and is refused by the broker with all that travels with it.
    let sizes: Vec<usize> = [10, 100_000].into_iter().chain(1_400..2_000).collect();
    for &size in &sizes {
        way.push(&frame("d", "t", &vec![b'x'; size]), false);
    }
    way.send();
    let verdicts = way.verdicts();
    let stored = verdicts.iter().filter(|verdict| **verdict == Verdict::Stored).count();
    for (size, verdict) in sizes.iter().zip(&verdicts) {
        match verdict {
            Verdict::Stored => assert!(*size < 1_900),
            Verdict::Refused(0x97) => assert!(*size > 1_500),
            other => panic!("{size}: {other:?}"),
        }
    }
    assert_eq!(read(&shared().brokers, &topic, stored).len(), stored);
}

#[test]
fn small_frames_that_leave_together_fit_into_a_topic_that_takes_less_than_the_others() {
    let (wide, narrow) = (name("wide"), name("narrow"));
    create(&shared().brokers, &narrow, &[("max.message.bytes", "20000")]);
    let topic_map = vec![TopicRule { filter: "n".into(), sink: format!("kafka:{narrow}").parse().unwrap() }];
    let linger = std::time::Duration::from_millis(200);
    // Compressed, they would be small.
    let compression = "none".into();
    let sink =
        KafkaSink::start(KafkaConfig { topic_map, linger, compression, ..config(shared(), &wide) }).unwrap();
    let mut way = Way::into(&sink);
    for _ in 0..200 {
        way.push(&frame("d", "n", &[b'x'; 1_000]), false);
    }
    way.send();
    assert!(way.verdicts().iter().all(|verdict| *verdict == Verdict::Stored));
}

/// So that a batch that is too large when they are together is not for their being compressed.
fn uncompressed(config: KafkaConfig) -> KafkaConfig {
    let linger = std::time::Duration::from_millis(200);
    KafkaConfig { linger, compression: "none".into(), ..config }
}

#[test]
fn small_frames_that_are_refused_for_their_batch_come_back_and_leave_in_smaller_ones() {
    let topic = name("narrowed");
    let sink = KafkaSink::start(uncompressed(config(shared(), &topic))).unwrap();
    // While the bridge runs.
    crate::rig::set(&shared().brokers, &topic, "max.message.bytes", "20000");
    let mut way = Way::into(&sink);
    let push = |way: &mut Way| {
        (0..200).for_each(|_| way.push(&frame("d", "n", &[b'x'; 1_000]), false));
        way.push(&frame("d", "n", &vec![b'x'; 30_000]), false);
        way.send();
    };
    push(&mut way);
    let verdicts = way.verdicts();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Withdrawn), "{verdicts:?}");
    sink.withdraw();
    // What the topic takes is known now.
    let mut lane = sink.lane();
    assert_eq!(lane.refuses(&frame("d", "n", &vec![b'x'; 30_000])), Some(0x97));
    assert_eq!(lane.refuses(&frame("d", "n", &[b'x'; 1_000])), None);
    push(&mut way);
    let verdicts = &way.verdicts()[201..];
    assert!(verdicts[..200].iter().all(|verdict| *verdict == Verdict::Stored), "{verdicts:?}");
    assert_eq!(verdicts[200], Verdict::Refused(0x97));
    assert_eq!(read(&shared().brokers, &topic, 200).len(), 200);
}

#[test]
fn what_a_topic_of_a_template_takes_is_asked_when_it_is_first_needed() {
    let (default, narrow, wide) = (name("default"), name("narrow"), name("wide"));
    create(&shared().brokers, &narrow, &[("max.message.bytes", "20000")]);
    create(&shared().brokers, &wide, &[("max.message.bytes", "3000000")]);
    let topic_map = vec![TopicRule { filter: "to/+".into(), sink: "kafka:{2}".parse().unwrap() }];
    let sink = KafkaSink::start(KafkaConfig { topic_map, ..config(shared(), &default) }).unwrap();
    let mut lane = sink.lane();
    let mut refuses = |topic: &str, bytes| lane.refuses(&frame("d", topic, &vec![b'x'; bytes])).is_some();
    let (to_narrow, to_wide) = (format!("to/{narrow}"), format!("to/{wide}"));
    crate::rig::until("it is known", || refuses(&to_narrow, 30_000) && !refuses(&to_wide, 2_000_000));
    let mut way = Way::into(&sink);
    way.push(&frame("d", &to_wide, &vec![b'x'; 2_000_000]), false);
    way.push(&frame("d", &to_narrow, &vec![b'x'; 30_000]), false);
    way.send();
    assert_eq!(way.verdicts(), [Verdict::Stored, Verdict::Refused(0x97)]);
}

#[test]
fn a_refused_frame_goes_to_the_dead_letter_topic_and_is_stored_there() {
    let (topic, dead) = (name("narrow"), name("dead"));
    create(&shared().brokers, &topic, &[("max.message.bytes", "2000")]);
    create(&shared().brokers, &dead, &[]);
    let sink = KafkaSink::start(KafkaConfig {
        brokers: shared().brokers.clone(),
        topic: topic.clone(),
        dead_letter: Some(dead.clone()),
        ..KafkaConfig::default()
    })
    .unwrap();
    let mut way = Way::into(&sink);
    way.push(&frame("d", "t", &[b'x'; 5000]), true);
    way.push(&frame("d", "t", b"small"), false);
    way.push(&frame("d", "t", &vec![b'x'; 2_000_000]), false);
    way.send();
    let verdicts = way.verdicts();
    let Verdict::StoredAt(receipt) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(*receipt.topic, *dead, "a receipt tells the truth");
    assert_eq!(verdicts[1..], [Verdict::Stored, Verdict::Refused(0x97)], "nobody takes the last one");
    let letter = &read(&shared().brokers, &dead, 1)[0];
    assert_eq!((letter.header("refused"), letter.header("refused-by")), (Some("too large"), Some(&*topic)));
    assert_eq!((letter.payload.len(), letter.header("client-id")), (5000, Some("d")));
}

#[test]
fn a_frame_that_not_even_the_dead_letter_topic_takes_is_refused_before_it_is_acknowledged() {
    let (topic, dead) = (name("narrow"), name("dead"));
    create(&shared().brokers, &topic, &[("max.message.bytes", "2000")]);
    create(&shared().brokers, &dead, &[("max.message.bytes", "6000")]);
    let sink = KafkaSink::start(KafkaConfig {
        brokers: shared().brokers.clone(),
        topic,
        dead_letter: Some(dead),
        ..KafkaConfig::default()
    })
    .unwrap();
    let mut lane = sink.lane();
    let mut refuses = |size: usize| lane.refuses(&frame("d", "t", &vec![b'x'; size]));
    assert_eq!((refuses(100), refuses(5_000), refuses(10_000)), (None, None, Some(0x97)));
    // Between the two bounds, what is promised is kept: none of them is refused once it is sent.
    let sizes: Vec<usize> = (5_300..6_000).step_by(3).filter(|&size| refuses(size).is_none()).collect();
    let mut way = Way::into(&sink);
    for &size in &sizes {
        way.push(&frame("d", "t", &vec![b'x'; size]), false);
        way.send();
        way.verdicts();
    }
    assert!(sizes.len() > 30, "{}", sizes.len());
    assert!(way.verdicts().iter().all(|verdict| *verdict == Verdict::Stored));
    way.push(&frame("d", "t", &vec![b'x'; 10_000]), false);
    way.send();
    assert_eq!(way.verdicts().last(), Some(&Verdict::Refused(0x97)));
}

#[test]
fn a_frame_with_an_impossible_event_time_does_not_spoil_the_frames_that_travel_with_it() {
    let topic = name("clocks");
    let day = 86_400_000;
    create(&shared().brokers, &topic, &[("message.timestamp.before.max.ms", "86400000")]);
    let brokers = shared().brokers.clone();
    let sink =
        KafkaSink::start(KafkaConfig { brokers, topic: topic.clone(), ..KafkaConfig::default() }).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut way = Way::into(&sink);
    for event_time_ms in [now, now + 30 * day, 5, now - 5] {
        let mut frame = LogRecord { event_time_ms, ..frame("d", "t", b"x") };
        frame.message.published_at_ms = now;
        way.push(&frame, false);
    }
    way.send();
    assert_eq!(way.verdicts(), [const { Verdict::Stored }; 4]);
    let records = read(&shared().brokers, &topic, 4);
    let times: Vec<_> = records.iter().map(|record| record.timestamp.cast_unsigned()).collect();
    assert_eq!(times, [now, now, now, now - 5]);
    assert_eq!(records[2].header("event-time"), Some("5"));
}

#[test]
fn a_topic_that_vanishes_refuses_its_frames_and_not_those_of_others() {
    let (default, gone) = (name("stays"), name("gone"));
    create(&shared().brokers, &gone, &[]);
    let topic_map = vec![TopicRule { filter: "gone".into(), sink: format!("kafka:{gone}").parse().unwrap() }];
    let sink = KafkaSink::start(KafkaConfig { topic_map, ..config(shared(), &default) }).unwrap();
    let mut way = Way::into(&sink);
    way.push(&frame("d", "gone", b"before"), false);
    way.send();
    assert_eq!(way.verdicts(), [Verdict::Stored]);
    crate::rig::delete(&shared().brokers, &gone);
    way.push(&frame("d", "gone", b"behind"), false);
    way.push(&frame("d", "t", b"other"), false);
    way.send();
    assert_eq!(way.verdicts()[1..], [Verdict::Refused(0x90), Verdict::Stored]);
}

#[test]
fn an_acknowledged_frame_waits_for_its_topic_and_nothing_overtakes_it() {
    let (default, gone) = (name("stays"), name("gone"));
    create(&shared().brokers, &gone, &[]);
    let topic_map = vec![TopicRule { filter: "gone".into(), sink: format!("kafka:{gone}").parse().unwrap() }];
    let sink = KafkaSink::start(KafkaConfig { topic_map, ..config(shared(), &default) }).unwrap();
    crate::rig::delete(&shared().brokers, &gone);
    let mut way = Way::into(&sink);
    way.carry_acknowledged();
    way.push(&frame("d", "gone", b"1"), false);
    way.send();
    assert_eq!(way.verdicts(), [Verdict::Withdrawn]);
    let trouble = sink.trouble().unwrap();
    assert!(
        trouble.starts_with(&format!("the Kafka topic \"{gone}\" does not exist: create it")),
        "{trouble}"
    );
    create(&shared().brokers, &gone, &[]);
    way.push(&frame("d", "gone", b"2"), false);
    way.send();
    assert_eq!(way.verdicts()[1], Verdict::Withdrawn, "it would overtake the one before");
    sink.withdraw();
    for payload in [b"1", b"2"] {
        way.push(&frame("d", "gone", payload), false);
    }
    way.send();
    assert_eq!(way.verdicts()[2..], [const { Verdict::Stored }; 2]);
    assert_eq!(sink.trouble(), None);
}
