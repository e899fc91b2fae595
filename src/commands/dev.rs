//! `holdfast dev`: gateway and bridge in one process, until it is told to end.

use std::io;
use std::process::ExitCode;

use clap::Args;
use holdfast_gateway::Addresses;

use crate::assembly::DevAssembly;
use crate::config::{DevFlags, Role, load};
use crate::failure::Failure;
use crate::process::{Process, end_in_order, reload_on_signal, say_drained};
use crate::ready_file::Ready;

/// Arguments of `holdfast dev`.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    config: DevFlags,
    /// Ends when the process with this id, which started it, does
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<i32>,
}

/// Runs it until SIGTERM, SIGINT or `POST /drain`; then drains and exits with 0.
pub(crate) fn run(arguments: &DevArgs) -> Result<ExitCode, Failure> {
    let loaded = load(&arguments.config, std::env::vars_os()).map_err(Failure::refused)?;
    let settings = loaded.validate(Role::Dev).map_err(Failure::refused)?;
    let mut process = Process::begin(Role::Dev, &settings, arguments.end_with)?;
    let (gateway, push_topic) = (settings.gateway.clone(), settings.bridge.push.topic.clone());

    let assembly = DevAssembly::start(settings, &process).map_err(Failure::refused)?;
    let drain = assembly.drain_trigger();
    end_in_order(&drain)?;
    let reloader = assembly.reloader();
    reload_on_signal(&arguments.config, Role::Dev, &loaded, move |settings| {
        reloader.reload(&settings.gateway);
    })?;
    process.say_open_files(&loaded, &gateway, assembly.connections_max());
    announce(&assembly, &push_topic);
    process.publish(&ready(&assembly))?;

    drain.wait();
    process.withdraw();
    say_drained(assembly.stop())
}

fn ready(assembly: &DevAssembly) -> Ready {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    let (pid, node) = (std::process::id(), assembly.node().to_string());
    Ready { mqtt, ws, admin, push: admin, link: None, pid, node }
}

/// The device of the `curl` line.
const EXAMPLE_DEVICE: &str = "sensor-1";

/// Says on standard output where it listens, and how to push.
fn announce(assembly: &DevAssembly, push_topic: &str) {
    // Whoever started us may not listen.
    let _ = write_announcement(&mut io::stdout().lock(), assembly, push_topic);
}

fn write_announcement(out: &mut dyn io::Write, assembly: &DevAssembly, push_topic: &str) -> io::Result<()> {
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
