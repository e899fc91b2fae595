//! Starting the brokers that are compared, each as a process of its own, each ended when its turn is over.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use super::{BenchError, Processes, Target, packets};

/// From start to the first connection.
const START: Duration = Duration::from_secs(30);

/// From SIGTERM to SIGKILL.
const STOP: Duration = Duration::from_secs(10);

/// Of one attempt to be admitted.
const ADMISSION: Duration = Duration::from_secs(1);

/// Ports of contenders. The system takes ports for outgoing connections from 32,768 on, so that neither a connection
/// of the driver nor the look whether somebody listens yet can hold one of these.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Threads of Holdfast that serve devices; the others are bridge, log and store.
pub(crate) const HOLDFAST_GATEWAY_THREADS: &str = "shard-";

/// Pushes go from device to device here. Other brokers keep no log, and this one is to do no more than they.
const HOLDFAST_PUSH_RULE: &str = "topic_map=[{filter=\"devices/+/push\",sink=\"none\"}]";

const LOOK: Duration = Duration::from_millis(20);

/// A broker that can be started.
#[derive(Debug, Clone)]
pub enum Contender {
    /// The bare server of this crate.
    Floor,
    /// A Mosquitto binary.
    Mosquitto {
        /// Its path, or its name in `PATH`.
        binary: PathBuf,
    },
    /// The embedded rumqttd; needs the feature of that name.
    Rumqttd,
    /// Holdfast in one process.
    Holdfast {
        /// The binary.
        program: PathBuf,
        /// Begins with `dev`; addresses, data directory and ready file are appended.
        arguments: Vec<OsString>,
    },
}

/// How this process is started again to serve a broker: this program with these arguments, and behind them
/// `serve floor|rumqttd …`.
#[derive(Debug, Clone)]
pub struct Reexec {
    /// The program, usually the current one.
    pub program: PathBuf,
    /// What comes before `serve`.
    pub arguments: Vec<OsString>,
}

/// A broker that runs until this is dropped.
pub(super) struct Running {
    pub(super) target: Target,
    child: Child,
    _directory: TempDir,
}

/// The file that `holdfast … --ready-file` writes, as far as it matters here.
#[derive(Deserialize)]
struct Ready {
    mqtt: SocketAddr,
    ws: SocketAddr,
}

impl Contender {
    /// What the table calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Mosquitto { .. } => "mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Holdfast { .. } => "holdfast",
        }
    }

    pub(super) fn start(&self, reexec: &Reexec) -> Result<Running, BenchError> {
        self.try_start(reexec)
            .map_err(|error| BenchError::Start { name: self.name().to_owned(), why: error.to_string() })
    }

    fn try_start(&self, reexec: &Reexec) -> io::Result<Running> {
        let directory = tempfile::tempdir()?;
        let (mqtt, ws) = free_addresses()?;
        let ready_file = directory.path().join("ready.json");
        let mut command = match self {
            Self::Floor => reexec.serve("floor", mqtt, None),
            Self::Rumqttd => reexec.serve("rumqttd", mqtt, Some(ws)),
            Self::Mosquitto { binary } => {
                let config = directory.path().join("mosquitto.conf");
                fs::write(&config, mosquitto_config(mqtt, ws))?;
                let mut command = Command::new(binary);
                command.arg("-c").arg(config);
                command
            }
            Self::Holdfast { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).args(["--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0"]);
                command.args(["--admin", "127.0.0.1:0"]);
                command.arg("--data-dir").arg(directory.path().join("data"));
                command.arg("--ready-file").arg(&ready_file).args(["--set", HOLDFAST_PUSH_RULE]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let mut processes = Processes::new(vec![child.id()]);
        if matches!(self, Self::Holdfast { .. }) {
            processes = processes.with_gateway_threads(HOLDFAST_GATEWAY_THREADS);
        }
        let target = Target {
            name: self.name().to_owned(),
            mqtt,
            ws: (!matches!(self, Self::Floor)).then_some(ws),
            json: matches!(self, Self::Holdfast { .. }),
            processes,
        };
        let mut running = Running { target, child, _directory: directory };
        match self {
            Self::Holdfast { .. } => running.wait_for_file(&ready_file)?,
            _ => running.wait_for_admission()?,
        }
        Ok(running)
    }
}

impl Reexec {
    /// This very program; `arguments` lead to the load tool's command line.
    pub fn current(arguments: Vec<OsString>) -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments })
    }

    fn serve(&self, broker: &str, mqtt: SocketAddr, ws: Option<SocketAddr>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["serve", broker, "--mqtt", &mqtt.to_string()]);
        if let Some(ws) = ws {
            command.args(["--ws", &ws.to_string()]);
        }
        command
    }
}

impl Running {
    /// How it ended, if it did by itself.
    pub(super) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Listening is not enough: a broker may have opened one of its listeners and not yet the other.
    fn wait_for_admission(&mut self) -> io::Result<()> {
        let (mqtt, ws) = (self.target.mqtt, self.target.ws);
        self.wait_until(|| {
            let listens = ws.is_none_or(|ws| TcpStream::connect_timeout(&ws, ADMISSION).is_ok());
            Ok((listens && admits(mqtt).is_ok()).then_some(()))
        })
    }

    fn wait_for_file(&mut self, file: &Path) -> io::Result<()> {
        // Half a file does not parse, and is read again.
        let ready = self.wait_until(|| {
            let text = fs::read(file).unwrap_or_default();
            Ok(serde_json::from_slice::<Ready>(&text).ok())
        })?;
        self.target.mqtt = ready.mqtt;
        self.target.ws = Some(ready.ws);
        Ok(())
    }

    fn wait_until<T>(&mut self, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!("not ready within {} s", START.as_secs())));
            }
            sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Errors here mean that it is gone already.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(LOOK);
        }
    }
}

/// A device is admitted and leaves.
fn admits(mqtt: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&mqtt, ADMISSION)?;
    stream.set_read_timeout(Some(ADMISSION))?;
    stream.write_all(&packets::connect(0))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    stream.write_all(&packets::disconnect())?;
    if answer == packets::CONNACK { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

/// The configuration that the budgets name.
fn mosquitto_config(mqtt: SocketAddr, ws: SocketAddr) -> String {
    format!(
        "listener {} {}\nlistener {} {}\nprotocol websockets\nallow_anonymous true\nset_tcp_nodelay true\n\
         persistence false\nmax_queued_messages 1000\nlog_dest none\n",
        mqtt.port(),
        mqtt.ip(),
        ws.port(),
        ws.ip()
    )
}

/// Free at this moment; both are held until both are known. Where the search begins differs between processes and
/// calls, so that two comparisons at once do not meet.
fn free_addresses() -> io::Result<(SocketAddr, SocketAddr)> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    let first = (std::process::id().wrapping_mul(97) + CALLS.fetch_add(2, Relaxed)) % count;
    let free = |index: u32| {
        let port = PORTS.start + ((first + index) % count) as u16;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    };
    let mut free = (0..count).filter_map(free);
    let (Some(first), Some(second)) = (free.next(), free.next()) else {
        return Err(io::ErrorKind::AddrInUse.into());
    };
    Ok((first.local_addr()?, second.local_addr()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_cannot_be_started_says_so_in_one_line() {
        let reexec = Reexec { program: "/nowhere".into(), arguments: Vec::new() };
        let error =
            Contender::Mosquitto { binary: "/nowhere/mosquitto".into() }.start(&reexec).err().unwrap();
        assert_eq!(error.to_string(), "mosquitto did not start: No such file or directory (os error 2)");
    }

    #[test]
    fn ports_are_free_and_not_those_of_outgoing_connections() {
        let (first, second) = free_addresses().unwrap();
        assert_ne!(first, second);
        assert!(PORTS.contains(&first.port()) && PORTS.contains(&second.port()));
        assert!(TcpListener::bind(first).is_ok() && TcpListener::bind(second).is_ok());
    }

    #[test]
    fn a_broker_is_ready_once_it_admits_a_device_and_not_when_it_only_listens() {
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(admits(silent.local_addr().unwrap()).is_err());
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            crate::bench::serve_floor(any, |address| told.send(address).unwrap())
        });
        admits(address.recv().unwrap()).unwrap();
    }

    #[test]
    fn a_broker_that_ends_at_once_is_not_waited_for() {
        let reexec = Reexec { program: "/nowhere".into(), arguments: Vec::new() };
        let holdfast = Contender::Holdfast { program: "/bin/false".into(), arguments: Vec::new() };
        let error = holdfast.start(&reexec).err().unwrap().to_string();
        assert!(error.contains("it ended with"), "{error}");
    }
}
