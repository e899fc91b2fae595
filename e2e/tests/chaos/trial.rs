//! One cluster, one fleet, and the verdict.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_e2e::wait::until_true;
use holdfast_e2e::{Cluster, ClusterSetup, Role};
use holdfast_loadgen::fleet::{Fleet, Gateway, Targets};
use holdfast_loadgen::kafka::{self, KafkaSource};
use holdfast_loadgen::plan::FleetPlan;
use holdfast_loadgen::verdict::Verdict;
use tokio::runtime::Runtime;

/// For a cluster to serve again after a fault: every timeout and backoff in it together is shorter.
pub(crate) const RECOVERY: Duration = Duration::from_mins(1);

/// Each trial is up to eight processes: two at once would only make each other slow.
static ALONE: Mutex<()> = Mutex::new(());

/// A cluster under load.
pub(crate) struct Trial {
    pub(crate) cluster: Cluster,
    fleet: Fleet,
    plan: FleetPlan,
    runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
}

/// The fleet of a short trial: 600 frames/s, until the trial ends.
pub(crate) fn plan() -> FleetPlan {
    FleetPlan {
        devices: 120,
        frames_per_s: 5.0,
        ramp_s: 1.0,
        duration_s: 3_600.0,
        drain_s: RECOVERY.as_secs_f64(),
        pushes_per_s: 0.0,
        ..FleetPlan::default()
    }
}

/// A cluster whose bridges do not take a machine that is busy for an outage of Kafka. A device's frames must not change the bridge while one of them
/// holds a spool: its order in Kafka would be lost (see ROADMAP.md), and the trials of two bridges that leave Kafka alone are not about that.
pub(crate) fn patient() -> ClusterSetup {
    ClusterSetup::new().set_bridges("outage_after_ms", 60_000)
}

impl Trial {
    /// Starts the cluster, puts the load on it, and waits until frames are acknowledged.
    pub(crate) fn begin(setup: ClusterSetup, plan: FleetPlan) -> Self {
        // A trial that failed has ended its processes; the next is none the worse for it.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = setup.start();
        let runtime = Runtime::new().unwrap();
        let targets = Targets {
            gateways: (0..cluster.gateways.len()).map(|index| gateway(&cluster, index)).collect(),
            http: cluster.bridges.iter().map(|bridge| bridge.address("push")).collect(),
        };
        let fleet = {
            let _within = runtime.enter();
            Fleet::start(plan.clone(), targets).unwrap()
        };
        let trial = Self { cluster, fleet, plan, runtime, _alone: alone };
        trial.await_service("at the beginning");
        trial
    }

    /// Waits until all devices are connected and ten frames for each of them were acknowledged from now on.
    pub(crate) fn await_service(&self, when: &str) {
        let devices = u64::from(self.plan.devices);
        until_true(&format!("all devices to be connected {when}"), RECOVERY, || {
            self.fleet.snapshot().connected == devices
        });
        let goal = self.acked() + 10 * devices;
        until_true(&format!("frames to be acknowledged {when}"), RECOVERY, || self.acked() >= goal);
    }

    /// Waits until nobody may send: each device has as many frames unacknowledged as it may. One acknowledgement would let the next one out.
    pub(crate) fn await_held_back(&self) {
        let all = u64::from(self.plan.devices) * u64::from(self.plan.inflight_max);
        until_true("all devices to be held back", RECOVERY, || {
            let seen = self.fleet.snapshot();
            seen.frames_sent.saturating_sub(seen.frames_acked) == all
        });
    }

    /// Waits until every shard has a link to every bridge, so that each device is back at the bridge of its own.
    pub(crate) fn await_links(&self) {
        until_true("all links to stand", RECOVERY, || {
            let mut metrics = self.cluster.gateways.iter().map(Role::metrics);
            metrics.all(|metrics| {
                let up = metrics.sum("holdfast_links_up", &[]);
                up > 0 && up == metrics.sum("holdfast_links_wanted", &[])
            })
        });
    }

    /// Waits until no bridge holds a spool.
    pub(crate) fn await_drained(&self) {
        until_true("the spools to be empty", RECOVERY, || {
            let metrics = self.cluster.bridges.iter().map(Role::metrics);
            metrics.into_iter().all(|metrics| {
                metrics.sum("holdfast_spool_state", &[]) == 0
                    && metrics.sum("holdfast_spool_records", &[]) == 0
            })
        });
    }

    /// Frames acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.fleet.snapshot().frames_acked
    }

    /// Ends the load, waits until everything is answered, and judges by what stands in Kafka.
    pub(crate) fn end(self) -> Outcome {
        let Self { cluster, fleet, runtime, _alone, .. } = self;
        fleet.end();
        let mut result = runtime.block_on(fleet.finish());
        let source = KafkaSource {
            brokers: cluster.kafka.brokers(),
            topic: "holdfast.frames".to_owned(),
            settings: Vec::new(),
            patience: RECOVERY,
        };
        kafka::read(&source, &mut result).unwrap_or_else(|error| panic!("{error}"));
        let verdict = result.verdict();
        eprintln!("{verdict}");
        let outcome = Outcome { verdict };
        outcome.assert_sound();
        outcome
    }
}

impl Outcome {
    /// P1 to P4: what was acknowledged is there, in order; what is there twice says so; and everything was answered in the end.
    fn assert_sound(&self) {
        let Verdict { passed, frames, .. } = &self.verdict;
        assert!(passed, "{}", self.verdict);
        assert_eq!((frames.in_doubt, frames.refused, frames.unsent), (0, 0, 0), "{}", self.verdict);
    }

    /// No device lost its connection.
    pub(crate) fn assert_everyone_stayed(&self) {
        let devices = &self.verdict.devices;
        assert_eq!((devices.reconnects, devices.connects_failed), (0, 0), "{}", self.verdict);
    }
}

fn gateway(cluster: &Cluster, index: usize) -> Gateway {
    let [mqtt, ws] = cluster.doors(index);
    Gateway { mqtt, ws }
}
