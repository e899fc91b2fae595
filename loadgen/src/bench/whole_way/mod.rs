//! The whole way of a frame, device → gateway → bridge → Kafka → PUBACK, beside librdkafka's own producer with the same records in the same run.
//!
//! Everything shares one machine, so what binds is the ratio. Phases of both alternate, in every other round the other way round, and a broker that
//! was just started is warmed up before, so that neither of the two pays for its compiler. What goes flat out comes last: it leaves hundreds of megabytes
//! that the system writes to the disk long afterwards. Latencies are compared round by round, as a machine that stands still for a fifth of a second makes
//! the 99th percentile of a whole run. A PUBACK counts only if the topic has grown by it: a gateway that leads elsewhere has no figure. `devices` drives connections, `own` the producer,
//! `report` has the goals.

mod devices;
mod own;
mod report;

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub use self::report::WayReport;
use super::measures::latencies_us;
use super::swarm::{PATIENCE, Swarm};
use super::{BenchError, Processes};
use crate::kafka::{self, KafkaReadError, KafkaSource, ProducerError, ProducerPlan};

/// For gateway and brokers to be done with the phase before.
const PAUSE: Duration = Duration::from_millis(700);

/// What is measured.
#[derive(Debug, Clone)]
pub struct WayPlan {
    /// Frames a second of the open loops; they come before the one that goes flat out.
    pub rates: Vec<u32>,
    /// Whether it comes.
    pub flat_out: bool,
    /// Connections that share each rate.
    pub connections: usize,
    /// Connections flat out.
    pub flat_out_connections: usize,
    /// Unacknowledged frames of each. The producer has its own bound, which is larger.
    pub inflight: u16,
    /// Payload bytes.
    pub payload_bytes: usize,
    /// Before the measured part of each phase.
    pub warm_up: Duration,
    /// The measured part.
    pub duration: Duration,
    /// Times that everything is measured; CPU and frames are of all rounds together, latencies of the median round.
    pub rounds: u32,
}

/// What is there to measure.
#[derive(Debug, Clone)]
pub struct WayTarget {
    /// The gateway.
    pub mqtt: SocketAddr,
    /// The producer's settings, which are the bridge's.
    pub producer: ProducerPlan,
    /// Each process that serves, and what it is called; `bridge` must be among them.
    pub processes: Vec<(&'static str, Processes)>,
}

/// A whole way that could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// On the devices' side.
    #[error("devices: {0}")]
    Devices(#[from] BenchError),
    /// On librdkafka's.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The topic cannot be asked.
    #[error(transparent)]
    Kafka(#[from] KafkaReadError),
    /// Frames were acknowledged that are not in the topic.
    #[error(
        "{acked} frames were acknowledged, and {topic} has grown by {grown} records: the gateway leads elsewhere, or acknowledges what is not there"
    )]
    Elsewhere {
        /// Acknowledged.
        acked: u64,
        /// Where they should be.
        topic: String,
        /// New records.
        grown: u64,
    },
    /// Too little was sent, or nothing came back.
    #[error("not a single frame in the measured part of {0}")]
    Nothing(String),
}

/// The name of the process whose CPU is compared with librdkafka's.
pub const BRIDGE: &str = "bridge";

impl Default for WayPlan {
    fn default() -> Self {
        Self {
            rates: vec![10_000, 30_000],
            flat_out: true,
            connections: 5_000,
            flat_out_connections: 1_000,
            inflight: 16,
            payload_bytes: 128,
            warm_up: Duration::from_secs(3),
            duration: Duration::from_secs(6),
            rounds: 2,
        }
    }
}

impl WayPlan {
    /// Small and short: to see that everything runs, not for figures.
    pub fn quick() -> Self {
        Self {
            rates: vec![500],
            connections: 50,
            flat_out_connections: 20,
            warm_up: Duration::from_millis(300),
            duration: Duration::from_millis(700),
            rounds: 1,
            ..Self::default()
        }
    }

    /// Whether a measurement that began at `since` goes on: for its time, and on a machine that stood still until there is anything to count.
    fn goes_on(&self, since: Instant, counted: u64) -> bool {
        let elapsed = since.elapsed();
        elapsed < self.duration || counted == 0 && elapsed < self.duration + PATIENCE
    }

    fn unsettled_max(&self) -> u64 {
        self.flat_out_connections as u64 * u64::from(self.inflight)
    }
}

/// What a phase gave.
#[derive(Debug, Clone)]
struct Phase {
    frames: u64,
    seconds: f64,
    /// CPU of each process, in us.
    cpu_us: Vec<(&'static str, u64)>,
    /// From the moment a frame was due; empty flat out.
    latencies_us: Histogram<u64>,
    /// From that moment to the one at which the driver came to it; empty flat out.
    late_us: Histogram<u64>,
}

/// Both ways at one rate; `None`: flat out.
#[derive(Debug, Clone)]
struct Pair {
    rate: Option<u32>,
    rounds: Vec<Round>,
}

/// Both ways, one just after the other.
#[derive(Debug, Clone)]
struct Round {
    own: Phase,
    way: Phase,
}

/// Measures everything. Blocks.
pub fn run(plan: &WayPlan, target: &WayTarget, mut say: impl FnMut(&str)) -> Result<WayReport, WayError> {
    say("warming up");
    own::run(plan, target, None)?;
    let rates = plan.rates.iter().copied().map(Some).chain(plan.flat_out.then_some(None));
    let mut pairs: Vec<Pair> = rates.map(|rate| Pair { rate, rounds: Vec::new() }).collect();
    let (open_loops, flat_out) = pairs.split_at_mut(plan.rates.len());
    for pairs in [open_loops, flat_out] {
        for round in 1..=plan.rounds {
            for pair in &mut *pairs {
                say(&format!("round {round} of {}: {}", plan.rounds, name(pair.rate)));
                pair.rounds.push(run_round(plan, target, pair.rate, round.is_multiple_of(2))?);
            }
        }
    }
    Ok(WayReport::new(pairs))
}

/// `way_first`: the whole way goes before the producer.
fn run_round(
    plan: &WayPlan,
    target: &WayTarget,
    rate: Option<u32>,
    way_first: bool,
) -> Result<Round, WayError> {
    let own = || {
        sleep(PAUSE);
        own::run(plan, target, rate)?.of_something(rate, "librdkafka's own producer")
    };
    let way = || {
        sleep(PAUSE);
        target.counted(|| devices::run(plan, target, rate))?.of_something(rate, "the whole way")
    };
    Ok(if way_first {
        let way = way()?;
        Round { own: own()?, way }
    } else {
        Round { own: own()?, way: way()? }
    })
}

fn name(rate: Option<u32>) -> String {
    rate.map_or_else(|| "flat out".to_owned(), |rate| format!("{rate}/s"))
}

impl WayTarget {
    /// A phase of which every acknowledged frame is in the topic. What the producer still had under way may be too.
    fn counted(&self, phase: impl FnOnce() -> Result<Phase, BenchError>) -> Result<Phase, WayError> {
        let ProducerPlan { brokers, topic, .. } = &self.producer;
        let source = KafkaSource {
            brokers: brokers.clone(),
            topic: topic.clone(),
            settings: Vec::new(),
            patience: PATIENCE,
        };
        let before = kafka::written(&source)?;
        let phase = phase()?;
        let grown = kafka::written(&source)?.saturating_sub(before);
        if grown < phase.frames {
            return Err(WayError::Elsewhere { acked: phase.frames, topic: topic.clone(), grown });
        }
        Ok(phase)
    }
}

impl Phase {
    fn of_something(self, rate: Option<u32>, what: &str) -> Result<Self, WayError> {
        if self.frames == 0 {
            return Err(WayError::Nothing(format!("{}: {what}", name(rate))));
        }
        Ok(self)
    }

    /// All together; nothing of none.
    fn sum<'a>(phases: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut phases = phases.into_iter();
        let none = || Self {
            frames: 0,
            seconds: 0.0,
            cpu_us: Vec::new(),
            latencies_us: latencies_us(),
            late_us: latencies_us(),
        };
        let mut sum = phases.next().cloned().unwrap_or_else(none);
        phases.for_each(|phase| sum.add(phase));
        sum
    }

    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.seconds += other.seconds;
        for ((_, sum), (_, more)) in self.cpu_us.iter_mut().zip(&other.cpu_us) {
            *sum += more;
        }
        // Both have the same bounds.
        let _ = self.latencies_us.add(&other.latencies_us);
        let _ = self.late_us.add(&other.late_us);
    }

    fn per_s(&self) -> f64 {
        self.frames as f64 / self.seconds
    }

    fn cpu_us_each(&self, name: &str) -> Option<f64> {
        let (_, us) = self.cpu_us.iter().find(|(of, _)| *of == name)?;
        Some(*us as f64 / self.frames.max(1) as f64)
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.latencies_us.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// How much CPU each process spent since it was last asked.
struct Meter<'a> {
    processes: &'a [(&'static str, Processes)],
    before: Vec<u64>,
}

impl<'a> Meter<'a> {
    fn start(processes: &'a [(&'static str, Processes)]) -> Result<Self, BenchError> {
        Ok(Self { processes, before: Self::read(processes)? })
    }

    fn stop(self) -> Result<Vec<(&'static str, u64)>, BenchError> {
        let now = Self::read(self.processes)?;
        let spent = now.iter().zip(&self.before).map(|(now, before)| now.saturating_sub(*before));
        Ok(self.processes.iter().map(|(name, _)| *name).zip(spent).collect())
    }

    fn read(processes: &[(&'static str, Processes)]) -> Result<Vec<u64>, BenchError> {
        processes.iter().map(|(_, processes)| Ok(processes.spent()?.whole.us)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_frames_that_are_not_in_the_topic_are_no_figure() {
        let kafka = kafka::mock::MockKafka::start("frames", 3);
        let producer = ProducerPlan {
            brokers: kafka.brokers(),
            topic: "frames".to_owned(),
            linger_ms: 1,
            compression: "none".to_owned(),
            batch_bytes_max: 1 << 20,
        };
        let target = WayTarget { mqtt: ([127, 0, 0, 1], 1).into(), producer, processes: Vec::new() };
        let phase = |frames| Phase {
            frames,
            seconds: 1.0,
            cpu_us: Vec::new(),
            latencies_us: latencies_us(),
            late_us: latencies_us(),
        };
        let acked_and_written = || {
            kafka.produce("frames", "device-0", [vec![1], vec![2]]);
            Ok(phase(2))
        };
        assert!(target.counted(acked_and_written).is_ok());
        let error = target.counted(|| Ok(phase(7))).unwrap_err().to_string();
        assert!(
            error.starts_with("7 frames were acknowledged, and frames has grown by 0 records"),
            "{error}"
        );
    }

    #[test]
    fn rounds_of_one_rate_add_up() {
        let mut latencies_us = latencies_us();
        latencies_us.saturating_record(1_000);
        let late_us = latencies_us.clone();
        let one = Phase { frames: 100, seconds: 1.0, cpu_us: vec![(BRIDGE, 500)], latencies_us, late_us };
        let other = Phase { frames: 300, cpu_us: vec![(BRIDGE, 700)], ..one.clone() };
        let sum = Phase::sum([&one, &other]);
        assert!((sum.per_s() - 200.0).abs() < 1e-9);
        assert_eq!(sum.cpu_us_each(BRIDGE), Some(3.0));
        assert_eq!((sum.cpu_us_each("gateway"), sum.latencies_us.len()), (None, 2));
    }
}
