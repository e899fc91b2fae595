//! `holdfast demo`: a gateway, a fleet of simulated devices, and a verdict on every frame.
//!
//! The gateway is a process of its own: if it crashes that shows, its CPU and memory can be told from the fleet's, and
//! the fleet sees nothing of it but its sockets and, at the end, its log.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_bridge::log::{Entry, LogReader};
use holdfast_loadgen::fleet::{self, FleetResult, Progress, Targets};
use holdfast_loadgen::ledger::ObservedRecord;
use holdfast_loadgen::plan::FleetPlan;
use holdfast_loadgen::verdict::Verdict;
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::dev_process::DevProcess;
use crate::failure::Failure;
use crate::open_files;

/// Arguments of `holdfast demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Simulated devices: a quarter each of MQTT 3.1.1, MQTT 5, MQTT over WebSocket, and JSON
    #[arg(long, value_name = "N", default_value_t = 1_000, allow_negative_numbers = true)]
    devices: u32,
    /// Seconds of load, after the devices have connected
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Prints the verdict as one JSON object, and no progress
    #[arg(long)]
    json: bool,
}

/// Frames a second over the whole fleet, at most: fleet and gateway share what may be two cores.
const FRAMES_PER_S_MAX: f64 = 5_000.0;
/// Frames a second that one device sends, if so many do not come together.
const FRAMES_PER_S_OF_A_DEVICE: f64 = 5.0;
/// Keys of the plan that were given by options.
const OPTIONS: [(&str, &str); 2] = [("devices", "--devices"), ("duration_s", "--seconds")];
const PUSHES_PER_S: f64 = 100.0;
/// Devices that connect in one second of the ramp.
const CONNECTS_PER_S: f64 = 1_000.0;
/// Files of either process beside one for each device.
const FILES_BESIDE_DEVICES: u64 = 256;
/// How often it is seen whether the gateway still runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// From SIGTERM to the gateway's end: its own deadline and some room.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// Runs it. Exits with 0 only if the verdict is good.
pub(crate) fn run(arguments: &DemoArgs) -> Result<ExitCode, Failure> {
    let plan = plan(arguments)?;
    let folder = tempfile::Builder::new().prefix("holdfast-demo-").tempdir().map_err(Failure::failed)?;
    let mut gateway = DevProcess::start(folder.path()).map_err(Failure::failed)?;
    let progress = if arguments.json { Progress::Silent } else { Progress::Auto };
    let mut result = drive(plan, &mut gateway, progress)?;
    let usage = Usage::of(&gateway);
    let log = gateway.log_directory();
    gateway.stop(STOP_WITHIN).map_err(Failure::failed)?;
    let damaged = observe(&mut result, &log).map_err(Failure::failed)?;
    if damaged > 0 {
        return Err(Failure::failed(format!("{damaged} records of the log cannot be read")));
    }
    let verdict = result.verdict();
    report(&verdict, &usage, arguments.json);
    Ok(ExitCode::from(verdict.exit_status()))
}

fn plan(arguments: &DemoArgs) -> Result<FleetPlan, Failure> {
    let devices = f64::from(arguments.devices);
    let plan = FleetPlan {
        devices: arguments.devices,
        duration_s: arguments.seconds,
        ramp_s: (devices / CONNECTS_PER_S).max(1.0),
        frames_per_s: (FRAMES_PER_S_MAX / devices.max(1.0)).min(FRAMES_PER_S_OF_A_DEVICE),
        pushes_per_s: PUSHES_PER_S,
        ..FleetPlan::default()
    };
    plan.check().map_err(|error| Failure::refused(error.to_line(&OPTIONS)))?;
    if let Some(files) = open_files::raise_limit() {
        let devices_max = files.saturating_sub(FILES_BESIDE_DEVICES);
        if u64::from(plan.devices) > devices_max {
            let allowed = format!("at most {devices_max} with the limit of {files} open files (ulimit -n)");
            return Err(Failure::refused(format!("--devices {}: {allowed}", plan.devices)));
        }
    }
    Ok(plan)
}

fn say_plan(plan: &FleetPlan, pid: u32) {
    eprintln!(
        "{} (MQTT 3.1.1, MQTT 5, MQTT over WebSocket, JSON): {:.0} frames/s for {} s, and {} pushes/s to them; \
         the gateway is process {pid}",
        if plan.devices == 1 { "1 device".to_owned() } else { format!("{} devices", plan.devices) },
        plan.frames_per_s_total(),
        plan.duration_s,
        plan.pushes_per_s,
    );
}

/// The fleet's whole life. An interrupt ends it without a verdict, and so does the end of the gateway.
fn drive(plan: FleetPlan, gateway: &mut DevProcess, progress: Progress) -> Result<FleetResult, Failure> {
    let ready = gateway.ready();
    let (Some(mqtt), Some(ws)) = (ready.mqtt, ready.ws) else {
        return Err(Failure::failed("the gateway opened no listeners"));
    };
    let (targets, pid) = (Targets::one(mqtt, ws, ready.push), ready.pid);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let told_to_end = told_to_end().map_err(Failure::failed)?;
        if progress != Progress::Silent {
            say_plan(&plan, pid);
        }
        tokio::select! {
            result = fleet::run(plan, targets, progress) => result.map_err(Failure::refused),
            how = ended(gateway) => Err(Failure::failed(how)),
            () = told_to_end => Err(Failure::failed("interrupted; nothing was judged")),
        }
    })
}

/// Says how the gateway ended, which it should not.
async fn ended(gateway: &mut DevProcess) -> String {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if let Some(how) = gateway.ended() {
            return how;
        }
    }
}

/// SIGINT or SIGTERM, which from this call on no longer end the process by themselves.
fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Reads the whole log into the ledger; returns how many records cannot be read.
fn observe(result: &mut FleetResult, log: &Path) -> Result<u64, holdfast_bridge::log::LogError> {
    let mut reader = LogReader::open(log)?;
    let mut damaged = 0;
    while let Some(entry) = reader.next_entry()? {
        match entry {
            Entry::Record(record) => result.observe(ObservedRecord {
                client_id: record.message.publisher,
                payload: record.message.payload,
                resent: record.dup || record.resent,
                partition: 0,
                offset: record.offset,
            }),
            Entry::Damaged(damage) => damaged += damage.missing.max(1),
        }
    }
    Ok(damaged)
}

/// What the gateway cost, over its whole life.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Usage {
    cpu_us: Option<u64>,
    resident_bytes_peak: Option<u64>,
}

impl Usage {
    fn of(gateway: &DevProcess) -> Self {
        Self { cpu_us: gateway.cpu().map(|cpu| cpu.us), resident_bytes_peak: gateway.resident_bytes_peak() }
    }
}

fn report(verdict: &Verdict, usage: &Usage, as_json: bool) {
    let text = if as_json {
        let mut object = json!(verdict);
        object["gateway"] = json!(usage);
        format!("{object:#}\n")
    } else {
        let seconds = usage.cpu_us.unwrap_or(0) as f64 / 1e6;
        let mib = usage.resident_bytes_peak.unwrap_or(0) as f64 / f64::from(1 << 20);
        format!("\n  gateway  CPU {seconds:.2} s   peak memory {mib:.1} MiB\n{verdict}")
    };
    // A reader that has gone does not change the verdict.
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(devices: u32, seconds: f64) -> DemoArgs {
        DemoArgs { devices, seconds, json: false }
    }

    #[test]
    fn a_larger_fleet_sends_as_much_in_all() {
        assert!((plan(&arguments(10, 3.0)).unwrap().frames_per_s_total() - 50.0).abs() < 1e-6);
        assert!((plan(&arguments(1_000, 3.0)).unwrap().frames_per_s_total() - 5_000.0).abs() < 1e-6);
        assert!((plan(&arguments(4_000, 3.0)).unwrap().frames_per_s_total() - 5_000.0).abs() < 1e-6);
    }

    #[test]
    fn no_devices_and_no_time_are_refused_by_name() {
        let line = |arguments| format!("{:?}", plan(&arguments).unwrap_err());
        assert!(line(arguments(0, 3.0)).contains("--devices 0: must be between 1 and 1000000"));
        assert!(line(arguments(5, -3.0)).contains("--seconds -3: must be more than 0 seconds"));
    }
}
