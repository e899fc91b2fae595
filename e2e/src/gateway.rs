//! `holdfast dev` as a child: started on free ports, awaited, killed, started again on the same directory.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::wait::{PATIENCE, until};
use crate::{find_binary, http, log, metrics};

/// How a gateway is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Also holds stderr and the ready file; gone with the last that uses it.
    folder: Arc<TempDir>,
    data_dir: PathBuf,
    settings: Vec<String>,
    /// Taken from the first start, so that clients find it again where it was.
    addresses: Option<(SocketAddr, SocketAddr, SocketAddr)>,
}

/// The ready file: where it listens, once it admits clients.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// MQTT over WebSocket at `/mqtt`, JSON at `/v1/devices/{client id}/socket`.
    pub ws: SocketAddr,
    /// Metrics, health, pushes.
    pub admin: SocketAddr,
    /// The process.
    pub pid: u32,
}

/// A `holdfast dev`, running unless a test has stopped it. Its process ends with this value.
#[derive(Debug)]
pub struct Gateway {
    setup: Setup,
    child: Child,
    ready: Ready,
}

/// A start that did not succeed.
#[derive(Debug)]
pub struct StartFailure {
    /// How it ended.
    pub status: ExitStatus,
    /// All it said.
    pub stderr: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// Defaults, free ports, an empty data directory.
    pub fn new() -> Self {
        let folder =
            TempDir::with_prefix("holdfast-e2e-").expect("the system's temporary folder is writable");
        let data_dir = folder.path().join("data");
        Self { folder: Arc::new(folder), data_dir, settings: Vec::new(), addresses: None }
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// A data directory of the test's own.
    #[must_use]
    pub fn data_dir(mut self, data_dir: &Path) -> Self {
        data_dir.clone_into(&mut self.data_dir);
        self
    }

    /// Starts and waits until clients are admitted.
    ///
    /// # Panics
    /// When it ends or is not ready in time, with what it said.
    pub fn start(self) -> Gateway {
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts and waits until clients are admitted, or the process ends.
    ///
    /// # Panics
    /// When neither happens in time.
    pub fn try_start(mut self) -> Result<Gateway, StartFailure> {
        let _ = fs::remove_file(self.ready_file());
        let mut child = self.command().spawn().expect("the binary can be started");
        let outcome = until("`holdfast dev` to be ready or to end", PATIENCE, || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                return Some(Err(status));
            }
            // It may be seen half written.
            let text = fs::read(self.ready_file()).ok()?;
            serde_json::from_slice::<Ready>(&text).ok().map(Ok)
        });
        match outcome {
            Ok(ready) => {
                self.addresses = Some((ready.mqtt, ready.ws, ready.admin));
                Ok(Gateway { setup: self, child, ready })
            }
            Err(status) => Err(StartFailure { status, stderr: self.stderr() }),
        }
    }

    /// The command line, its output in a file of the folder.
    fn command(&self) -> Command {
        let (mqtt, ws, admin) = self.addresses.unwrap_or_else(|| (free_port(), free_port(), free_port()));
        let mut command = Command::new(find_binary());
        command.arg("dev").arg("--mqtt").arg(mqtt.to_string()).arg("--ws").arg(ws.to_string());
        command.arg("--admin").arg(admin.to_string());
        command.arg("--data-dir").arg(&self.data_dir).arg("--ready-file").arg(self.ready_file());
        // Even a test that is killed leaves nothing behind.
        command.arg("--end-with").arg(std::process::id().to_string());
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        let stderr =
            File::options().create(true).append(true).open(self.stderr_file()).expect("a file of our own");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    fn stderr_file(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    fn stderr(&self) -> String {
        fs::read(self.stderr_file())
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }
}

impl Gateway {
    /// With all defaults; see [`Setup::start`].
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// Where MQTT is spoken.
    pub fn mqtt(&self) -> SocketAddr {
        self.ready.mqtt
    }

    /// Where WebSocket is spoken.
    pub fn ws(&self) -> SocketAddr {
        self.ready.ws
    }

    /// Where metrics, health and pushes are.
    pub fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.setup.data_dir
    }

    /// All it has said on stderr since its first start.
    pub fn stderr(&self) -> String {
        self.setup.stderr()
    }

    /// Its metrics now.
    ///
    /// # Panics
    /// When they cannot be had.
    pub fn metrics(&self) -> metrics::Snapshot {
        metrics::Snapshot::of(self.admin())
    }

    /// Everything in its log, through `holdfast log cat`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn frames(&self) -> Vec<log::Frame> {
        log::read(&self.setup.data_dir.join("log"))
    }

    /// An HTTP request to its admin address.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> http::Response {
        http::request(self.admin(), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Kills the process as a power failure would, and waits for its end.
    ///
    /// # Panics
    /// When it is not a child that can be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be awaited");
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the process runs");
    }

    /// Waits for the end of a process that was told to end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn await_exit(&mut self, within: Duration) -> ExitStatus {
        until("`holdfast dev` to end", within, || self.child.try_wait().expect("a child can be asked"))
    }

    /// Starts it again after [`Gateway::kill`] or [`Gateway::await_exit`]: same directory, same addresses.
    ///
    /// # Panics
    /// As [`Setup::start`].
    pub fn restart(&mut self) {
        assert!(self.child.try_wait().is_ok_and(|status| status.is_some()), "it still runs");
        let again = self.setup.clone().start();
        *self = again;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- what `holdfast dev` said ---\n{}---", self.stderr());
        }
    }
}

impl std::fmt::Display for StartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`holdfast dev` ended with {} and said:\n{}", self.status, self.stderr)
    }
}

fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
