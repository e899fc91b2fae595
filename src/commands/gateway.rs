//! `holdfast gateway`: a node of its own, until it is told to end.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use holdfast_gateway::Addresses;

use crate::assembly::GatewayAssembly;
use crate::config::{GatewayFlags, Role, load};
use crate::failure::Failure;
use crate::process::{Process, reload_on_signal, say_drained};
use crate::ready_file::Ready;

/// Arguments of `holdfast gateway`.
#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    config: GatewayFlags,
    /// Ends when the process with this id, which started it, does
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<i32>,
}

/// Runs it until SIGTERM, SIGINT or `POST /drain`; then drains and exits with 0.
pub(crate) fn run(arguments: &GatewayArgs) -> Result<ExitCode, Failure> {
    let loaded = load(&arguments.config, std::env::vars_os()).map_err(Failure::refused)?;
    let settings = loaded.validate(Role::Gateway).map_err(Failure::refused)?;
    let mut process = Process::begin(&settings.log, settings.ready_file.clone(), arguments.end_with)?;
    let gateway = settings.gateway.clone();

    let mut assembly = GatewayAssembly::start(settings, process.recorder()).map_err(Failure::refused)?;
    let drain = assembly.drain_trigger();
    process.drain_on_signal(&drain)?;
    let reloader = assembly.reloader();
    reload_on_signal(&arguments.config, Role::Gateway, move |settings| reloader.reload(&settings.gateway))?;
    process.say_open_files(&loaded, &gateway);
    announce(&assembly);
    if assembly.admit().map_err(Failure::failed)? {
        process.publish(&ready(&assembly))?;
    }

    drain.wait();
    process.withdraw();
    say_drained(assembly.stop())
}

fn ready(assembly: &GatewayAssembly) -> Ready {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    let (pid, node) = (std::process::id(), assembly.node().to_string());
    Ready { mqtt, ws, admin, push: None, link: None, pid, node }
}

/// Says on standard output where it listens.
fn announce(assembly: &GatewayAssembly) {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    let mut text = format!("holdfast {} gateway, node {}\n", env!("CARGO_PKG_VERSION"), assembly.node());
    let mut line = |what: &str, address: String| text += &format!("  {what:<21}{address}\n");
    if let Some(mqtt) = mqtt {
        line("MQTT", mqtt.to_string());
    }
    if let Some(ws) = ws {
        line("MQTT over WebSocket", format!("ws://{ws}/mqtt"));
        line("JSON over WebSocket", format!("ws://{ws}/v1/devices/{{client_id}}/socket"));
    }
    if let Some(admin) = admin {
        line("admin", format!("http://{admin}/metrics /readyz /v1/devices/{{client_id}}"));
    }
    // Whoever started us may not listen.
    let _ = io::stdout().write_all(text.as_bytes());
}
