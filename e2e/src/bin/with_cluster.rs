//! `with-cluster [--gateways N] [--bridges N] [--brokers 1|3] -- COMMAND…`: runs a command beside gateways and bridges of its own, with a real
//! Kafka and Redis: those of `KAFKA_BROKERS` and `REDIS_URL`, or of its own.
//!
//! The command finds the addresses in `E2E_MQTT`, `E2E_WS`, `E2E_ADMIN` (of the first gateway), `E2E_PUSH` (of the first bridge),
//! `E2E_KAFKA` and `E2E_REDIS`; this program ends with the command's exit code.

use std::env;
use std::process::{Command, ExitCode};

use holdfast_e2e::ClusterSetup;

fn main() -> ExitCode {
    let mut setup = ClusterSetup::new().any_services();
    let mut arguments = env::args().skip(1);
    loop {
        let option = arguments.next();
        if option.as_deref() == Some("--") {
            break;
        }
        let Some(count) = arguments.next().and_then(|count| count.parse().ok()) else { return usage() };
        setup = match option.as_deref() {
            Some("--gateways") => setup.gateways(count),
            Some("--bridges") => setup.bridges(count),
            Some("--brokers") => setup.brokers(count),
            _ => return usage(),
        };
    }
    let Some(program) = arguments.next() else { return usage() };

    let cluster = setup.start();
    let (gateway, bridge) = (&cluster.gateways[0], &cluster.bridges[0]);
    let status = Command::new(&program)
        .args(arguments)
        .env("E2E_MQTT", gateway.address("mqtt").to_string())
        .env("E2E_WS", gateway.address("ws").to_string())
        .env("E2E_ADMIN", gateway.address("admin").to_string())
        .env("E2E_PUSH", bridge.address("push").to_string())
        .env("E2E_KAFKA", cluster.kafka.brokers())
        .env("E2E_REDIS", cluster.redis.url())
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            for role in cluster.bridges.iter().chain(&cluster.gateways) {
                eprintln!("--- what {} said ---\n{}---", role.folder().display(), role.stderr());
            }
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: with-cluster [--gateways N] [--bridges N] [--brokers 1|3] -- COMMAND [ARGUMENT]...");
    ExitCode::from(2)
}
