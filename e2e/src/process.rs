//! The binary under test and what the kernel tells of its process.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// What `/proc` counts in, whatever clock the kernel has of its own.
const TICKS_PER_S: u64 = 100;

/// `target/<profile>/holdfast`, beside the test that runs.
///
/// Cargo names the binary only to tests of its own package, and these are of another; `make test` builds it first.
///
/// # Panics
/// When it is not there, with what to do.
pub fn find_binary() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    test.ancestors().map(|folder| folder.join("holdfast")).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no binary `holdfast` beside {}: `cargo build --workspace --bins` makes it", test.display())
    })
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote there.
    pub stdout: String,
    /// All it wrote there.
    pub stderr: String,
}

/// Runs the binary to its end.
///
/// # Panics
/// When it does not end in time; then it is killed.
pub fn run(arguments: &[&str], within: Duration) -> Finished {
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let output = |file: &File| Stdio::from(file.try_clone().expect("another handle"));
    let mut command = Command::new(find_binary());
    command.args(arguments).stdin(Stdio::null()).stdout(output(&stdout)).stderr(output(&stderr));
    let mut child = Killed(command.spawn().expect("the binary can be started"));
    let status = until(&format!("`holdfast {}` to end", arguments.join(" ")), within, || {
        child.0.try_wait().expect("a child can be asked")
    });
    let text = |file: &mut File| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("what it wrote is UTF-8");
        text
    };
    Finished { status, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}

/// `name` with something behind it that no other test has, for a service that several share.
pub fn unique(name: &str) -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), TAKEN.fetch_add(1, Ordering::Relaxed))
}

/// A child that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process of ours.
///
/// # Panics
/// When it is gone.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number above 0");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {pid:?}: {error}"));
}

/// Time that a process has spent on processors, in itself and in the kernel, of all its threads.
///
/// # Panics
/// When it does not run.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // Behind the name of the program, which may have spaces: fields 3, 4, …; 14 and 15 are what is asked for.
    let (_, fields) = stat.rsplit_once(')').expect("the program's name is in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().expect("a number of ticks")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
}

/// Bytes of memory that a process holds.
///
/// # Panics
/// When it does not run.
pub fn resident_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line =
        status.lines().find(|line| line.starts_with("VmRSS:")).expect("a live process has resident memory");
    let kilobytes: u64 =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("VmRSS in kB");
    kilobytes * 1024
}
