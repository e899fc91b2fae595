//! `holdfast loadgen`: the load tool's own command line.

use std::process::ExitCode;

use holdfast_loadgen::bench::Reexec;
use holdfast_loadgen::cli;
pub(crate) use holdfast_loadgen::cli::LoadgenArgs;

use crate::failure::Failure;
use crate::open_files;

/// Runs it. It prints its own errors, one line each.
pub(crate) fn run(arguments: LoadgenArgs) -> Result<ExitCode, Failure> {
    // Each simulated device is a file.
    open_files::raise_limit();
    let program = std::env::current_exe().map_err(Failure::failed)?;
    Ok(cli::run(arguments, &Reexec { program, arguments: vec!["loadgen".into()] }))
}
