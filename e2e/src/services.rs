//! Real Kafka and Redis for one test: started on free ports and empty directories, killed, stopped and continued, started again with what they
//! had stored. Their processes end with the value, and with the test process if that is killed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ports::free_address;
use crate::process::{Killed, send};
use crate::wait::{PATIENCE, until, until_true};

/// For Redis to answer a PING.
const ANSWER: Duration = Duration::from_secs(1);

/// Apache Kafka of one broker or three, through `services/kafka.sh`.
#[derive(Debug)]
pub struct Kafka {
    folder: TempDir,
    brokers: Vec<SocketAddr>,
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

    /// Starts as many brokers as there are proxies; [`Kafka::behind`] is where those must lead.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn start_behind(proxies: &[SocketAddr]) -> Self {
        let ports: Vec<_> = proxies.iter().map(|proxy| proxy.port().to_string()).collect();
        Self::start_with(&["--brokers", &proxies.len().to_string(), "--behind", &ports.join(",")])
    }

    fn start_with(options: &[&str]) -> Self {
        let folder =
            TempDir::with_prefix("holdfast-kafka-").expect("the system's temporary folder is writable");
        let addresses = start_brokers(folder.path(), options);
        let of = |name: &str| -> Vec<SocketAddr> {
            let list = addresses.get(name).map(String::as_str).unwrap_or_default();
            list.split_terminator(',').map(|address| address.parse().expect("an address")).collect()
        };
        Self {
            brokers: of("KAFKA_BROKERS"),
            sasl: of("KAFKA_SASL_BROKERS"),
            behind: of("KAFKA_BEHIND"),
            folder,
        }
    }

    /// `HOST:PORT,…`
    pub fn brokers(&self) -> String {
        list(&self.brokers)
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
    /// When they do not come up.
    pub fn restart(&self) {
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
        for broker in (0..self.brokers.len()).filter(|broker| self.runs(*broker)) {
            if let Some(pid) = self.pid_of(broker).and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if thread::panicking() {
            for broker in 0..self.brokers.len() {
                let log = fs::read_to_string(self.folder_of(broker).join("log")).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(20).collect();
                eprintln!("--- the end of what broker {broker} said ---");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
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

/// A Redis that keeps an append-only file.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    address: SocketAddr,
    child: Killed,
}

impl Redis {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start() -> Self {
        let folder =
            TempDir::with_prefix("holdfast-redis-").expect("the system's temporary folder is writable");
        let address = free_address();
        let child = Killed(start_redis(folder.path(), address));
        Self { folder, address, child }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it as a power failure of the process would, and waits for its end.
    ///
    /// # Panics
    /// When it is not a child that can be killed.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("a child can be killed");
        self.child.0.wait().expect("a child can be awaited");
    }

    /// SIGSTOP: it accepts and never answers.
    pub fn pause(&self) {
        send(self.child.0.id(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        send(self.child.0.id(), Signal::CONT);
    }

    /// After [`Redis::kill`]: takes away what it had stored.
    ///
    /// # Panics
    /// When its directory cannot be changed.
    pub fn forget(&self) {
        fs::remove_dir_all(self.folder.path().join("appendonlydir")).expect("a directory of our own");
    }

    /// Starts it again after [`Redis::kill`]: same directory, same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.child = Killed(start_redis(self.folder.path(), self.address));
    }
}

fn start_redis(folder: &Path, address: SocketAddr) -> Child {
    let log =
        File::options().create(true).append(true).open(folder.join("stdout")).expect("a file of our own");
    // The kernel ends it if the test is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", ""]);
    command
        .args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--port",
            &address.port().to_string(),
            "--dir",
        ])
        .arg(folder);
    command.stdin(Stdio::null()).stdout(log);
    let mut child = command.spawn().expect("setpriv can be started");
    until("Redis to answer", PATIENCE, || {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            let said = fs::read_to_string(folder.join("stdout")).unwrap_or_default();
            panic!("redis-server ended with {status}: {said} (Debian's package redis-server has it)");
        }
        answers(address).then_some(())
    });
    child
}

/// While it loads its file it answers with an error.
fn answers(address: SocketAddr) -> bool {
    let ping = || {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).map(|()| &answer == b"+PONG")
    };
    ping().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_was_killed_comes_back_with_what_it_had() {
        let mut redis = Redis::start();
        let say = |redis: &Redis, line: &str| {
            let mut stream = TcpStream::connect(redis.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(say(&redis, "SET kept yes").starts_with("+OK"));
        redis.kill();
        redis.restart();
        assert!(say(&redis, "GET kept").contains("yes"));
        redis.pause();
        assert!(!answers(redis.address()));
        redis.resume();
        until_true("Redis to answer again", PATIENCE, || answers(redis.address()));
    }
}
