//! The commands that judge: a fleet against a gateway, and its ledger against what stands in Kafka or in the log.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;

use super::{Done, print, say};
use crate::fleet::{self, FleetResult, Gateway, Progress, Targets};
use crate::kafka::{self, KafkaSource};
use crate::plan::FleetPlan;
use crate::records;

#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Scenario in TOML; without it the demo's plan
    scenario: Option<PathBuf>,
    /// MQTT addresses of the gateways; devices take the next at each reconnect
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:1883")]
    mqtt: Vec<String>,
    /// WebSocket addresses of the same gateways
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8083")]
    ws: Vec<String>,
    /// Addresses of `POST /v1/push`; needed unless the scenario has no pushes
    #[arg(long, value_delimiter = ',')]
    push: Vec<String>,
    /// Simulated devices, instead of the scenario's
    #[arg(long, allow_negative_numbers = true)]
    devices: Option<u32>,
    /// Seconds of load, instead of the scenario's
    #[arg(long, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Pushes to random devices in a second, instead of the scenario's
    #[arg(long, allow_negative_numbers = true)]
    pushes_per_s: Option<f64>,
    /// Write what the devices know to FILE, for `verify`; without a source of records nothing is judged yet
    #[arg(long, value_name = "FILE", required_unless_present_any = ["records_command", "records", "kafka"])]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    records: RecordsArgs,
    #[command(flatten)]
    topic: KafkaArgs,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct VerifyArgs {
    /// What `run --ledger` wrote; the parts of one fleet in the order of their devices
    #[arg(required = true)]
    ledgers: Vec<PathBuf>,
    #[command(flatten)]
    records: RecordsArgs,
    #[command(flatten)]
    topic: KafkaArgs,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// Where the contents of the log come from once the devices are done.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
struct RecordsArgs {
    /// Command that writes the log as JSON lines, such as `holdfast log cat DIR --json`
    #[arg(long)]
    records_command: Option<String>,
    /// File with the same lines
    #[arg(long)]
    records: Option<PathBuf>,
    /// Kafka brokers, `HOST:PORT,…`, whose topic holds the frames
    #[arg(long)]
    kafka: Option<String>,
}

/// More about `--kafka`.
#[derive(Debug, Clone, Args)]
struct KafkaArgs {
    /// Topic that holds the frames
    #[arg(long = "kafka-topic", default_value = "holdfast.frames")]
    topic: String,
    /// Setting of librdkafka for the reader; may be repeated
    #[arg(long = "kafka-setting", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Seconds to wait for acknowledged frames that still stand in a spool, counted from the last that came; at least five
    #[arg(long = "kafka-wait", value_name = "S", default_value_t = 30.0)]
    patience_s: f64,
}

pub(super) fn run(args: &RunArgs) -> Done {
    let mut plan = args.scenario.as_ref().map_or_else(|| Ok(FleetPlan::default()), read_plan)?;
    plan.devices = args.devices.unwrap_or(plan.devices);
    plan.duration_s = args.seconds.unwrap_or(plan.duration_s);
    plan.pushes_per_s = args.pushes_per_s.unwrap_or(plan.pushes_per_s);
    let by_option = [
        args.devices.map(|_| ("devices", "--devices")),
        args.seconds.map(|_| ("duration_s", "--seconds")),
        args.pushes_per_s.map(|_| ("pushes_per_s", "--pushes-per-s")),
    ];
    let by_option: Vec<_> = by_option.into_iter().flatten().collect();
    plan.check().map_err(|error| error.to_line(&by_option))?;
    let targets = targets(args)?;
    if plan.pushes_per_s > 0.0 && targets.http.is_empty() {
        let pushes = plan.pushes_per_s;
        return Err(format!(
            "pushes_per_s = {pushes}: --push must say where, or --pushes-per-s 0 that none are wanted"
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let mut result =
        runtime.block_on(fleet::run(plan, targets, Progress::Auto)).map_err(|error| error.to_string())?;
    if let Some(file) = &args.ledger {
        result.write(file).map_err(|error| format!("--ledger {}: {error}", file.display()))?;
        if !args.records.is_given() {
            say(&format!("{}: written; nothing is judged before `verify` has read it", file.display()));
            return Ok(ExitCode::SUCCESS);
        }
    }
    observe(&args.records, &args.topic, &mut result)?;
    Ok(conclude(&result, args.json))
}

pub(super) fn verify(args: &VerifyArgs) -> Done {
    let read =
        |file: &PathBuf| FleetResult::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let mut parts = args.ledgers.iter();
    let mut result = parts.next().map(read).ok_or("a ledger is needed")??;
    for file in parts {
        result.join(read(file)?).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    observe(&args.records, &args.topic, &mut result)?;
    Ok(conclude(&result, args.json))
}

fn conclude(result: &FleetResult, as_json: bool) -> ExitCode {
    let verdict = result.verdict();
    print(&if as_json { verdict.to_json() } else { verdict.to_string() });
    ExitCode::from(verdict.exit_status())
}

fn targets(args: &RunArgs) -> Result<Targets, String> {
    if args.mqtt.len() != args.ws.len() {
        return Err(format!("--mqtt names {} gateways, --ws {}", args.mqtt.len(), args.ws.len()));
    }
    let gateways = args.mqtt.iter().zip(&args.ws).map(|(mqtt, ws)| {
        Ok::<_, String>(Gateway { mqtt: resolve("--mqtt", mqtt)?, ws: resolve("--ws", ws)? })
    });
    let gateways = gateways.collect::<Result<_, _>>()?;
    let http = args.push.iter().map(|push| resolve("--push", push)).collect::<Result<_, _>>()?;
    Ok(Targets { gateways, http })
}

fn observe(args: &RecordsArgs, topic: &KafkaArgs, result: &mut FleetResult) -> Result<(), String> {
    if let Some(brokers) = &args.kafka {
        let source = topic.source(brokers)?;
        return kafka::read(&source, result).map(|_| ()).map_err(|error| format!("--kafka: {error}"));
    }
    let mut read = |lines: &mut dyn BufRead| {
        records::read(lines, |record| result.observe(record)).map_err(|error| format!("log: {error}"))
    };
    if let Some(file) = &args.records {
        let opened = std::fs::File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        return read(&mut BufReader::new(opened)).map(|_| ());
    }
    let needed = "one of --kafka, --records and --records-command is needed: what the devices know is compared with it";
    let line = args.records_command.as_deref().ok_or(needed)?;
    let mut child = Command::new("sh")
        .args(["-c", line])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("--records-command {line}: {error}"))?;
    let stdout = child.stdout.take().ok_or("--records-command has no output")?;
    read(&mut BufReader::new(stdout))?;
    let status = child.wait().map_err(|error| error.to_string())?;
    // What a failed command wrote may be only part of the log, which would look like loss.
    if status.success() { Ok(()) } else { Err(format!("--records-command {line}: {status}")) }
}

pub(super) fn check(scenario: &PathBuf) -> Done {
    let plan = read_plan(scenario)?;
    print(&toml::to_string(&plan).map_err(|error| error.to_string())?);
    Ok(ExitCode::SUCCESS)
}

fn read_plan(file: &PathBuf) -> Result<FleetPlan, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    FleetPlan::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn resolve(option: &str, address: &str) -> Result<SocketAddr, String> {
    let mut found = address
        .to_socket_addrs()
        .map_err(|error| format!("{option} {address}: {error}; HOST:PORT is needed"))?;
    found.next().ok_or_else(|| format!("{option} {address}: no address found"))
}

impl RecordsArgs {
    fn is_given(&self) -> bool {
        self.records_command.is_some() || self.records.is_some() || self.kafka.is_some()
    }
}

impl KafkaArgs {
    fn source(&self, brokers: &str) -> Result<KafkaSource, String> {
        let patience = Duration::try_from_secs_f64(self.patience_s)
            .map_err(|error| format!("--kafka-wait {}: {error}", self.patience_s))?;
        Ok(KafkaSource {
            brokers: brokers.to_owned(),
            topic: self.topic.clone(),
            settings: self.settings.clone(),
            patience,
        })
    }
}

fn parse_setting(pair: &str) -> Result<(String, String), String> {
    let (key, value) = pair.split_once('=').ok_or("KEY=VALUE is needed")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::LoadgenCommand;
    use super::super::tests::{parse, parse_words};
    use super::*;

    #[test]
    fn a_run_has_at_most_one_source_of_records_and_without_any_writes_a_ledger() {
        assert!(parse("run").is_err());
        assert!(parse("run --ledger a").is_ok());
        assert!(parse("run --ledger a --records b").is_ok());
        assert!(parse("run --records a --records-command b").is_err());
        assert!(parse("run --records a --kafka b").is_err());
        assert!(parse("run smoke.toml --records a --devices 5").is_ok());
        assert!(parse("run --kafka h:1,i:1 --kafka-setting a=b --kafka-setting c=d").is_ok());
        assert!(parse("run --kafka h:1 --kafka-setting ab").is_err());
    }

    fn planned() -> crate::verdict::Planned {
        FleetPlan::default().planned()
    }

    #[test]
    fn a_scenario_with_pushes_is_not_run_without_them() {
        let run = |line: &str| match parse(line) {
            Ok(LoadgenCommand::Run(args)) => run(&args),
            other => panic!("{other:?}"),
        };
        let error = run("run --ledger a").unwrap_err();
        assert!(error.starts_with("pushes_per_s = 50: --push must say where"), "{error}");
        let error = run("run --ledger a --pushes-per-s -1").unwrap_err();
        assert!(error.starts_with("--pushes-per-s -1: must be"), "{error}");
    }

    #[test]
    fn gateways_are_pairs_of_addresses() {
        let targets = |line: &str| match parse(line) {
            Ok(LoadgenCommand::Run(args)) => targets(&args),
            other => panic!("{other:?}"),
        };
        let two =
            targets("run --records a --mqtt 127.0.0.1:1,127.0.0.1:2 --ws 127.0.0.1:3,127.0.0.1:4").unwrap();
        assert_eq!(two.gateways[1].ws.port(), 4);
        let error = targets("run --records a --mqtt 127.0.0.1:1,127.0.0.1:2").unwrap_err();
        assert_eq!(error, "--mqtt names 2 gateways, --ws 1");
    }

    #[test]
    fn a_ledger_is_judged_later_and_only_against_records() {
        let folder = tempfile::tempdir().unwrap();
        let (file, records) = (folder.path().join("ledger"), folder.path().join("records"));
        std::fs::write(&records, "").unwrap();
        let mut device = crate::ledger::DeviceRecord { connects: 1, ..Default::default() };
        device.frames.sent(0);
        device.frames.acked(0);
        let ledger = crate::ledger::Ledger::new(1, "device-", vec![device]);
        FleetResult::new(ledger, crate::verdict::Latencies::default(), planned()).write(&file).unwrap();
        let verify = |more: &str| match parse(&format!("verify {} {more}", file.display())) {
            Ok(LoadgenCommand::Verify(args)) => verify(&args),
            other => panic!("{other:?}"),
        };
        let error = verify("").unwrap_err();
        assert!(error.contains("--kafka"), "{error}");
        // The frame is not there, so it is lost.
        let judged = verify(&format!("--records {}", records.display())).unwrap();
        assert_eq!(format!("{judged:?}"), format!("{:?}", ExitCode::from(1)));
    }

    #[test]
    fn a_command_that_fails_gives_no_verdict() {
        let Ok(LoadgenCommand::Run(args)) = parse_words(["run", "--records-command", "exit 3"]) else {
            panic!("it parses");
        };
        let ledger = crate::ledger::Ledger::new(1, "device-", Vec::new());
        let mut result = FleetResult::new(ledger, crate::verdict::Latencies::default(), planned());
        let error = observe(&args.records, &args.topic, &mut result).unwrap_err();
        assert!(error.contains("exit 3"), "{error}");
    }
}
