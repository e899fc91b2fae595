//! `holdfast gateway`: a node of its own, until it is told to end.

use std::io;
use std::process::ExitCode;

use clap::Args;
use holdfast_gateway::Addresses;

use crate::assembly::GatewayAssembly;
use crate::config::{GatewayFlags, Role, load};
use crate::failure::Failure;
use crate::process::{Process, end_in_order, reload_on_signal, say_drained};
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
    let mut process = Process::begin(Role::Gateway, &settings, arguments.end_with)?;
    let gateway = settings.gateway.clone();

    let mut assembly = GatewayAssembly::start(settings, &process).map_err(Failure::refused)?;
    let drain = assembly.drain_trigger();
    end_in_order(&drain)?;
    let reloader = assembly.reloader();
    reload_on_signal(&arguments.config, Role::Gateway, &loaded, move |settings| {
        reloader.reload(&settings.gateway);
    })?;
    process.say_open_files(&loaded, &gateway, assembly.connections_max());
    announce(&assembly);
    let waits = !assembly.has_links();
    if assembly.admit().map_err(Failure::failed)? {
        if waits {
            tracing::info!("every shard has a link to a bridge; devices are admitted");
        }
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

/// Says on standard output where it listens. Whoever started us may not listen.
fn announce(assembly: &GatewayAssembly) {
    let _ = write_announcement(&mut io::stdout().lock(), assembly);
}

fn write_announcement(out: &mut dyn io::Write, assembly: &GatewayAssembly) -> io::Result<()> {
    let Addresses { mqtt, ws, admin } = assembly.addresses();
    writeln!(out, "holdfast {} gateway, node {}", env!("CARGO_PKG_VERSION"), assembly.node())?;
    if !assembly.has_links() {
        writeln!(
            out,
            "  devices are admitted once every shard has a link to a bridge; until then only the admin address is open"
        )?;
    }
    if let Some(mqtt) = mqtt {
        writeln!(out, "  MQTT                 {mqtt}")?;
    }
    if let Some(ws) = ws {
        writeln!(out, "  MQTT over WebSocket  ws://{ws}/mqtt")?;
        writeln!(out, "  JSON over WebSocket  ws://{ws}/v1/devices/{{client_id}}/socket")?;
    }
    if let Some(admin) = admin {
        writeln!(out, "  admin                http://{admin}/metrics /readyz /v1/devices/{{client_id}}")?;
    }
    out.flush()
}
