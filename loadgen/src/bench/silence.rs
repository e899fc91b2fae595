//! What silent connections cost: CPU while nobody says anything, and bytes for each of them.
//!
//! The connections are in processes of their own, `holders`, as one process may have only so many files, and so that what measures does nothing
//! beside. A holder connects, says so in a line, and keeps its connections until its standard input ends, as it does when this process is killed.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::swarm::Swarm;
use super::web_socket::Carrier;
use super::{BenchError, Memory, Processes, Reexec, Spent};

/// Connections of one holder: below the limit of 20,000 open files that systems like to have.
const PER_HOLDER: usize = 18_000;

/// Connections that come before memory is read first: they pay for what every further one shares.
const WARM_UP: usize = 1_000;

/// Connects on their way at once.
const CONNECTS: usize = 512;

/// For gateways to be done with the connects.
const PAUSE: Duration = Duration::from_secs(2);

/// The line of a holder.
const HELD: &str = "held";

/// How many connections, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct SilencePlan {
    /// At least 1.
    pub connections: usize,
    /// Of silence.
    pub duration: Duration,
}

/// What a process did meanwhile.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Quiet {
    /// What it is called.
    pub name: String,
    /// Of one core, in percent.
    pub cpu_percent: f64,
    /// Growth of its memory for each connection beyond the first thousand; none if there are not so many.
    pub bytes_per_connection: Option<f64>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SilenceReport {
    /// Connections that were there.
    pub connections: usize,
    /// Seconds.
    pub seconds: f64,
    /// Each process.
    pub processes: Vec<Quiet>,
}

/// A process that holds connections, and ends with this value.
struct Holder(Child);

/// Opens the connections, lets them be silent, and says what that cost each process. Blocks; call it from the main thread.
pub fn run(
    plan: SilencePlan,
    mqtt: SocketAddr,
    processes: &[(String, Processes)],
    reexec: &Reexec,
    mut say: impl FnMut(&str),
) -> Result<SilenceReport, BenchError> {
    let warm_up = WARM_UP.min(plan.connections);
    let mut holders = vec![Holder::start(reexec, mqtt, 0, warm_up)?];
    let before = memories(processes)?;
    let mut first = warm_up;
    while first < plan.connections {
        let count = PER_HOLDER.min(plan.connections - first);
        holders.push(Holder::start(reexec, mqtt, first, count)?);
        first += count;
        say(&format!("{first} of {} connections", plan.connections));
    }
    sleep(PAUSE);
    let after = memories(processes)?;
    let spent_before = spent(processes)?;
    say(&format!("{} s of silence", plan.duration.as_secs_f64()));
    sleep(plan.duration);
    let spent_after = spent(processes)?;
    let grown_by = plan.connections - warm_up;
    let seconds = plan.duration.as_secs_f64();
    let quiet = |index: usize| {
        let cpu = (spent_after[index] - spent_before[index]).whole;
        let grown = after[index].resident_bytes as f64 - before[index].resident_bytes as f64;
        Quiet {
            name: processes[index].0.clone(),
            cpu_percent: cpu.us as f64 / 1e4 / seconds,
            bytes_per_connection: (grown_by > 0).then(|| grown / grown_by as f64),
        }
    };
    let processes = (0..processes.len()).map(quiet).collect();
    Ok(SilenceReport { connections: plan.connections, seconds, processes })
}

/// Holds connections in this process until standard input ends.
pub fn hold(mqtt: SocketAddr, first: usize, count: usize) -> Result<(), BenchError> {
    let mut swarm = Swarm::to(mqtt, Carrier::Tcp)?.with_first(first);
    swarm.connect(count, CONNECTS)?;
    println!("{HELD}");
    std::io::stdout().flush().map_err(BenchError::io("standard output"))?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(BenchError::io("standard input"))?;
    Ok(())
}

fn memories(processes: &[(String, Processes)]) -> Result<Vec<Memory>, BenchError> {
    processes.iter().map(|(_, processes)| processes.memory_at_rest()).collect()
}

fn spent(processes: &[(String, Processes)]) -> Result<Vec<Spent>, BenchError> {
    processes.iter().map(|(_, processes)| processes.spent()).collect()
}

impl Holder {
    fn start(reexec: &Reexec, mqtt: SocketAddr, first: usize, count: usize) -> Result<Self, BenchError> {
        let mut command = Command::new(&reexec.program);
        command.args(&reexec.arguments).args(["hold", "--mqtt", &mqtt.to_string()]);
        command.args(["--first", &first.to_string(), "--connections", &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Self(command.spawn().map_err(BenchError::io("holder"))?);
        let said = holder.0.stdout.take().ok_or(BenchError::Protocol)?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).map_err(BenchError::io("holder"))?;
        if line.trim_end() == HELD { Ok(holder) } else { Err(BenchError::Closed("a holder gave up")) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SilenceReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = format!("{} silent connections, {} s\n", self.connections, self.seconds);
        for Quiet { name, cpu_percent, bytes_per_connection } in &self.processes {
            // Writing into a `String` does not fail.
            let _ = write!(out, "    {name:<12} {cpu_percent:>6.2} % of a core");
            let _ = match bytes_per_connection {
                Some(bytes) => writeln!(out, " {bytes:>9.0} bytes per connection"),
                None => writeln!(out),
            };
        }
        out
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_further_connections_has_cpu_and_no_bytes() {
        let quiet =
            |bytes| Quiet { name: "gateway".to_owned(), cpu_percent: 0.114, bytes_per_connection: bytes };
        let processes = vec![quiet(Some(466.4)), quiet(None)];
        let text = SilenceReport { connections: 18_000, seconds: 45.0, processes }.to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "18000 silent connections, 45 s");
        assert_eq!(lines[1], "    gateway        0.11 % of a core       466 bytes per connection");
        assert_eq!(lines[2], "    gateway        0.11 % of a core");
    }

    #[test]
    fn a_holder_that_ends_without_its_line_is_an_error() {
        let reexec = Reexec { program: "/bin/false".into(), arguments: Vec::new() };
        assert!(Holder::start(&reexec, ([127, 0, 0, 1], 1).into(), 0, 1).is_err());
    }
}
