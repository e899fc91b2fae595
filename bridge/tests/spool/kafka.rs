//! The same with a real Kafka: it hangs, is killed and comes back, and what a reader finds in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::kafka::KafkaSink;
use holdfast_bridge::log::verify;
use holdfast_bridge::sink::Sink;
use holdfast_bridge::spool::{OutageConfig, OutageSink};

use crate::broker::{Stored, assert_kept, has_all};
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
    assert_kept(&stored, &acknowledged);
}
