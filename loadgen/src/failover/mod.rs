//! The death of a gateway under a whole fleet: a proof that its sessions go on elsewhere, and how soon.
//!
//! ```text
//!   cluster up ──> parts connect ──> hold ──> kill -9 of the first gateway ──> all back ──> each acked again
//!                                           verdict <── drain <── hold <──
//! ```
//!
//! The fleet is one, but in several processes (`part`), since a process may have only so many files; their ledgers are joined and compared with
//! what Kafka, or the bridges' logs, hold. Devices begin with the home gateways; those that lose theirs go to the others at random, by the room that
//! is there, as a balancer would send them. Start with [`run`].

mod children;
mod outcome;
mod part;

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::children::Parts;
pub use self::outcome::Outcome;
use self::outcome::{Orphans, Return};
pub use self::part::serve as serve_part;
use crate::bench::{Processes, Reexec};
use crate::cluster::{Cluster, ClusterPlan};
use crate::fleet::{FleetResult, LedgerFileError, Snapshot};
use crate::kafka::{self, KafkaReadError, KafkaSource};
use crate::plan::{FleetPlan, Mix, PlanError};
use crate::random::Random;
use crate::records;

/// Devices of one process: below the limit of 20,000 open files that systems like to have.
const DEVICES_PER_PART: u32 = 15_000;

/// Connects on their way at once in one of them at the beginning.
const CONNECTS_PER_PART: u32 = 200;

/// Longest wait before another attempt. With a few seconds, as they suit a small fleet, 15,000 devices that are refused for a while would ask
/// thousands of times a second.
const BACKOFF_S_MAX: f64 = 30.0;

/// Connections that one gateway is to have at most, when the devices of a dead one are shared out.
const CONNECTIONS_PER_GATEWAY: u32 = 18_000;

/// Patience with devices that connect first, beyond the ramp, and with those that come back.
const PATIENCE: Duration = Duration::from_mins(2);

/// Patience with parts that were told to end, beyond their drain.
const END: Duration = Duration::from_mins(1);

const LOOK: Duration = Duration::from_millis(50);

/// Between two lines for whoever waits.
const TELL: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug, Clone)]
pub struct FailoverPlan {
    /// In all.
    pub devices: u32,
    /// Gateways that devices begin with, at least 2; the first of them dies.
    pub homes: u32,
    /// Gateways that nobody begins with.
    pub spares: u32,
    /// Devices that connect in a second at the beginning.
    pub connects_per_s: f64,
    /// Frames of each device in a second, more than 0: it is to be heard after its return.
    pub frames_per_s: f64,
    /// Pushes to random devices in a second, over all of them.
    pub pushes_per_s: f64,
    /// Before the death, and again after everyone is back.
    pub hold: Duration,
    /// In which devices still wait for what they are owed.
    pub drain: Duration,
    /// From first attempt to CONNACK, 99th percentile, at most.
    pub back_within: Duration,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    /// A plan that cannot be.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// Something of the cluster or a part ended, or did not do its work in time.
    #[error("{0}")]
    Stuck(String),
    /// A part's ledger.
    #[error("ledger of a part: {0}")]
    Ledger(#[from] LedgerFileError),
    /// What Kafka holds cannot be read.
    #[error("{0}")]
    Kafka(#[from] KafkaReadError),
    /// A process or a file.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Default for FailoverPlan {
    fn default() -> Self {
        Self {
            devices: 45_000,
            homes: 3,
            spares: 1,
            connects_per_s: 1_500.0,
            frames_per_s: 1.0 / 30.0,
            pushes_per_s: 100.0,
            hold: Duration::from_secs(15),
            // As long as whoever sends a push waits for its outcome; it ends when everything is answered.
            drain: Duration::from_secs(30),
            back_within: Duration::from_secs(5),
        }
    }
}

impl FailoverPlan {
    /// The fleet, each part by itself.
    fn parts(&self) -> Result<Vec<FleetPlan>, PlanError> {
        let count = self.devices.div_ceil(DEVICES_PER_PART).max(1);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = Random::new(unix.as_nanos() as u64).next() >> 11;
        let mut first_device = 0;
        (0..count)
            .map(|part| {
                let devices = (self.devices - first_device).div_ceil(count - part);
                let share = f64::from(devices) / f64::from(self.devices.max(1));
                let plan = FleetPlan {
                    devices,
                    first_device,
                    mix: Mix { mqtt_311: 1, mqtt_5: 1, mqtt_websocket: 0, json: 0 },
                    client_id_prefix: "failover-".to_owned(),
                    run: Some(run),
                    frames_per_s: self.frames_per_s,
                    ramp_s: f64::from(self.devices) / self.connects_per_s,
                    // Ended by word.
                    duration_s: 86_400.0,
                    drain_s: self.drain.as_secs_f64(),
                    keep_alive_s: 600,
                    pushes_per_s: self.pushes_per_s * share,
                    // A machine that is slow makes the ramp longer, not a storm.
                    connects_max: CONNECTS_PER_PART,
                    returns_unbounded: true,
                    backoff_s_max: BACKOFF_S_MAX,
                    home_gateways: self.homes,
                    return_weights: self.return_weights(),
                    ..FleetPlan::default()
                };
                first_device += devices;
                plan.check().map(|()| plan)
            })
            .collect()
    }

    /// The room of each gateway.
    fn return_weights(&self) -> Vec<u32> {
        let held = self.devices / self.homes.max(1);
        let room = |held: u32| CONNECTIONS_PER_GATEWAY.saturating_sub(held).max(1);
        let homes = (0..self.homes).map(|_| room(held));
        homes.chain((0..self.spares).map(|_| room(0))).collect()
    }

    /// Between two frames of a device.
    fn frame_every(&self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.frames_per_s).unwrap_or_default()
    }

    /// Devices that begin with the first gateway.
    fn orphans(&self) -> u64 {
        u64::from(self.devices.div_ceil(self.homes.max(1)))
    }
}

/// Does all of it and judges. Blocks; call it from the main thread.
pub fn run(
    plan: &FailoverPlan,
    cluster: &ClusterPlan,
    reexec: &Reexec,
    mut say: impl FnMut(&str),
) -> Result<Outcome, FailoverError> {
    let parts = plan.parts()?;
    say("starting Redis, the sink, bridges and gateways");
    let cluster = ClusterPlan { gateways: (plan.homes + plan.spares) as usize, ..cluster.clone() };
    let mut cluster = cluster.start().map_err(|error| FailoverError::Stuck(error.to_string()))?;
    let mut parts = Parts::start(&parts, &cluster, reexec)?;
    let all = u64::from(plan.devices);

    let ramp = Duration::from_secs_f64(f64::from(plan.devices) / plan.connects_per_s);
    let began = Instant::now();
    let is_full = wait(&mut parts, &mut cluster, ramp + PATIENCE, &mut say, |now| {
        now.connected == all && now.subscribed >= all
    })?;
    if !is_full {
        let (now, waited) = (parts.snapshot(), began.elapsed().as_secs());
        let why = format!("waited {waited} s for devices to connect and subscribe, in vain: {now:?}");
        return Err(FailoverError::Stuck(why));
    }
    let since_ramp = || began.elapsed().saturating_sub(ramp);
    sleep((plan.hold.saturating_sub(since_ramp())).min(plan.hold));
    check(&mut parts, &mut cluster)?;

    let before = parts.snapshot();
    say(&format!(
        "{} frames acknowledged; kill -9 of the first of {} gateways",
        before.frames_acked, plan.homes
    ));
    let mut dead = cluster.gateways.remove(0);
    let spent = Cost::start(&parts, &cluster);
    let killed = Instant::now();
    dead.kill();
    let orphans = plan.orphans();
    wait(&mut parts, &mut cluster, PATIENCE, &mut say, |now| {
        now.connected == all && now.came_back >= before.came_back + orphans
    })?;
    let missing = all.saturating_sub(parts.snapshot().connected);
    let back = Return { after: killed.elapsed(), missing, cpu_ms: spent.stop() };
    let who = if missing == 0 { "all are back".to_owned() } else { format!("{missing} are still away") };
    say(&format!("{who} after {:.1} s", back.after.as_secs_f64()));
    // Each is to be heard where it is now; who is not is a fault, by its ledger.
    wait(&mut parts, &mut cluster, plan.frame_every() + PATIENCE, &mut say, |now| {
        now.acked_again >= before.acked_again + orphans
    })?;
    sleep(plan.hold);
    check(&mut parts, &mut cluster)?;

    say("draining");
    let mut result = parts.finish(plan.drain + END)?;
    check_roles(&mut cluster)?;
    observe(&mut cluster, &mut result, &mut say)?;
    let orphans = Orphans::of(&result.ledger, plan.homes);
    Ok(Outcome::new(result.verdict(), orphans, back, plan.back_within))
}

/// CPU of everyone who takes part. On a machine with other work it says more than the clock does.
struct Cost(Vec<(&'static str, Processes, u64)>);

impl Cost {
    fn start(parts: &Parts, cluster: &Cluster) -> Self {
        let roles = |roles: &[crate::cluster::Role]| roles.iter().map(crate::cluster::Role::pid).collect();
        let kafka = cluster.kafka.as_ref().and_then(crate::cluster::Kafka::pid);
        let all: [(&'static str, Vec<u32>); 5] = [
            ("surviving gateways", roles(&cluster.gateways)),
            ("bridges", roles(&cluster.bridges)),
            ("Redis", cluster.redis.pid().into_iter().collect()),
            ("Kafka", kafka.into_iter().collect()),
            ("devices", parts.pids()),
        ];
        let all = all.into_iter().filter(|(_, pids)| !pids.is_empty());
        let all = all.map(|(name, pids)| (name, Processes::new(pids)));
        Self(all.map(|(name, processes)| (name, processes.clone(), spent_us(&processes))).collect())
    }

    /// Of each, in ms.
    fn stop(self) -> Vec<(&'static str, u64)> {
        let spent = |(name, processes, before): (_, _, u64)| {
            (name, spent_us(&processes).saturating_sub(before) / 1_000)
        };
        self.0.into_iter().map(spent).collect()
    }
}

/// 0 of those that are gone.
fn spent_us(processes: &Processes) -> u64 {
    processes.spent().map_or(0, |spent| spent.whole.us)
}

/// Until `reached`, with a line now and then; false if it was not in time.
fn wait(
    parts: &mut Parts,
    cluster: &mut Cluster,
    within: Duration,
    say: &mut impl FnMut(&str),
    reached: impl Fn(&Snapshot) -> bool,
) -> Result<bool, FailoverError> {
    let deadline = Instant::now() + within;
    let mut tell_at = Instant::now() + TELL;
    loop {
        let now = parts.snapshot();
        if reached(&now) {
            return Ok(true);
        }
        check(parts, cluster)?;
        if Instant::now() >= deadline {
            return Ok(false);
        }
        if Instant::now() >= tell_at {
            tell_at += TELL;
            say(&format!(
                "{} connected, {} subscribed, {} came back, {} of them acked again; frames {} sent, {} acked; pushes {} sent, {} received",
                now.connected,
                now.subscribed,
                now.came_back,
                now.acked_again,
                now.frames_sent,
                now.frames_acked,
                now.pushes_sent,
                now.pushes_received
            ));
        }
        sleep(LOOK);
    }
}

/// Nobody but the one that is killed may end.
fn check(parts: &mut Parts, cluster: &mut Cluster) -> Result<(), FailoverError> {
    check_roles(cluster)?;
    parts.ended().map_or(Ok(()), |how| Err(FailoverError::Stuck(how)))
}

fn check_roles(cluster: &mut Cluster) -> Result<(), FailoverError> {
    let mut roles = cluster.gateways.iter_mut().chain(&mut cluster.bridges);
    let ended = roles.find_map(crate::cluster::Role::ended);
    ended.map_or(Ok(()), |how| Err(FailoverError::Stuck(how)))
}

/// All that the sink holds.
fn observe(
    cluster: &mut Cluster,
    result: &mut FleetResult,
    say: &mut impl FnMut(&str),
) -> Result<(), FailoverError> {
    if let Some(kafka) = &cluster.kafka {
        say("reading Kafka");
        let source = KafkaSource {
            brokers: kafka.brokers().to_owned(),
            topic: "holdfast.frames".to_owned(),
            settings: Vec::new(),
            patience: Duration::from_secs(10),
        };
        kafka::read(&source, result)?;
        return Ok(());
    }
    say("reading the bridges' logs");
    cluster.gateways.iter_mut().chain(&mut cluster.bridges).for_each(crate::cluster::Role::stop);
    for bridge in &cluster.bridges {
        let log: PathBuf = bridge.data_dir().join("log");
        let failed = |source| FailoverError::Io { what: format!("log cat {}", log.display()), source };
        let mut child = Command::new(cluster.program())
            .args(["log", "cat", "--json"])
            .arg(&log)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            records::read(BufReader::new(stdout), |record| result.observe(record)).map_err(failed)?;
        }
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            // What it wrote may be only part of the log, which would look like loss.
            return Err(failed(std::io::Error::other(status.to_string())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_one_fleet_without_gaps() {
        let plan = FailoverPlan { devices: 31_001, ..FailoverPlan::default() };
        let parts = plan.parts().unwrap();
        assert_eq!(parts.len(), 3);
        let mut next = 0;
        for part in &parts {
            assert_eq!((part.first_device, part.run), (next, parts[0].run));
            assert!(part.devices <= DEVICES_PER_PART);
            next += part.devices;
        }
        assert_eq!(next, 31_001);
        let pushes: f64 = parts.iter().map(|part| part.pushes_per_s).sum();
        assert!((pushes - 100.0).abs() < 1e-6, "{pushes}");
    }

    #[test]
    fn devices_of_the_dead_fit_where_they_are_sent() {
        let plan = FailoverPlan::default();
        let weights = plan.return_weights();
        assert_eq!((plan.orphans(), weights.as_slice()), (15_000, &[3_000, 3_000, 3_000, 18_000][..]));
        // Of the survivors' 24,000 places.
        let (room, spare): (u32, u32) = (weights[1..3].iter().sum(), weights[3]);
        assert!(plan.orphans() <= u64::from(room + spare));
    }

    #[test]
    fn a_plan_that_cannot_be_is_refused_by_its_key() {
        let error = FailoverPlan { devices: 0, ..FailoverPlan::default() }.parts().unwrap_err();
        assert_eq!(error.to_line(&[("devices", "--devices")]), "--devices 0: must be between 1 and 1000000");
    }
}
