//! One outage after the other, each told once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::log::verify;
use holdfast_bridge::sink::{Sink, Verdict};
use holdfast_bridge::spool::{OnOutage, OutageConfig, OutageSink};
use holdfast_wire::mqtt::QoS;
use tokio::runtime::Runtime;

use crate::broker::{Broker, ROOM, assert_kept, has_all};
use crate::devices::{DEADLINE, Devices, WINDOW, record, until};

/// A bridge with devices: its sink, and the runtime that links live on.
struct Rig {
    broker: Broker,
    sink: Arc<OutageSink>,
    devices: Devices,
    stop: Arc<AtomicBool>,
    runtime: Runtime,
}

fn config(directory: &Path) -> OutageConfig {
    OutageConfig { outage_after: Duration::from_millis(40), ..OutageConfig::in_directory(directory) }
}

impl Rig {
    fn start(config: &OutageConfig) -> Self {
        Self::with(Broker::start(1), Devices::new(1, 5), config)
    }

    fn with(broker: Broker, devices: Devices, config: &OutageConfig) -> Self {
        let sink = Arc::new(OutageSink::start(Arc::new(broker.clone()), config).unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        Self { broker, sink, devices, stop: Arc::default(), runtime }
    }

    /// The devices publish this many frames, or until they are stopped.
    fn publish(&self, frames: u64) {
        let sink: Arc<dyn Sink> = Arc::clone(&self.sink) as _;
        let stop = Arc::clone(&self.stop);
        self.runtime.spawn(self.devices.clone().publish(sink, 20, stop, frames));
    }

    fn until_acknowledged(&self, more: u64) {
        let wanted = self.devices.acknowledged_count() + more;
        until("acknowledged", || self.devices.acknowledged_count() >= wanted);
    }

    fn spool_takes_nothing(&self) -> bool {
        self.sink.health().spool.is_some_and(|spool| !spool.stores)
    }

    fn until_all_stored(&self, frames: u64) {
        until("all acknowledged", || self.devices.acknowledged_count() >= frames);
        self.until_what_is_acknowledged_is_stored();
    }

    fn until_what_is_acknowledged_is_stored(&self) {
        until("all stored", || {
            // The broker stands still while somebody looks at all it has, so that must be seldom.
            std::thread::sleep(Duration::from_millis(20));
            has_all(&self.broker.stored(), &self.devices.acknowledged())
        });
        assert_kept(&self.broker.stored(), &self.devices.acknowledged());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.broker.close();
    }
}

#[test]
fn a_sink_that_is_well_gets_everything_directly() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&OutageConfig { outage_after: DEADLINE, ..config(directory.path()) });
    rig.publish(2_000);
    rig.until_all_stored(2_000);
    assert_eq!(verify(directory.path()).unwrap().records, 0);
    assert!(rig.broker.stored().iter().all(|frame| !frame.resent));
}

#[test]
fn a_sink_that_hangs_is_spooled_for_and_gets_all_in_order_when_it_answers() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.publish(20_000);
    rig.until_acknowledged(500);
    rig.broker.hang();
    rig.until_acknowledged(8_000);
    rig.broker.heal();
    rig.until_all_stored(20_000);
    until("the spool is empty", || verify(directory.path()).unwrap().records == 0);
    rig.publish(1_000);
    rig.until_all_stored(21_000);
}

#[test]
fn a_sink_that_is_slow_is_no_outage() {
    let directory = tempfile::tempdir().unwrap();
    let config = OutageConfig { outage_after: Duration::from_secs(2), ..config(directory.path()) };
    let rig = Rig::start(&config);
    rig.broker.slow(Duration::from_millis(1));
    rig.publish(400);
    rig.until_all_stored(400);
    assert_eq!(verify(directory.path()).unwrap().records, 0);
    assert!(rig.broker.stored().iter().all(|frame| !frame.resent), "nothing was asked back");
}

#[test]
fn one_partition_without_a_leader_holds_no_device_back() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.publish(10_000);
    rig.until_acknowledged(300);
    rig.broker.leaderless(1);
    rig.until_acknowledged(3_000);
    rig.broker.heal();
    rig.until_all_stored(10_000);
}

#[test]
fn a_sink_that_dies_again_while_the_spool_drains_is_waited_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.broker.hang();
    rig.publish(u64::MAX);
    for _ in 0..3 {
        rig.until_acknowledged(2_000);
        rig.broker.heal();
        rig.broker.slow(Duration::from_micros(100));
        let stored = rig.broker.stored().len();
        until("some are drained", || rig.broker.stored().len() > stored + 300);
        rig.broker.hang();
        rig.until_acknowledged(500);
        rig.broker.lose_its_way();
    }
    rig.broker.heal();
    rig.stop.store(true, Ordering::Release);
    rig.until_what_is_acknowledged_is_stored();
}

#[test]
fn devices_that_send_faster_than_the_sink_stores_do_not_keep_the_spool_from_draining() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.broker.hang();
    rig.publish(u64::MAX);
    rig.until_acknowledged(1_000);
    rig.broker.heal();
    rig.broker.slow(Duration::from_micros(50));
    until("nothing is behind", || rig.sink.health().spool.is_some_and(|spool| spool.state == "direct"));
    rig.stop.store(true, Ordering::Release);
    rig.until_what_is_acknowledged_is_stored();
}

#[test]
fn a_sink_that_stores_little_does_not_hold_devices_back_until_it_has_stored_all() {
    let directory = tempfile::tempdir().unwrap();
    let rig =
        Rig::start(&OutageConfig { outage_after: Duration::from_millis(400), ..config(directory.path()) });
    rig.broker.hang();
    rig.publish(400);
    rig.until_acknowledged(400);
    let before = rig.broker.stored().len();
    rig.broker.heal_slowly(Duration::from_millis(20));
    // Long enough for the first attempt to have begun.
    until("it drains", || rig.broker.stored().len() > before + 10);
    rig.publish(100);
    rig.until_acknowledged(100);
    assert!(rig.broker.stored().len() < 400, "they waited for all that was behind");
    rig.broker.slow(Duration::ZERO);
    until("nothing is behind", || rig.sink.health().spool.is_some_and(|spool| spool.state == "direct"));
    rig.until_what_is_acknowledged_is_stored();
}

#[test]
fn a_sink_that_gives_frames_back_unasked_gets_them_again_in_order() {
    for on_outage in [OnOutage::Spool, OnOutage::Hold] {
        let directory = tempfile::tempdir().unwrap();
        let rig = Rig::start(&OutageConfig { on_outage, ..config(directory.path()) });
        rig.publish(6_000);
        for _ in 0..5 {
            rig.until_acknowledged(500);
            rig.broker.lose_its_way();
        }
        rig.until_all_stored(6_000);
    }
}

#[test]
fn what_an_earlier_run_left_in_the_spool_goes_before_new_frames() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.broker.hang();
    rig.publish(1_000);
    rig.until_acknowledged(1_000);
    let (broker, devices) = (rig.broker.clone(), rig.devices.clone());
    let Rig { sink, .. } = &rig;
    until("links are gone", || Arc::strong_count(sink) == 1);
    drop(rig);

    let left = broker.stored();
    let broker = Broker::start(2);
    let rig = Rig::with(broker, devices, &config(directory.path()));
    assert!(left.len() <= 1_000);
    rig.publish(1_000);
    rig.until_all_stored(2_000);
    assert!(rig.broker.stored()[..1_000].iter().all(|frame| frame.resent), "they may have been sent before");
}

#[test]
fn a_full_spool_holds_devices_back_drops_only_what_nobody_waits_for_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let config = OutageConfig { bytes_max: OutageConfig::BYTES_MIN, ..config(directory.path()) };
    let rig = Rig::start(&config);
    rig.broker.hang();
    rig.publish(60_000);
    until("the spool is full", || rig.spool_takes_nothing());
    until("the window is full", || rig.devices.unacknowledged_count() >= WINDOW);
    let acknowledged = rig.devices.acknowledged_count();
    assert!((1..60_000).contains(&acknowledged), "{acknowledged}");
    let used: u64 = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(used <= OutageConfig::BYTES_MIN + 4_096, "{used} bytes");
    // QoS 0 is answered at once and is nowhere.
    let (settled, dropped) = std::sync::mpsc::channel();
    let mut lane = rig.sink.lane();
    lane.push(&record("silent", &7_u64.to_le_bytes(), QoS::AtMostOnce, false), false);
    let sent = lane.send(Box::new(move |run, verdict| settled.send((run, verdict)).unwrap()));
    rig.runtime.block_on(sent).unwrap();
    assert_eq!(dropped.recv().unwrap(), (0..1, Verdict::Dropped));
    assert_eq!(rig.devices.acknowledged_count(), acknowledged, "devices are held back");
    rig.broker.heal();
    rig.until_all_stored(60_000);
    assert!(rig.broker.stored().iter().all(|frame| frame.client != "silent"));
}

#[test]
fn with_hold_nothing_is_acknowledged_and_nothing_lost() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("spool");
    let rig = Rig::start(&OutageConfig { on_outage: OnOutage::Hold, ..config(&nowhere) });
    rig.publish(u64::MAX);
    rig.until_acknowledged(500);
    rig.broker.hang();
    until("the sink's queue is full", || rig.broker.queued() == ROOM);
    until("the outage is noticed", || !rig.sink.health().stores);
    until("only what is stored is acknowledged", || {
        rig.devices.acknowledged_count() == rig.broker.stored().len() as u64
    });
    rig.broker.heal();
    rig.until_acknowledged(500);
    rig.stop.store(true, Ordering::Release);
    rig.until_what_is_acknowledged_is_stored();
    assert!(!nowhere.exists());
    assert!(rig.broker.stored().iter().all(|frame| !frame.resent));
}

#[test]
fn with_hold_what_an_earlier_run_spooled_is_drained_first() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.broker.hang();
    rig.publish(500);
    rig.until_acknowledged(500);
    let devices = rig.devices.clone();
    until("links are gone", || Arc::strong_count(&rig.sink) == 1);
    drop(rig);
    let hold = OutageConfig { on_outage: OnOutage::Hold, ..config(directory.path()) };
    let rig = Rig::with(Broker::start(3), devices, &hold);
    rig.publish(500);
    rig.until_all_stored(1_000);
}

#[test]
fn a_device_hears_of_a_refusal_with_and_without_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(directory.path()));
    rig.broker.refuse(10);
    let mut refused = 0;
    for away in [false, true] {
        if away {
            rig.broker.hang();
        }
        let settled = rig.devices.acknowledged_count() + refused;
        rig.publish(500);
        until("all settled", || {
            rig.devices.acknowledged_count() + rig.devices.refused_count() == settled + 500
        });
        assert!(rig.devices.refused_count() >= refused + 50, "a tenth");
        refused = rig.devices.refused_count();
    }
    rig.broker.heal();
    rig.until_what_is_acknowledged_is_stored();
    assert_kept(&rig.broker.stored(), &rig.devices.acknowledged());
}

#[test]
fn a_spool_that_cannot_be_opened_says_so_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let broker = || Arc::new(Broker::start(1));
    let line = |config: &OutageConfig| OutageSink::start(broker(), config).unwrap_err().to_string();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let spool = directory.path().join("spool");
    let open = OutageSink::start(broker(), &config(&spool)).unwrap();
    for (config, says) in [(config(&file), "cannot be"), (config(&spool), "in use by another process")] {
        let line = line(&config);
        assert!(line.starts_with("the spool cannot be opened: ") && line.contains(says), "{line}");
        assert!(!line.contains('\n'));
    }
    drop(open);
    OutageSink::start(broker(), &config(&spool)).unwrap();
}
