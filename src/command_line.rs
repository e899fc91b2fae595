//! Which commands there are, and one line for an argument that is none.

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::commands::{bridge, config, demo, dev, gateway, loadgen, log};
use crate::version::VERSION;

/// A gateway for devices that keep an MQTT or WebSocket connection open.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = VERSION, max_term_width = 110)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One for each role that exists.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs gateway and bridge in one process, with a session store and a frame log of its own: nothing to install
    Dev(dev::DevArgs),
    /// Holds devices' connections; frames go to bridges, sessions to a store that several gateways share
    Gateway(gateway::GatewayArgs),
    /// Takes frames of gateways to where they rest, and pushes to devices
    Bridge(bridge::BridgeArgs),
    /// Runs `dev` on free ports with a thousand simulated devices, and judges whether a frame was lost
    Demo(demo::DemoArgs),
    /// Reads the log that holds the frames, also while it is written
    Log(log::LogArgs),
    /// Shows or checks the merged configuration
    Config(config::ConfigArgs),
    /// Puts load on a broker and measures it
    Loadgen(loadgen::LoadgenArgs),
}

impl CommandLine {
    /// The process's own; ends it with one line if it is not understood, or after the help that was asked for.
    pub(crate) fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => {
                eprintln!("holdfast: {}", one_line(&error.to_string()));
                std::process::exit(2);
            }
        })
    }
}

/// What stands above the usage, its paragraphs one behind the other, without the word "error".
fn one_line(text: &str) -> String {
    let above_usage = text.split("\nUsage:").next().unwrap_or(text);
    let above_usage = above_usage.split("\nFor more information").next().unwrap_or(above_usage);
    let paragraph = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let paragraphs: Vec<String> =
        above_usage.trim().split("\n\n").map(paragraph).filter(|text| !text.is_empty()).collect();
    paragraphs.join("; ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let error = CommandLine::try_parse_from(arguments).expect_err("it is refused");
        one_line(&error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn an_argument_that_is_none_is_refused_in_one_line_with_the_nearest_one() {
        let line = refusal(&["holdfast", "dev", "--mqqt", "x"]);
        assert_eq!(line, "unexpected argument '--mqqt' found; tip: a similar argument exists: '--mqtt'");
        let line = refusal(&["holdfast", "log", "cat"]);
        assert_eq!(line, "the following required arguments were not provided: <DIR>");
    }
}
