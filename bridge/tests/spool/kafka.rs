//! The same with a real Kafka: it hangs, is killed and comes back, and what a reader finds in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::log::verify;
use holdfast_bridge::sink::Sink;
use holdfast_bridge::spool::{OutageConfig, OutageSink, Spool};

use crate::broker::{Stored, assert_kept_by_kafka, has_all};
use crate::devices::{Devices, until};
use crate::rig;

/// What stands in a topic, each partition in its order.
fn contents(brokers: &str, topic: &str) -> Vec<Stored> {
    let mut records = rig::read(brokers, topic, rig::count(brokers, topic));
    records.sort_by_key(|record| (record.partition, record.offset));
    let stored = |record: &rig::Record| Stored {
        client: record.key.clone(),
        number: u64::from_le_bytes(*record.payload.first_chunk().unwrap()),
        resent: record.header("resent").is_some(),
    };
    records.iter().map(stored).collect()
}

#[test]
fn a_real_kafka_that_hangs_again_and_again_gets_everything_in_order() {
    let broker = rig::Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let primary = KafkaSink::start(rig::config(&broker, "spooled")).unwrap();
    let config = OutageConfig {
        outage_after: Duration::from_millis(500),
        ..OutageConfig::in_directory(&directory.path().join("spool"))
    };
    let sink = Arc::new(OutageSink::start(Arc::new(primary), &config).unwrap());
    let fleet: Vec<Devices> = (0..2).map(|link| Devices::new(link, 6)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    for devices in &fleet {
        let sink: Arc<dyn Sink> = Arc::clone(&sink) as _;
        runtime.spawn(devices.clone().publish(sink, 30, Arc::clone(&stop), u64::MAX));
    }
    let acknowledged = || fleet.iter().map(Devices::acknowledged_count).sum::<u64>();
    let until_more = |frames: u64| {
        let wanted = acknowledged() + frames;
        until("acknowledged", || acknowledged() >= wanted);
    };
    // A machine under load may have Kafka pause for so long without our doing; the spool bridges that as well.
    let is_spooling = || verify(&config.directory).unwrap().records > 0;
    until_more(2_000);
    for _ in 0..2 {
        broker.signal("STOP");
        until("frames go to the spool", is_spooling);
        until_more(3_000);
        broker.signal("CONT");
        until_more(3_000);
    }
    stop.store(true, Ordering::Release);
    until("the spool is drained", || !is_spooling());
    let acknowledged: std::collections::HashMap<_, _> =
        fleet.iter().flat_map(Devices::acknowledged).collect();
    let mut stored = Vec::new();
    until("everything is in Kafka", || {
        stored = contents(&broker.brokers, "spooled");
        has_all(&stored, &acknowledged)
    });
    assert_kept_by_kafka(&stored, &acknowledged);
}

#[test]
fn a_bridge_that_starts_while_kafka_is_dead_takes_frames_behind_what_its_spool_holds() {
    let broker = rig::Broker::start();
    let directory = tempfile::tempdir().unwrap();
    // What devices here give as the time is long ago.
    rig::create(&broker.brokers, "awaited", &[("retention.ms", "-1")]);
    let kafka =
        KafkaConfig { brokers: broker.brokers.clone(), topic: "awaited".into(), ..KafkaConfig::default() };
    let config = OutageConfig {
        outage_after: Duration::from_millis(500),
        ..OutageConfig::in_directory(&directory.path().join("spool"))
    };
    let spooled = || verify(&config.directory).unwrap().records;
    let devices = Devices::new(0, 6);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    // Until all of them are acknowledged.
    let publish = |sink: &Arc<OutageSink>, frames: u64| {
        let wanted = devices.acknowledged_count() + frames;
        let link = devices.clone().publish(Arc::clone(sink) as _, 30, Arc::default(), frames);
        runtime.spawn(link);
        until("acknowledged", || devices.acknowledged_count() >= wanted);
    };
    let primary = KafkaSink::start(kafka.clone()).unwrap();
    let sink = Arc::new(OutageSink::start(Arc::new(primary), &config).unwrap());
    publish(&sink, 600);
    broker.signal("KILL");
    publish(&sink, 900);
    assert!(spooled() > 0);
    until("the link is gone", || Arc::strong_count(&sink) == 1);
    drop(sink);

    // Meanwhile somebody has asked for a topic that is not there.
    let kafka = KafkaConfig { dead_letter: Some("letters".into()), ..kafka };
    let spool = Spool::open(&config).unwrap();
    assert!(spool.records() > 0);
    let primary = KafkaSink::start_or_await(kafka).unwrap();
    assert!(!primary.has_begun());
    let sink = Arc::new(OutageSink::start_with(Arc::new(primary), spool).unwrap());
    assert!(sink.trouble().unwrap().starts_with("no Kafka broker answers at "), "{:?}", sink.trouble());
    publish(&sink, 1_500);
    broker.restart();
    let missing = "the Kafka topic \"letters\" does not exist: create it";
    until("it is known what is missing", || sink.trouble().is_some_and(|line| line.starts_with(missing)));
    publish(&sink, 600);
    assert!(spooled() >= 2_100);
    rig::create(&broker.brokers, "letters", &[]);
    until("the sink has begun", || sink.trouble().is_none());
    publish(&sink, 600);
    until("the spool is drained", || spooled() == 0);
    let mut stored = Vec::new();
    until("everything is in Kafka", || {
        stored = contents(&broker.brokers, "awaited");
        has_all(&stored, &devices.acknowledged())
    });
    assert_kept_by_kafka(&stored, &devices.acknowledged());
}
