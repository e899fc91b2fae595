//! `with-gateway [--set KEY=VALUE]… -- COMMAND…`: runs a command beside a gateway of its own.
//!
//! The foreign clients' own test runners stand behind it, so that they print which case failed. The command finds
//! the addresses in `E2E_MQTT`, `E2E_WS` and `E2E_ADMIN`; this program ends with the command's exit code.

use std::env;
use std::process::{Command, ExitCode};

use holdfast_e2e::Setup;

fn main() -> ExitCode {
    let mut setup = Setup::new();
    let mut arguments = env::args().skip(1);
    loop {
        match arguments.next().as_deref() {
            Some("--") => break,
            Some("--set") => match arguments.next().as_deref().and_then(|pair| pair.split_once('=')) {
                Some((key, value)) => setup = setup.set(key, value),
                None => return usage(),
            },
            _ => return usage(),
        }
    }
    let Some(program) = arguments.next() else { return usage() };

    let gateway = match setup.try_start() {
        Ok(gateway) => gateway,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
    };
    let status = Command::new(&program)
        .args(arguments)
        .env("E2E_MQTT", gateway.mqtt().to_string())
        .env("E2E_WS", gateway.ws().to_string())
        .env("E2E_ADMIN", gateway.admin().to_string())
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("--- what `holdfast dev` said ---\n{}---", gateway.stderr());
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: with-gateway [--set KEY=VALUE]... -- COMMAND [ARGUMENT]...");
    ExitCode::from(2)
}
