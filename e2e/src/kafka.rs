//! A real Kafka for one test: started on free ports and an empty directory, killed, stopped and continued, started again with what it
//! had stored. Its processes end with the value, and with the test process if that is killed. A test that needs no power over it takes what
//! `KAFKA_BROKERS` names, if it names some.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::send;
use crate::wait::{PATIENCE, until_true};

/// Apache Kafka of one broker or three, through `services/kafka.sh`.
#[derive(Debug)]
pub struct Kafka {
    folder: TempDir,
    /// As bootstrap servers are named.
    brokers: String,
    /// Brokers of our own.
    count: usize,
    sasl: Vec<SocketAddr>,
    behind: Vec<SocketAddr>,
}

impl Kafka {
    /// Starts 1 or 3 brokers; the first ever fetches them.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn start(brokers: usize) -> Self {
        Self::start_with(&["--brokers", &brokers.to_string()])
    }

    /// The brokers that `KAFKA_BROKERS` in the environment names (`HOST:PORT,…`), or one of our own. Nobody may kill or stop it, or expect to be alone there.
    ///
    /// # Panics
    /// When one is started and does not come up.
    pub fn any() -> Self {
        let Ok(brokers) = env::var("KAFKA_BROKERS") else { return Self::start(1) };
        Self { folder: folder(), brokers, count: 0, sasl: Vec::new(), behind: Vec::new() }
    }

    /// Starts as many brokers as there are proxies; [`Kafka::behind`] is where those must lead.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn start_behind(proxies: &[SocketAddr]) -> Self {
        let ports: Vec<_> = proxies.iter().map(|proxy| proxy.port().to_string()).collect();
        Self::start_with(&["--brokers", &proxies.len().to_string(), "--behind", &ports.join(",")])
    }

    fn start_with(options: &[&str]) -> Self {
        let folder = folder();
        let addresses = start_brokers(folder.path(), options);
        let of = |name: &str| -> Vec<SocketAddr> {
            let list = addresses.get(name).map(String::as_str).unwrap_or_default();
            list.split_terminator(',').map(|address| address.parse().expect("an address")).collect()
        };
        Self {
            brokers: list(&of("KAFKA_BROKERS")),
            count: of("KAFKA_BROKERS").len(),
            sasl: of("KAFKA_SASL_BROKERS"),
            behind: of("KAFKA_BEHIND"),
            folder,
        }
    }

    /// `HOST:PORT,…`
    pub fn brokers(&self) -> String {
        self.brokers.clone()
    }

    /// The listeners that want SASL/PLAIN, user `holdfast`, password `holdfast`.
    pub fn sasl_brokers(&self) -> String {
        list(&self.sasl)
    }

    /// The listeners that are known to clients only under the addresses of proxies.
    pub fn behind(&self) -> &[SocketAddr] {
        &self.behind
    }

    /// The process of a broker, counted from 0.
    ///
    /// # Panics
    /// When it was never started.
    pub fn pid(&self, broker: usize) -> u32 {
        self.pid_of(broker).expect("the broker was started")
    }

    /// Kills a broker as a power failure would, and waits for its end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self, broker: usize) {
        send(self.pid(broker), Signal::KILL);
        until_true("a killed broker to be gone", PATIENCE, || !self.runs(broker));
    }

    /// SIGSTOP: it keeps its sockets and says nothing.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self, broker: usize) {
        send(self.pid(broker), Signal::STOP);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self, broker: usize) {
        send(self.pid(broker), Signal::CONT);
    }

    /// Starts every broker again that does not run, and waits until they answer.
    ///
    /// # Panics
    /// When they do not come up, or are not ours.
    pub fn restart(&self) {
        assert!(self.count > 0, "nobody but its owner starts {}", self.brokers);
        start_brokers(self.folder.path(), &[]);
    }

    fn folder_of(&self, broker: usize) -> PathBuf {
        self.folder.path().join(format!("broker-{}", broker + 1))
    }

    fn pid_of(&self, broker: usize) -> Option<u32> {
        fs::read_to_string(self.folder_of(broker).join("pid")).ok()?.trim().parse().ok()
    }

    /// A number may have gone to another process meanwhile; the command line tells. One that waits to be reaped has none.
    fn runs(&self, broker: usize) -> bool {
        let Some(pid) = self.pid_of(broker) else { return false };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&*self.folder_of(broker).to_string_lossy())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Nothing of it is needed any more, so nobody waits for an orderly end.
        for broker in (0..self.count).filter(|broker| self.runs(*broker)) {
            if let Some(pid) = self.pid_of(broker).and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if thread::panicking() {
            for broker in 0..self.count {
                let log = fs::read_to_string(self.folder_of(broker).join("log")).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(20).collect();
                eprintln!("--- the end of what broker {broker} said ---");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

fn folder() -> TempDir {
    TempDir::with_prefix("holdfast-kafka-").expect("the system's temporary folder is writable")
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

/// The lines `NAME=value` that the script prints.
fn start_brokers(folder: &Path, options: &[&str]) -> HashMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/kafka.sh");
    let output = Command::new(script)
        .arg("start")
        .args(options)
        .arg("--while")
        .arg(std::process::id().to_string())
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .expect("kafka.sh can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kafka.sh ended with {}: {complaint}", output.status);
    let text = String::from_utf8(output.stdout).expect("addresses are UTF-8");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
