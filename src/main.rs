//! The one binary: a table of contents.
//!
//! `command_line` says which commands there are, `commands` holds one file for each, `config` is where their options end up, and
//! `assembly` puts gateway, bridge, store and log together into the processes that `holdfast dev`, `gateway` and `bridge` are, inside the frame
//! that `process` gives each of them. What any of the parts does stands in its own crate; nothing here knows a packet or a socket of a device.

#![forbid(unsafe_code)]

mod assembly;
mod command_line;
mod commands;
mod config;
mod dev_process;
#[cfg(test)]
mod documentation;
mod failure;
mod open_files;
mod process;
mod ready_file;
mod series;
mod signals;
mod upkeep;
mod version;

use std::process::ExitCode;

use command_line::{Command, CommandLine};
use failure::Failure;

fn main() -> ExitCode {
    let outcome = match CommandLine::read().command {
        Command::Dev(arguments) => commands::dev::run(&arguments),
        Command::Gateway(arguments) => commands::gateway::run(&arguments),
        Command::Bridge(arguments) => commands::bridge::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Log(arguments) => commands::log::run(arguments),
        Command::Config(arguments) => commands::config::run(&arguments),
        Command::Loadgen(arguments) => commands::loadgen::run(arguments),
    };
    outcome.unwrap_or_else(Failure::report)
}
