//! The load tool's command line, for the binary to mount as `holdfast loadgen`. Each file has the commands of one kind: `scenario` judges, `cluster`
//! starts Holdfast's processes itself, `brokers` compares.

mod brokers;
mod cluster;
mod scenario;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::brokers::{BenchArgs, CompareArgs, Served};
use self::cluster::{FailoverArgs, HoldArgs, IdleArgs, PartArgs, WayArgs};
use self::scenario::{RunArgs, VerifyArgs};
use crate::bench::Reexec;

/// Exit status for a command that could not be carried out, as opposed to a verdict that failed (1).
const EXIT_UNUSABLE: u8 = 2;

/// Simulated devices, the verdict on a gateway, and figures of brokers.
#[derive(Debug, Clone, Args)]
pub struct LoadgenArgs {
    #[command(subcommand)]
    command: LoadgenCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum LoadgenCommand {
    /// Run a scenario against a gateway and compare the devices' ledger with the log
    Run(RunArgs),
    /// Judge a run later, by the ledger that it wrote
    Verify(VerifyArgs),
    /// Check a scenario file and print it with all defaults
    Check {
        /// Scenario in TOML
        scenario: PathBuf,
    },
    /// Measure several brokers with the same plan, side by side
    Compare(CompareArgs),
    /// Measure one broker that runs already
    Bench(BenchArgs),
    /// Measure the whole way, device to Kafka to PUBACK, beside librdkafka's own producer
    Kafka(Box<WayArgs>),
    /// Measure what silent connections cost: CPU and memory
    Idle(Box<IdleArgs>),
    /// Kill one of several gateways under a fleet, and judge what became of its devices
    Failover(Box<FailoverArgs>),
    /// Be a part of the fleet of `failover`
    #[command(hide = true)]
    Part(PartArgs),
    /// Hold silent connections for `idle`
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Serve a broker for `compare`
    #[command(hide = true)]
    Serve {
        broker: Served,
        #[arg(long)]
        mqtt: SocketAddr,
        #[arg(long)]
        ws: Option<SocketAddr>,
    },
}

/// Carries the command out. `reexec` says how this program reaches this very command line again.
pub fn run(args: LoadgenArgs, reexec: &Reexec) -> ExitCode {
    let done = match args.command {
        LoadgenCommand::Run(args) => scenario::run(&args),
        LoadgenCommand::Verify(args) => scenario::verify(&args),
        LoadgenCommand::Check { scenario } => scenario::check(&scenario),
        LoadgenCommand::Compare(args) => Ok(brokers::compare(&args, reexec)),
        LoadgenCommand::Bench(args) => Ok(brokers::bench(&args)),
        LoadgenCommand::Kafka(args) => cluster::kafka(&args, reexec),
        LoadgenCommand::Idle(args) => cluster::idle(&args, reexec),
        LoadgenCommand::Hold(args) => cluster::hold(&args),
        LoadgenCommand::Failover(args) => cluster::failover(&args, reexec),
        LoadgenCommand::Part(args) => cluster::part(&args),
        LoadgenCommand::Serve { broker, mqtt, ws } => brokers::serve(broker, mqtt, ws),
    };
    done.unwrap_or_else(|line| {
        say(&line);
        ExitCode::from(EXIT_UNUSABLE)
    })
}

/// An error is one line for the user.
type Done = Result<ExitCode, String>;

/// A closed pipe is the reader's choice, not an error of ours.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
