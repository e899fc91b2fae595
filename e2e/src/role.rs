//! `holdfast gateway` or `holdfast bridge` as a child: started on free ports, killed, stopped and continued, started again where it was.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::names::{Names, View};
use crate::ports::free_address;
use crate::process::{Killed, cpu_time, send};
use crate::wait::{PATIENCE, until};
use crate::{find_binary, http, metrics, resident_bytes};

/// How a process of its own is to be started.
#[derive(Debug, Clone)]
pub struct RoleSetup {
    name: &'static str,
    /// Also holds stderr and the ready file; gone with the last that uses it.
    folder: Arc<TempDir>,
    /// Option and ready file's field have one name.
    listeners: Vec<(&'static str, SocketAddr)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// With names in place of the system's.
    view: Option<View>,
}

/// A process, running unless a test has stopped it. It ends with this value.
#[derive(Debug)]
pub struct Role {
    setup: RoleSetup,
    child: Killed,
}

/// A start that did not succeed.
#[derive(Debug)]
pub struct RoleFailure {
    /// Which role.
    pub name: &'static str,
    /// How it ended.
    pub status: ExitStatus,
    /// All it said.
    pub stderr: String,
}

impl RoleSetup {
    /// A bridge that listens for links, pushes and the admin, with an empty data directory.
    pub fn bridge() -> Self {
        let setup = Self::new("bridge", &["link", "admin", "push"]);
        let data_dir = setup.data_dir().display().to_string();
        setup.argument("--data-dir", data_dir)
    }

    /// A gateway that listens for MQTT, WebSocket and the admin.
    pub fn gateway() -> Self {
        Self::new("gateway", &["mqtt", "ws", "admin"])
    }

    fn new(name: &'static str, listeners: &[&'static str]) -> Self {
        let folder = TempDir::with_prefix(format!("holdfast-{name}-"))
            .expect("the system's temporary folder is writable");
        Self {
            name,
            folder: Arc::new(folder),
            listeners: listeners.iter().map(|listener| (*listener, free_address())).collect(),
            arguments: Vec::new(),
            environment: Vec::new(),
            view: None,
        }
    }

    /// Adds an option with its value.
    #[must_use]
    pub fn argument(mut self, option: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.extend([option.to_owned(), value.to_string()]);
        self
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.argument("--set", format!("{key}={value}"))
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A listener's address in place of a free one.
    ///
    /// # Panics
    /// When there is no such listener.
    #[must_use]
    pub fn listen(mut self, listener: &str, at: SocketAddr) -> Self {
        let found = self.listeners.iter_mut().find(|(name, _)| *name == listener);
        found.unwrap_or_else(|| panic!("a {} has no listener `{listener}`", self.name)).1 = at;
        self
    }

    /// Where it will listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, address)| *address).collect()
    }

    /// It knows these names and no others.
    #[must_use]
    pub fn names(self, names: &Names) -> Self {
        Self { view: Some(names.view()), ..self }
    }

    /// The data directory of a bridge.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready in time, with what it said.
    pub fn start(self) -> Role {
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts and waits until it is ready, or ends.
    ///
    /// # Panics
    /// When neither happens in time.
    pub fn try_start(mut self) -> Result<Role, RoleFailure> {
        let _ = fs::remove_file(self.ready_file());
        let mut child = Killed(self.command().spawn().expect("the binary can be started"));
        let what = format!("`holdfast {}` to be ready or to end", self.name);
        let outcome = until(&what, PATIENCE, || {
            if let Some(status) = child.0.try_wait().expect("a child can be asked") {
                return Some(Err(status));
            }
            // It may be seen half written.
            let text = fs::read(self.ready_file()).ok()?;
            serde_json::from_slice::<HashMap<String, Value>>(&text).ok().map(Ok)
        });
        let ready =
            outcome.map_err(|status| RoleFailure { name: self.name, status, stderr: self.stderr() })?;
        for (name, address) in &mut self.listeners {
            let taken = ready.get(*name).and_then(Value::as_str).and_then(|text| text.parse().ok());
            *address = taken.unwrap_or_else(|| panic!("the ready file has no address `{name}`: {ready:?}"));
        }
        Ok(Role { setup: self, child })
    }

    fn command(&self) -> Command {
        let binary = find_binary();
        let mut command = match &self.view {
            Some(view) => view.command(&binary),
            None => Command::new(binary),
        };
        command.arg(self.name).arg("--ready-file").arg(self.ready_file());
        // Even a test that is killed leaves nothing behind.
        command.arg("--end-with").arg(std::process::id().to_string());
        for (name, address) in &self.listeners {
            command.arg(format!("--{name}")).arg(address.to_string());
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
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

impl Role {
    /// Where it listens: `link`, `push`, `admin`, `mqtt` or `ws`.
    ///
    /// # Panics
    /// When it has no such listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let found = self.setup.listeners.iter().find(|(name, _)| *name == listener);
        found.unwrap_or_else(|| panic!("a {} has no listener `{listener}`", self.setup.name)).1
    }

    /// `gateway` or `bridge`.
    pub fn name(&self) -> &'static str {
        self.setup.name
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The data directory of a bridge.
    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir()
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
        metrics::Snapshot::of(self.address("admin"))
    }

    /// The status of `/readyz`, unless nobody answers.
    pub fn readiness(&self) -> Option<u16> {
        http::request(self.address("admin"), "GET", "/readyz", &[], b"").ok().map(|answer| answer.status)
    }

    /// Bytes of memory that it holds.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Time that it has spent on processors since it was started, of all its threads.
    ///
    /// # Panics
    /// When it does not run.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    /// Kills it as a power failure would, and waits for its end.
    ///
    /// # Panics
    /// When it is not a child that can be killed.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("a child can be killed");
        self.child.0.wait().expect("a child can be awaited");
    }

    /// SIGSTOP: it keeps its sockets and says nothing.
    pub fn pause(&self) {
        send(self.pid(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        send(self.pid(), Signal::CONT);
    }

    /// SIGHUP.
    pub fn reload(&self) {
        send(self.pid(), Signal::HUP);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        send(self.pid(), Signal::TERM);
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the child cannot be asked.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.0.try_wait().expect("a child can be asked")
    }

    /// Waits for the end of a process that was told to end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn await_exit(&mut self, within: Duration) -> ExitStatus {
        until(&format!("`holdfast {}` to end", self.setup.name), within, || self.ended())
    }

    /// Starts it again after its end: same directory, same addresses.
    ///
    /// # Panics
    /// As [`RoleSetup::start`].
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Starts it again after its end, and waits until it is ready or ends once more.
    ///
    /// # Panics
    /// When neither happens in time, or when it still runs.
    pub fn try_restart(&mut self) -> Result<(), RoleFailure> {
        assert!(self.ended().is_some(), "it still runs");
        *self = self.setup.clone().try_start()?;
        Ok(())
    }

    /// The folder of its ready file and what it said.
    pub fn folder(&self) -> &Path {
        self.setup.folder.path()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = self.stderr();
            let lines: Vec<_> = said.lines().rev().take(60).collect();
            eprintln!("--- the end of what `holdfast {}` said ---", self.setup.name);
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl std::fmt::Display for RoleFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`holdfast {}` ended with {} and said:\n{}", self.name, self.status, self.stderr)
    }
}
