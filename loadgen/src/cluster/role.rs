//! `holdfast gateway` or `holdfast bridge` as a child on free ports.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use super::StartError;

/// From start to the ready file. A bridge waits for Kafka meanwhile.
const START: Duration = Duration::from_mins(1);

/// From SIGTERM to SIGKILL.
const STOP: Duration = Duration::from_secs(45);

const LOOK: Duration = Duration::from_millis(20);

/// A process that runs until it is killed, stopped or dropped.
#[derive(Debug)]
pub struct Role {
    name: &'static str,
    child: Child,
    ready: Ready,
    folder: TempDir,
}

/// What it writes to its ready file, as far as it matters here.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Ready {
    mqtt: Option<SocketAddr>,
    ws: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    push: Option<SocketAddr>,
    link: Option<SocketAddr>,
}

impl Role {
    pub(super) fn start(program: &Path, name: &'static str, arguments: &[&str]) -> Result<Self, StartError> {
        Self::try_start(program, name, arguments).map_err(|error| StartError::new(name, error))
    }

    fn try_start(program: &Path, name: &'static str, arguments: &[&str]) -> io::Result<Self> {
        let folder = TempDir::with_prefix(format!("holdfast-loadgen-{name}-"))?;
        let (ready_file, said) = (folder.path().join("ready.json"), folder.path().join("stderr"));
        let mut command = Command::new(program);
        command.arg(name).args(arguments).arg("--ready-file").arg(&ready_file);
        command.args(["--end-with", &std::process::id().to_string()]);
        if name == "bridge" {
            command.arg("--data-dir").arg(data_dir(&folder));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
        let mut child = command.spawn()?;
        let ready = wait_for(&mut child, &ready_file, &said);
        match ready {
            Ok(ready) => Ok(Self { name, child, ready, folder }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// MQTT over TCP, of a gateway.
    pub fn mqtt(&self) -> Option<SocketAddr> {
        self.ready.mqtt
    }

    /// WebSocket, of a gateway.
    pub fn ws(&self) -> Option<SocketAddr> {
        self.ready.ws
    }

    /// Metrics and health.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.ready.admin
    }

    /// `POST /v1/push`, of a bridge.
    pub fn push(&self) -> Option<SocketAddr> {
        self.ready.push
    }

    pub(super) fn link(&self) -> Option<SocketAddr> {
        self.ready.link
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `gateway` or `bridge`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The data directory of a bridge, in which its log is.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.folder)
    }

    /// How it ended, if it did by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended with {status}{}", self.name, last_words(&self.folder.path().join("stderr"))))
    }

    /// SIGKILL: as a power failure would.
    pub fn kill(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and SIGKILL if that is not enough.
    pub fn stop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                self.kill();
                return;
            }
            sleep(LOOK);
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Nothing of it is needed any more, so nobody waits for an orderly end.
        self.kill();
    }
}

fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

fn wait_for(child: &mut Child, ready_file: &Path, said: &Path) -> io::Result<Ready> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}{}", last_words(said))));
        }
        // Half a file does not parse, and is read again.
        if let Ok(ready) = serde_json::from_slice(&fs::read(ready_file).unwrap_or_default()) {
            return Ok(ready);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::other(format!("not ready within {} s", START.as_secs())));
        }
        sleep(LOOK);
    }
}

/// The last line that a process said, behind a colon.
fn last_words(said: &Path) -> String {
    let text = fs::read(said).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_at_once_says_why_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\necho no such store >&2\nexit 3\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        // A copy of this process that starts another at this moment may hold the script open for writing.
        let deadline = Instant::now() + START;
        let error = loop {
            let error = Role::start(&program, "gateway", &[]).unwrap_err().to_string();
            if !error.contains("busy") || Instant::now() >= deadline {
                break error;
            }
        };
        assert_eq!(error, "gateway did not start: it ended with exit status: 3: no such store");
    }
}
