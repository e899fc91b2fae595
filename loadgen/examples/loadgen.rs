//! The load tool as a program of its own: `cargo run --release -p holdfast-loadgen --example loadgen -- compare`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_loadgen::bench::Reexec;
use holdfast_loadgen::cli::{LoadgenArgs, run};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: LoadgenArgs,
}

fn main() -> ExitCode {
    let Program { args } = Program::parse();
    match Reexec::current(Vec::new()) {
        Ok(reexec) => run(args, &reexec),
        Err(error) => {
            eprintln!("cannot find this program's own path: {error}");
            ExitCode::FAILURE
        }
    }
}
