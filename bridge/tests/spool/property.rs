//! Any schedule of troubles and crashes: each lane's order is kept, nothing acknowledged is lost, and only what says so is there twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::sink::Sink;
use holdfast_bridge::spool::{OutageConfig, OutageSink};
use proptest::prelude::*;

use crate::broker::{Broker, PARTITIONS, assert_kept, has_all};
use crate::devices::{Devices, until};

const LINKS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Hang,
    Slow,
    Leaderless(u64),
    LoseItsWay,
    Heal,
    /// The bridge dies and starts again.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Hang),
        1 => Just(Step::Slow),
        1 => (0..PARTITIONS).prop_map(Step::Leaderless),
        2 => Just(Step::LoseItsWay),
        4 => Just(Step::Heal),
        2 => Just(Step::Crash),
    ]
}

fn run(seed: u64, bytes_max: u64, steps: &[(Step, u64)]) {
    let directory = tempfile::tempdir().unwrap();
    let config = OutageConfig {
        outage_after: Duration::from_millis(8),
        bytes_max,
        ..OutageConfig::in_directory(directory.path())
    };
    let broker = Broker::start(seed);
    let fleet: Vec<Devices> = (0..LINKS).map(|link| Devices::new(link, 4)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let mut steps = steps.iter();
    loop {
        let sink = Arc::new(OutageSink::start(Arc::new(broker.clone()), &config).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let links: Vec<_> = fleet
            .iter()
            .map(|devices| {
                let sink: Arc<dyn Sink> = Arc::clone(&sink) as _;
                runtime.spawn(devices.clone().publish(sink, 7, Arc::clone(&stop), u64::MAX))
            })
            .collect();
        let mut crashed = false;
        for &(step, ms) in steps.by_ref() {
            match step {
                Step::Hang => broker.hang(),
                Step::Slow => broker.slow(Duration::from_micros(200)),
                Step::Leaderless(partition) => broker.leaderless(partition),
                Step::LoseItsWay => broker.lose_its_way(),
                Step::Heal => broker.heal(),
                Step::Crash => crashed = true,
            }
            // How long the trouble lasts, part of the schedule.
            std::thread::sleep(Duration::from_millis(ms));
            if crashed {
                break;
            }
        }
        if crashed {
            // Links go first, so that nothing that is settled now counts as acknowledged.
            for link in &links {
                link.abort();
            }
            for link in links {
                let _ = runtime.block_on(link);
            }
            broker.hang();
            drop(sink);
            broker.forget();
            continue;
        }
        broker.heal();
        until("every link is served", || fleet.iter().all(|devices| devices.acknowledged_count() > 0));
        stop.store(true, Ordering::Release);
        for link in links {
            let _ = runtime.block_on(link);
        }
        until("all that is acknowledged is stored", || {
            let stored = broker.stored();
            fleet.iter().all(|devices| has_all(&stored, &devices.acknowledged()))
        });
        drop(sink);
        break;
    }
    broker.close();
    let stored = broker.stored();
    for devices in &fleet {
        assert_kept(&stored, &devices.acknowledged());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_of_troubles_loses_or_disorders_what_was_acknowledged(
        seed in any::<u64>(),
        small in any::<bool>(),
        steps in proptest::collection::vec((step(), 0_u64..60), 1..10),
    ) {
        run(seed, if small { OutageConfig::BYTES_MIN } else { 1 << 30 }, &steps);
    }
}
