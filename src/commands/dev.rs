//! `holdfast dev`: gateway and bridge in one process, until it is told to end.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast_gateway::{Addresses, logging, metrics};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::assembly::Assembly;
use crate::config::{ConfigFlags, Loaded, load};
use crate::failure::Failure;
use crate::open_files;
use crate::ready_file::{Ready, ReadyFile};
use crate::signals::drain_on_signal;
use crate::upkeep::Upkeep;

/// Arguments of `holdfast dev`.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Ends when the process with this id, which started it, does
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<i32>,
}

/// Runs it until SIGTERM, SIGINT or `POST /drain`; then drains and exits with 0.
pub(crate) fn run(arguments: &DevArgs) -> Result<ExitCode, Failure> {
    let loaded = load(&arguments.config, std::env::vars_os()).map_err(Failure::refused)?;
    let settings = loaded.validate().map_err(Failure::refused)?;
    logging::init(&settings.log);
    if let Some(parent) = arguments.end_with {
        end_with(parent)?;
    }
    let connections_max =
        u64::from(settings.gateway.shards) * u64::from(settings.gateway.engine.limits.connections_max);
    let files = open_files::raise_limit();
    let recorder = metrics::install_recorder().map_err(Failure::failed)?;
    let upkeep = Upkeep::start(recorder.clone()).map_err(Failure::failed)?;
    let ready_file = settings.ready_file.clone().map(prepare_ready_file).transpose()?;
    let push_topic = settings.bridge.push.topic.clone();

    let assembly = Assembly::start(settings, recorder).map_err(Failure::refused)?;
    end_on_panic();
    let drain = assembly.drain_trigger();
    drain_on_signal(drain.clone()).map_err(Failure::failed)?;
    say_open_files(files, &loaded, connections_max);
    announce(&assembly, &push_topic);
    if let Some(file) = &ready_file {
        file.publish(&ready(&assembly)).map_err(Failure::failed)?;
    }

    drain.wait();
    tracing::info!("draining");
    drop(ready_file);
    let drained = assembly.stop();
    drop(upkeep);
    if drained.complete {
        tracing::info!("drained: everyone heard a goodbye and nothing is owed");
    } else {
        tracing::warn!(
            cut = drained.cut,
            "the drain ran out of time; what was not acknowledged will be sent again"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit status after a panic (`EX_SOFTWARE` of sysexits).
const PANICKED: i32 = 70;

/// A part that has panicked would be missed by the others for ever: the process ends, and whoever supervises it starts a whole one. Nothing
/// that was acknowledged is lost by that.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(PANICKED);
    }));
}

/// So that a gateway that was started for somebody does not outlive them, however they end.
fn end_with(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(Failure::failed)?;
    // It may have ended before the kernel was asked to tell.
    let parent_now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent_now == Some(parent) { Ok(()) } else { Err(Failure::failed("who started this process is gone")) }
}

/// Connections are files. A bound that somebody chose and the system does not allow is worth a warning.
fn say_open_files(files: Option<u64>, loaded: &Loaded, connections_max: u64) {
    let Some(files) = files else { return };
    if files >= connections_max {
        return;
    }
    if loaded.is_set("limits.connections_max") {
        tracing::warn!(
            files,
            connections_max,
            "the limit of open files (ulimit -n) is lower than limits.connections_max in all shards"
        );
    } else {
        tracing::info!(files, "the limit of open files (ulimit -n) bounds the connections");
    }
}

fn prepare_ready_file(file: PathBuf) -> Result<ReadyFile, Failure> {
    let shown = file.display().to_string();
    ReadyFile::prepare(file).map_err(|error| {
        Failure::refused(format!(
            "ready_file = {shown}: {error}; it must be a file that this process may write"
        ))
    })
}

fn ready(assembly: &Assembly) -> Ready {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    Ready { mqtt, ws, admin, push: admin, pid: std::process::id(), node: assembly.node().to_string() }
}

/// The device of the `curl` line.
const EXAMPLE_DEVICE: &str = "sensor-1";

/// Says on standard output where it listens, and how to push.
fn announce(assembly: &Assembly, push_topic: &str) {
    // Whoever started us may not listen.
    let _ = write_announcement(&mut io::stdout().lock(), assembly, push_topic);
}

fn write_announcement(out: &mut dyn io::Write, assembly: &Assembly, push_topic: &str) -> io::Result<()> {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    writeln!(out, "holdfast {}, node {}", env!("CARGO_PKG_VERSION"), assembly.node())?;
    if let Some(mqtt) = mqtt {
        writeln!(out, "  MQTT                 {mqtt}")?;
    }
    if let Some(ws) = ws {
        writeln!(out, "  MQTT over WebSocket  ws://{ws}/mqtt")?;
        writeln!(out, "  JSON over WebSocket  ws://{ws}/v1/devices/{{client_id}}/socket")?;
    }
    if let Some(admin) = admin {
        writeln!(out, "  admin                http://{admin}/metrics /readyz /v1/devices/{{client_id}}")?;
        let topic = push_topic.replace("{client_id}", EXAMPLE_DEVICE);
        writeln!(out, "\nA push to a device {EXAMPLE_DEVICE} that is subscribed to {topic}:")?;
        let body = format!(r#"{{"device":"{EXAMPLE_DEVICE}","payload":"hello"}}"#);
        writeln!(out, "  curl -s http://{admin}/v1/push -d '{body}'\n")?;
    }
    out.flush()
}
