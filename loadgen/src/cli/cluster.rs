//! The commands that start Holdfast's processes themselves, with Redis and Kafka.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Done, print, say};
use crate::bench::silence::{self, SilencePlan};
use crate::bench::whole_way::{self, BRIDGE, WayPlan, WayTarget};
use crate::bench::{Processes, Reexec};
use crate::cluster::{Cluster, ClusterPlan, SinkPlan};
use crate::failover::{self, FailoverError, FailoverPlan};
use crate::kafka::ProducerPlan;

/// What is started, and from what.
#[derive(Debug, Clone, Args)]
pub(super) struct ClusterArgs {
    /// Holdfast's binary; this program by default
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Folder of `kafka.sh`
    #[arg(long, value_name = "DIR", default_value = "e2e/services")]
    services: PathBuf,
    /// Kafka that runs, `HOST:PORT,…`; none: one broker is started
    #[arg(long)]
    kafka: Option<String>,
    /// Redis that runs, `redis://HOST:PORT`; none: one is started
    #[arg(long)]
    redis: Option<String>,
    /// Setting of each gateway's configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    gateway_set: Vec<String>,
    /// Setting of each bridge's configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    bridge_set: Vec<String>,
}

/// `loadgen kafka`
#[derive(Debug, Clone, Args)]
pub(super) struct WayArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Gateway that runs and leads to --kafka; none: Redis, a bridge and a gateway are started
    #[arg(long, value_name = "HOST:PORT", requires_all = ["kafka", "bridge_pid"])]
    mqtt: Option<SocketAddr>,
    /// Its process
    #[arg(long, value_name = "PID", requires = "mqtt")]
    gateway_pid: Option<u32>,
    /// Its bridge's process
    #[arg(long, value_name = "PID", requires = "mqtt")]
    bridge_pid: Option<u32>,
    /// Topic of its frames
    #[arg(long, default_value = "holdfast.frames")]
    kafka_topic: String,
    /// Frames a second of the open loops; one that goes flat out follows
    #[arg(long, value_delimiter = ',', default_values_t = WayPlan::default().rates, value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// Leave out what goes flat out
    #[arg(long)]
    rates_only: bool,
    /// `linger.ms` of both producers
    #[arg(long, default_value_t = 1)]
    linger_ms: u32,
    /// Compression of both
    #[arg(long, default_value = "lz4")]
    compression: String,
    /// Times that everything is measured
    #[arg(long, default_value_t = WayPlan::default().rounds, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measured part
    #[arg(long, default_value_t = WayPlan::default().duration.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Small and short: to see that everything runs, not for figures
    #[arg(long)]
    quick: bool,
    /// Print a Markdown table; the plain one goes to standard error
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `loadgen idle`
#[derive(Debug, Clone, Args)]
pub(super) struct IdleArgs {
    /// MQTT connections; each 18,000 get a process
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    connections: u32,
    /// Seconds of silence
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Gateway that runs; none: Redis, Kafka, a bridge and a gateway are started
    #[arg(long, value_name = "HOST:PORT", requires = "pid")]
    mqtt: Option<SocketAddr>,
    /// Processes whose CPU and memory are told
    #[arg(long, value_delimiter = ',', requires = "mqtt")]
    pid: Vec<u32>,
    /// Where the bridge puts frames
    #[arg(long, value_enum, default_value_t = Sink::Kafka)]
    sink: Sink,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `loadgen failover`
#[derive(Debug, Clone, Args)]
pub(super) struct FailoverArgs {
    /// Devices in all, each with a persistent session and a subscription, MQTT 3.1.1 and 5; each 15,000 get a process
    #[arg(long, default_value_t = FailoverPlan::default().devices)]
    devices: u32,
    /// Gateways that the devices begin with; the first of them is killed
    #[arg(long, default_value_t = FailoverPlan::default().homes, value_parser = clap::value_parser!(u32).range(2..=32))]
    gateways: u32,
    /// Further gateways, to which devices come only when they have lost theirs
    #[arg(long, default_value_t = FailoverPlan::default().spares, value_parser = clap::value_parser!(u32).range(0..=32))]
    spares: u32,
    /// Bridges
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=32))]
    bridges: u32,
    /// Where bridges put frames
    #[arg(long, value_enum, default_value_t = Sink::Kafka)]
    sink: Sink,
    /// Devices that connect in a second at the beginning
    #[arg(long, default_value_t = FailoverPlan::default().connects_per_s)]
    connects_per_s: f64,
    /// Seconds between two frames of a device; each is to be heard again after its return
    #[arg(long, default_value_t = 1.0 / FailoverPlan::default().frames_per_s)]
    frame_every_s: f64,
    /// Pushes to random devices in a second
    #[arg(long, default_value_t = FailoverPlan::default().pushes_per_s)]
    pushes_per_s: f64,
    /// Seconds of load before the kill, and again after everyone is back
    #[arg(long, default_value_t = FailoverPlan::default().hold.as_secs())]
    hold_s: u64,
    /// The goal: seconds from the first attempt to come back to CONNACK, 99th percentile
    #[arg(long, default_value_t = FailoverPlan::default().back_within.as_secs())]
    back_within_s: u64,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print a row for SPECIFICATION.md; the verdict goes to standard error
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `loadgen part`
#[derive(Debug, Clone, Args)]
pub(super) struct PartArgs {
    order: PathBuf,
}

/// `loadgen hold`
#[derive(Debug, Clone, Args)]
pub(super) struct HoldArgs {
    #[arg(long)]
    mqtt: SocketAddr,
    #[arg(long)]
    first: usize,
    #[arg(long)]
    connections: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sink {
    Kafka,
    Log,
}

/// Batches of both producers: the bridge's default.
const BATCH_BYTES_MAX: u32 = 512 << 10;

pub(super) fn kafka(args: &WayArgs, reexec: &Reexec) -> Done {
    let plan = if args.quick {
        WayPlan { flat_out: !args.rates_only, ..WayPlan::quick() }
    } else {
        let duration = std::time::Duration::from_secs(args.seconds);
        WayPlan {
            rates: args.rates.clone(),
            flat_out: !args.rates_only,
            rounds: args.rounds,
            duration,
            ..WayPlan::default()
        }
    };
    let producer = ProducerPlan {
        brokers: args.cluster.kafka.clone().unwrap_or_default(),
        topic: args.kafka_topic.clone(),
        linger_ms: args.linger_ms,
        compression: args.compression.clone(),
        batch_bytes_max: BATCH_BYTES_MAX,
    };
    let measured = match (args.mqtt, args.bridge_pid) {
        (Some(mqtt), Some(bridge)) => {
            let gateway = args.gateway_pid.map(|pid| ("gateway", Processes::new(vec![pid])));
            let bridge = (BRIDGE, Processes::new(vec![bridge]));
            let processes = gateway.into_iter().chain([bridge]).collect();
            whole_way::run(&plan, &WayTarget { mqtt, producer, processes }, say)
        }
        _ => {
            let cluster = args.start(reexec)?;
            let brokers = cluster.kafka.as_ref().map(|kafka| kafka.brokers().to_owned()).unwrap_or_default();
            let mqtt = cluster.gateways[0].mqtt().ok_or("the gateway opened no MQTT listener")?;
            let producer = ProducerPlan { brokers, ..producer };
            let processes = processes(&cluster);
            whole_way::run(&plan, &WayTarget { mqtt, producer, processes }, say)
        }
    };
    let report = measured.map_err(|error| error.to_string())?;
    if args.markdown {
        say(&report.to_text());
        print(&report.to_markdown());
    } else {
        print(&if args.json { report.to_json() } else { report.to_text() });
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn idle(args: &IdleArgs, reexec: &Reexec) -> Done {
    let plan = SilencePlan {
        connections: args.connections as usize,
        duration: std::time::Duration::from_secs(args.seconds),
    };
    let report = match args.mqtt {
        Some(mqtt) => {
            let processes: Vec<_> =
                args.pid.iter().map(|pid| (pid.to_string(), Processes::new(vec![*pid]))).collect();
            silence::run(plan, mqtt, &processes, reexec, say)
        }
        None => {
            let sink = args.cluster.sink(args.sink);
            let cluster =
                args.cluster.to_plan(reexec, sink, 1, 1).start().map_err(|error| error.to_string())?;
            let mqtt = cluster.gateways[0].mqtt().ok_or("the gateway opened no MQTT listener")?;
            let processes: Vec<_> =
                processes(&cluster).into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
            silence::run(plan, mqtt, &processes, reexec, say)
        }
    };
    let report = report.map_err(|error| error.to_string())?;
    print(&if args.json { report.to_json() } else { report.to_text() });
    Ok(ExitCode::SUCCESS)
}

pub(super) fn hold(args: &HoldArgs) -> Done {
    let held = silence::hold(args.mqtt, args.first, args.connections);
    held.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

pub(super) fn failover(args: &FailoverArgs, reexec: &Reexec) -> Done {
    for (option, value, allowed) in [
        ("--connects-per-s", args.connects_per_s, 0.1..=1e6),
        ("--frame-every-s", args.frame_every_s, 0.001..=120.0),
        ("--pushes-per-s", args.pushes_per_s, 0.0..=100_000.0),
    ] {
        if !allowed.contains(&value) {
            let (least, most) = (allowed.start(), allowed.end());
            return Err(format!("{option} {value}: must be {least} to {most}"));
        }
    }
    let plan = FailoverPlan {
        devices: args.devices,
        homes: args.gateways,
        spares: args.spares,
        connects_per_s: args.connects_per_s,
        frames_per_s: 1.0 / args.frame_every_s,
        pushes_per_s: args.pushes_per_s,
        hold: std::time::Duration::from_secs(args.hold_s),
        back_within: std::time::Duration::from_secs(args.back_within_s),
        ..FailoverPlan::default()
    };
    let sink = args.cluster.sink(args.sink);
    // How many gateways is in the other plan.
    let cluster = args.cluster.to_plan(reexec, sink, 0, args.bridges as usize);
    let outcome = failover::run(&plan, &cluster, reexec, say).map_err(|error| match error {
        FailoverError::Plan(error) => error.to_line(&[("devices", "--devices")]),
        error => error.to_string(),
    })?;
    if args.markdown {
        say(&outcome.to_string());
        print(&outcome.to_markdown());
    } else {
        print(&if args.json { outcome.to_json() } else { outcome.to_string() });
    }
    Ok(ExitCode::from(outcome.exit_status()))
}

pub(super) fn part(args: &PartArgs) -> Done {
    failover::serve_part(&args.order).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

impl WayArgs {
    /// One of each, the bridge with the producer's settings.
    fn start(&self, reexec: &Reexec) -> Result<Cluster, String> {
        let mut plan = self.cluster.to_plan(reexec, self.cluster.sink(Sink::Kafka), 1, 1);
        let settings = [
            format!("kafka.topic={}", self.kafka_topic),
            format!("kafka.linger_ms={}", self.linger_ms),
            format!("kafka.compression={}", self.compression),
            format!("kafka.batch_bytes_max={BATCH_BYTES_MAX}"),
        ];
        plan.bridge_settings.splice(0..0, settings);
        plan.start().map_err(|error| error.to_string())
    }
}

impl ClusterArgs {
    fn sink(&self, sink: Sink) -> SinkPlan {
        match sink {
            Sink::Log => SinkPlan::Log,
            Sink::Kafka => SinkPlan::Kafka { brokers: self.kafka.clone() },
        }
    }

    fn to_plan(&self, reexec: &Reexec, sink: SinkPlan, gateways: usize, bridges: usize) -> ClusterPlan {
        ClusterPlan {
            program: self.holdfast.clone().unwrap_or_else(|| reexec.program.clone()),
            services: self.services.clone(),
            gateways,
            bridges,
            sink,
            redis: self.redis.clone(),
            gateway_settings: self.gateway_set.clone(),
            bridge_settings: self.bridge_set.clone(),
        }
    }
}

/// Whose CPU is told, by name.
fn processes(cluster: &Cluster) -> Vec<(&'static str, Processes)> {
    let roles = |name, roles: &[crate::cluster::Role]| {
        (name, Processes::new(roles.iter().map(crate::cluster::Role::pid).collect()))
    };
    let mut all = vec![roles("gateway", &cluster.gateways), roles(BRIDGE, &cluster.bridges)];
    let services = [
        ("Kafka", cluster.kafka.as_ref().and_then(crate::cluster::Kafka::pid)),
        ("Redis", cluster.redis.pid()),
    ];
    all.extend(services.into_iter().filter_map(|(name, pid)| Some((name, Processes::new(vec![pid?])))));
    all
}
