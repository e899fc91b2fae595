//! `holdfast config print | check`: what the four layers come to, without starting anything.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::{DevFlags, Role, load};
use crate::failure::Failure;

/// Arguments of `holdfast config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prints every key as TOML, and who set those that are not defaults
    Print(RoleFlags),
    /// Says whether the role would take it
    Check(RoleFlags),
}

#[derive(Args, Debug)]
struct RoleFlags {
    /// What the process is to be
    #[arg(long, value_name = "ROLE", value_enum, default_value_t)]
    role: Role,
    #[command(flatten)]
    config: DevFlags,
}

/// Runs it.
pub(crate) fn run(arguments: &ConfigArgs) -> Result<ExitCode, Failure> {
    let (Action::Print(flags) | Action::Check(flags)) = &arguments.action;
    let loaded = load(&flags.config, std::env::vars_os()).map_err(Failure::refused)?;
    loaded.validate(flags.role).map_err(Failure::refused)?;
    let text = match arguments.action {
        Action::Print(_) => loaded.to_toml(),
        // What only a start can see is not claimed.
        Action::Check(_) => {
            "every key is valid; whether ports, data directory and servers can be had shows at the start\n"
                .to_owned()
        }
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
