//! What silent connections cost: CPU while nobody says anything, and bytes for each of them.
//!
//! The connections are in processes of their own, `holders`, as one process may have only so many files, and so that what measures does nothing
//! beside. A holder connects, says so in a line, and keeps its connections until its standard input has a line or ends, as it does when this process is
//! killed. Then it says how many still live: a gateway that sheds connections has no figure, however little it spent on them.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::swarm::{PATIENCE, Swarm};
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

/// The line of a holder once all are there.
const HELD: &str = "held";

/// The line that asks it for those that still live, and the beginning of its answer, before their number.
const CALL: &str = "call";
const LIVE: &str = "live ";

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
    /// Connections that were there, and lived to the end.
    pub connections: usize,
    /// Seconds.
    pub seconds: f64,
    /// Each process.
    pub processes: Vec<Quiet>,
}

/// A process that holds connections, and ends with this value.
struct Holder {
    child: Child,
    said: BufReader<ChildStdout>,
}

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
    say("roll call");
    let live = holders.iter_mut().try_fold(0, |sum, holder| Ok::<_, BenchError>(sum + holder.call()?))?;
    let connections = plan.connections;
    if live < connections {
        return Err(BenchError::Gone { gone: connections - live, connections });
    }
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
    Ok(SilenceReport { connections: live, seconds, processes })
}

/// Holds connections in this process until standard input has a line or ends, and says how many of them still live.
pub fn hold(mqtt: SocketAddr, first: usize, count: usize) -> Result<(), BenchError> {
    hold_until(std::io::stdin().lock(), std::io::stdout(), mqtt, first, count, PATIENCE)
}

fn hold_until(
    mut word: impl BufRead,
    mut out: impl Write,
    mqtt: SocketAddr,
    first: usize,
    count: usize,
    within: Duration,
) -> Result<(), BenchError> {
    let mut say = |line: &str| {
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(BenchError::io("standard output"))
    };
    let mut swarm = Swarm::to(mqtt, Carrier::Tcp)?.with_first(first);
    swarm.connect(count, CONNECTS)?;
    say(HELD)?;
    let mut line = String::new();
    word.read_line(&mut line).map_err(BenchError::io("standard input"))?;
    if line.trim_end() == CALL {
        say(&format!("{LIVE}{}", swarm.roll_call(within)?))?;
    }
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
        let mut child = command.spawn().map_err(BenchError::io("holder"))?;
        let said = child.stdout.take().map(BufReader::new);
        let mut holder = Self { said: said.ok_or(BenchError::Protocol)?, child };
        if holder.hear()? == HELD { Ok(holder) } else { Err(BenchError::Closed("a holder gave up")) }
    }

    /// How many of its connections still live.
    fn call(&mut self) -> Result<usize, BenchError> {
        let stdin = self.child.stdin.as_mut().ok_or(BenchError::Protocol)?;
        writeln!(stdin, "{CALL}").map_err(BenchError::io("holder"))?;
        let said = self.hear()?;
        let live = said.strip_prefix(LIVE).and_then(|count| count.parse().ok());
        live.ok_or(BenchError::Closed("a holder gave up"))
    }

    fn hear(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(BenchError::io("holder"))?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::super::packets;
    use super::*;

    /// The whole packet.
    const PINGRESP: [u8; 2] = [0xD0, 0];

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

    /// Admits `count` connections, then closes `shed` of them and leaves `mute` open without ever answering; the others are served.
    fn gateway(count: usize, shed: usize, mute: usize) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let streams: Vec<TcpStream> = (0..count)
                .map(|_| {
                    let (mut stream, _) = listener.accept().unwrap();
                    assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                    stream.write_all(&packets::CONNACK).unwrap();
                    stream
                })
                .collect();
            let mut kept: Vec<TcpStream> = streams.into_iter().skip(shed).collect();
            for stream in kept.iter_mut().skip(mute) {
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                stream.write_all(&PINGRESP).unwrap();
            }
            // Until the other end is gone.
            for mut stream in kept {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        address
    }

    fn told_by_a_holder(gateway: SocketAddr, count: usize, within: Duration) -> String {
        let mut out = Vec::new();
        hold_until(&b"call\n"[..], &mut out, gateway, 0, count, within).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_holder_says_how_many_of_its_connections_still_live() {
        assert_eq!(told_by_a_holder(gateway(2, 0, 0), 2, PATIENCE), "held\nlive 2\n");
        assert_eq!(told_by_a_holder(gateway(3, 2, 0), 3, PATIENCE), "held\nlive 1\n");
    }

    #[test]
    fn a_connection_that_nobody_serves_any_more_does_not_live() {
        let within = Duration::from_secs(1);
        assert_eq!(told_by_a_holder(gateway(2, 0, 2), 2, within), "held\nlive 0\n");
    }

    #[test]
    fn a_gateway_that_sheds_what_it_holds_has_no_figure() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("holder");
        std::fs::write(&program, "echo held\nread line\necho live 1\n").unwrap();
        let reexec = Reexec { program: "/bin/sh".into(), arguments: vec![program.into()] };
        let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
        let run = |connections| {
            let plan = SilencePlan { connections, duration: Duration::ZERO };
            run(plan, nobody, &[], &reexec, |_| ())
        };
        assert_eq!(run(1).unwrap().connections, 1);
        let error = run(2).unwrap_err().to_string();
        assert_eq!(error, "1 of 2 connections did not live to the end");
    }

    #[test]
    fn a_holder_that_ends_without_its_line_is_an_error() {
        let reexec = Reexec { program: "/bin/false".into(), arguments: Vec::new() };
        assert!(Holder::start(&reexec, ([127, 0, 0, 1], 1).into(), 0, 1).is_err());
    }
}
