//! Command lines, what they ask for, and what they refuse.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: LoadgenArgs,
}

pub(super) fn parse(line: &str) -> Result<LoadgenCommand, String> {
    parse_words(line.split_whitespace())
}

pub(super) fn parse_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<LoadgenCommand, String> {
    let words = std::iter::once("loadgen").chain(words);
    Program::try_parse_from(words).map(|program| program.args.command).map_err(|error| error.to_string())
}

#[test]
fn what_runs_already_is_named_together_with_its_processes() {
    for line in [
        "kafka --markdown",
        "kafka --mqtt 127.0.0.1:1 --kafka h:1 --bridge-pid 7 --gateway-pid 8",
        "idle --mqtt 127.0.0.1:1 --pid 7,8",
        "failover --sink log --devices 300 --json",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "kafka --mqtt 127.0.0.1:1",
        "kafka --bridge-pid 7",
        "kafka --rounds 0",
        "kafka --rates 0",
        "idle --mqtt 127.0.0.1:1",
        "idle --pid 7",
        "idle --connections 0",
        "failover --gateways 1",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_fleet_that_cannot_be_is_refused_by_its_option_before_anything_starts() {
    let reexec = Reexec { program: "/nowhere".into(), arguments: Vec::new() };
    for (line, said) in [
        ("failover --devices 0", "--devices 0: must be between 1 and 1000000"),
        ("failover --frame-every-s 0", "--frame-every-s 0: must be 0.001 to 120"),
        ("failover --pushes-per-s=-1", "--pushes-per-s -1: must be 0 to 100000"),
        ("failover --connects-per-s nan", "--connects-per-s NaN: must be 0.1 to 1000000"),
    ] {
        let Ok(LoadgenCommand::Failover(args)) = parse(line) else { panic!("{line} parses") };
        assert_eq!(cluster::failover(&args, &reexec).unwrap_err(), said);
    }
}
