//! The commands that measure brokers, Holdfast or others, beside each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Done, print, say};
use crate::bench::{self, BenchPlan, Contender, Measure, Processes, Reexec, Target};

#[derive(Debug, Clone, Args)]
struct PlanArgs {
    /// Measures, all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// A tenth of the size: to see that everything runs, not for figures
    #[arg(long)]
    quick: bool,
    /// Connects on their way at once
    #[arg(long)]
    connects_in_flight: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct CompareArgs {
    /// Brokers in the order of their columns
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = default_brokers())]
    brokers: Vec<Broker>,
    /// Mosquitto's binary
    #[arg(long, default_value = "mosquitto")]
    mosquitto: PathBuf,
    /// Holdfast's binary; this program by default
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Print a Markdown table with the goals and whether they are reached; the plain one goes to standard error
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    /// MQTT address
    #[arg(long)]
    mqtt: SocketAddr,
    /// WebSocket address
    #[arg(long)]
    ws: Option<SocketAddr>,
    /// Whether it speaks Holdfast's JSON protocol
    #[arg(long)]
    with_json: bool,
    /// Processes whose memory and CPU count
    #[arg(long, value_delimiter = ',', required = true)]
    pid: Vec<u32>,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Broker {
    Floor,
    Mosquitto,
    Rumqttd,
    Holdfast,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Served {
    Floor,
    Rumqttd,
}

fn default_brokers() -> Vec<Broker> {
    let all = [Broker::Floor, Broker::Mosquitto, Broker::Rumqttd, Broker::Holdfast];
    all.into_iter().filter(|broker| *broker != Broker::Rumqttd || cfg!(feature = "rumqttd")).collect()
}

pub(super) fn compare(args: &CompareArgs, reexec: &Reexec) -> ExitCode {
    let contenders: Vec<Contender> = args
        .brokers
        .iter()
        .map(|broker| match broker {
            Broker::Floor => Contender::Floor,
            Broker::Mosquitto => Contender::Mosquitto { binary: args.mosquitto.clone() },
            Broker::Rumqttd => Contender::Rumqttd,
            Broker::Holdfast => Contender::Holdfast {
                program: args.holdfast.clone().unwrap_or_else(|| reexec.program.clone()),
                arguments: vec!["dev".into()],
            },
        })
        .collect();
    let comparison = bench::compare(&args.plan.to_plan(), &contenders, reexec, say);
    if args.markdown {
        say(&comparison.to_text());
        print(&comparison.to_markdown());
    } else {
        print(&if args.plan.json { comparison.to_json() } else { comparison.to_text() });
    }
    ExitCode::from(u8::from(!comparison.is_complete()))
}

pub(super) fn bench(args: &BenchArgs) -> ExitCode {
    let processes = Processes::new(args.pid.clone());
    let processes = if args.with_json {
        processes.with_gateway_threads(bench::HOLDFAST_GATEWAY_THREADS)
    } else {
        processes
    };
    let target =
        Target { name: args.mqtt.to_string(), mqtt: args.mqtt, ws: args.ws, json: args.with_json, processes };
    let table = bench::run(&args.plan.to_plan(), &target, say);
    let comparison = bench::compare::Comparison { tables: vec![table], absent: Vec::new() };
    print(&if args.plan.json { comparison.to_json() } else { comparison.to_text() });
    ExitCode::from(u8::from(!comparison.is_complete()))
}

pub(super) fn serve(broker: Served, mqtt: SocketAddr, ws: Option<SocketAddr>) -> Done {
    // A comparison that is killed leaves no broker behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| error.to_string())?;
    let served = match broker {
        Served::Floor => bench::serve_floor(mqtt, |_| ()),
        #[cfg(feature = "rumqttd")]
        Served::Rumqttd => bench::serve_rumqttd(mqtt, ws),
        #[cfg(not(feature = "rumqttd"))]
        Served::Rumqttd => {
            let _ = ws;
            return Err("this program was built without the feature rumqttd".to_owned());
        }
    };
    served.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

impl PlanArgs {
    fn to_plan(&self) -> BenchPlan {
        let mut plan = if self.quick { BenchPlan::quick() } else { BenchPlan::default() };
        if !self.only.is_empty() {
            plan.measures.clone_from(&self.only);
        }
        plan.connects_in_flight = self.connects_in_flight.unwrap_or(plan.connects_in_flight).max(1);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::super::LoadgenCommand;
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn measures_and_brokers_are_lists() {
        let Ok(LoadgenCommand::Compare(args)) = parse("compare --brokers floor,mosquitto --only idle,push")
        else {
            panic!("it parses");
        };
        assert_eq!(args.brokers, [Broker::Floor, Broker::Mosquitto]);
        assert_eq!(args.plan.to_plan().measures, [Measure::Idle, Measure::Push]);
        assert!(parse("compare --only nothing").is_err());
        assert!(parse("compare --markdown --only push-qos1").is_ok());
        assert!(parse("compare --markdown --json").is_err());
    }
}
