//! A `holdfast dev` as a child process: started on free ports in a directory of its own, awaited, measured, stopped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_loadgen::bench::{CpuTime, Processes};
use rustix::process::{Pid, Signal, kill_process};

use crate::ready_file::Ready;

/// From the start to the ready file. Opening an empty directory takes milliseconds; a busy machine may take longer.
const START_WITHIN: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Lines of its log that are shown if it fails.
const LOG_LINES_SHOWN: usize = 20;

/// A running child; killed when this is dropped.
pub(crate) struct DevProcess {
    child: Child,
    ready: Ready,
    folder: PathBuf,
}

impl DevProcess {
    /// Starts one in `folder`, which is empty, and waits until it admits devices. The error is its last words.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let ready_file = folder.join("ready.json");
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        command.args(["dev", "--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(folder.join("data")).arg("--ready-file").arg(&ready_file);
        command.arg("--end-with").arg(std::process::id().to_string());
        // What the operator set for a gateway of theirs is not meant for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLDFAST_") {
                command.env_remove(name);
            }
        }
        let log = File::create(folder.join("stderr")).map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // An interrupt on the terminal is for us; we stop the child in our own time.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| format!("{error}"))?;
        match await_ready(&mut child, &ready_file) {
            Ok(ready) => Ok(Self { child, ready, folder: folder.to_owned() }),
            Err(why) => {
                // Both fail if it is gone already.
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("{why}\n{}", last_words(folder)))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The directory of its log.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.folder.join("data/log")
    }

    /// CPU that it has used so far; none if it is gone.
    pub(crate) fn cpu(&self) -> Option<CpuTime> {
        Processes::new(vec![self.child.id()]).cpu().ok()
    }

    /// The most memory that it ever held, in bytes; none if it is gone.
    pub(crate) fn resident_bytes_peak(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1_024)
    }

    /// How it ended, with its last words; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the gateway ended with {status}\n{}", last_words(&self.folder)))
    }

    /// Drains it and waits for its end. The error says how it ended instead, with its last words.
    pub(crate) fn stop(mut self, within: Duration) -> Result<(), String> {
        // Fails only if it is gone, which the wait below tells better.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + within;
        let ended = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break describe(status),
                Ok(None) if Instant::now() >= deadline => {
                    break Err(format!("did not end within {within:?}"));
                }
                Ok(None) => thread::sleep(LOOK_EVERY),
                Err(error) => break Err(error.to_string()),
            }
        };
        ended.map_err(|how| format!("the gateway {how}\n{}", last_words(&self.folder)))
    }
}

impl Drop for DevProcess {
    fn drop(&mut self) {
        // Both fail if it has been stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_ready(child: &mut Child, ready_file: &Path) -> Result<Ready, String> {
    let deadline = Instant::now() + START_WITHIN;
    loop {
        match Ready::read(ready_file) {
            Ok(ready) => return Ok(ready),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            Err(_) => {}
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the gateway did not start: {status}"));
        }
        if Instant::now() >= deadline {
            return Err(format!("the gateway was not ready within {START_WITHIN:?}"));
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn describe(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

fn last_words(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
