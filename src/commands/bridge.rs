//! `holdfast bridge`: a bridge of its own, until it is told to end.

use std::io;
use std::process::ExitCode;

use clap::Args;

use crate::assembly::BridgeAssembly;
use crate::config::{BridgeFlags, BridgeListen, Role, load};
use crate::failure::Failure;
use crate::process::{Process, end_in_order, reload_on_signal};
use crate::ready_file::Ready;

/// Arguments of `holdfast bridge`.
#[derive(Args, Debug)]
pub(crate) struct BridgeArgs {
    #[command(flatten)]
    config: BridgeFlags,
    /// Ends when the process with this id, which started it, does
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<i32>,
}

/// Runs it until SIGTERM, SIGINT or `POST /drain`; then drains and exits with 0.
pub(crate) fn run(arguments: &BridgeArgs) -> Result<ExitCode, Failure> {
    let loaded = load(&arguments.config, std::env::vars_os()).map_err(Failure::refused)?;
    let settings = loaded.validate(Role::Bridge).map_err(Failure::refused)?;
    let mut process = Process::begin(Role::Bridge, &settings, arguments.end_with)?;

    let assembly = BridgeAssembly::start(settings, process.recorder()).map_err(Failure::refused)?;
    let drain = assembly.drain_trigger();
    end_in_order(&drain)?;
    // A bridge has nothing that it could change while it runs, and must not end for being asked.
    reload_on_signal(&arguments.config, Role::Bridge, &loaded, |_| ())?;
    let BridgeListen { link, admin, push } = assembly.addresses();
    announce(&assembly);
    process.publish(&Ready {
        mqtt: None,
        ws: None,
        admin: Some(admin),
        push,
        link: Some(link),
        pid: std::process::id(),
        node: assembly.id().to_string(),
    })?;

    drain.wait();
    process.withdraw();
    if assembly.stop() {
        tracing::info!("drained: everything received is settled");
    } else {
        tracing::warn!("the drain ran out of time; gateways send what is unsettled to another bridge");
    }
    Ok(ExitCode::SUCCESS)
}

/// Says on standard output where it listens. Whoever started us may not listen.
fn announce(assembly: &BridgeAssembly) {
    let _ = write_announcement(&mut io::stdout().lock(), assembly);
}

fn write_announcement(out: &mut dyn io::Write, assembly: &BridgeAssembly) -> io::Result<()> {
    let BridgeListen { link, admin, push } = assembly.addresses();
    writeln!(out, "holdfast {} bridge {}", env!("CARGO_PKG_VERSION"), assembly.id())?;
    writeln!(out, "  links   {link}")?;
    writeln!(out, "  admin   http://{admin}/metrics /readyz")?;
    if let Some(push) = push {
        writeln!(out, "  pushes  http://{push}/v1/push")?;
    }
    out.flush()
}
