//! Redis and Kafka for one measurement: started on free ports and empty folders, or those that run already.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::StartError;

/// For Redis to answer a PING.
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// As Kafka's own start script has it. In less, its collector marks the whole heap at every other turn of a measurement, which stops the broker
/// for 10 ms and takes a core for 60 from all others.
const KAFKA_HEAP: &str = "-Xms1g -Xmx1g";

/// A Redis that keeps an append-only file and syncs it for each answer.
#[derive(Debug)]
pub struct Redis {
    url: String,
    own: Option<OwnRedis>,
}

#[derive(Debug)]
struct OwnRedis {
    child: Child,
    _folder: TempDir,
}

impl Redis {
    pub(super) fn given(url: &str) -> Self {
        Self { url: url.to_owned(), own: None }
    }

    pub(super) fn start() -> Result<Self, StartError> {
        Self::try_start().map_err(|error| {
            let hint = "Debian's package redis-server has it (e2e/services/redis.sh install), or name one by --redis";
            StartError::new("Redis", format!("{error}; {hint}"))
        })
    }

    fn try_start() -> io::Result<Self> {
        let folder = TempDir::with_prefix("holdfast-loadgen-redis-")?;
        let said = folder.path().join("log");
        let address = free_address()?;
        // The kernel ends it if this process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--port", &address.port().to_string(), "--dir"]).arg(folder.path());
        command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(Stdio::null());
        let redis = OwnRedis { child: command.spawn()?, _folder: folder };
        let mut redis = Self { url: format!("redis://{address}"), own: Some(redis) };
        redis.wait_for(address, &said)?;
        Ok(redis)
    }

    fn wait_for(&mut self, address: SocketAddr, said: &Path) -> io::Result<()> {
        let deadline = Instant::now() + START;
        while !answers(address) {
            let ended = self.own.as_mut().and_then(|own| own.child.try_wait().ok().flatten());
            if let Some(status) = ended {
                let said = fs::read_to_string(said).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(io::Error::other(format!("redis-server ended with {status} {last}")));
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// For `--store`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process, if it was started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.child.id())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Apache Kafka: one broker that `kafka.sh` starts, or brokers that run already.
#[derive(Debug)]
pub struct Kafka {
    brokers: String,
    own: Option<OwnKafka>,
}

#[derive(Debug)]
struct OwnKafka {
    script: PathBuf,
    folder: TempDir,
}

impl Kafka {
    pub(super) fn given(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), own: None }
    }

    pub(super) fn start(services: &Path) -> Result<Self, StartError> {
        let failed = |why: &dyn std::fmt::Display| StartError::new("Kafka", why);
        let folder = TempDir::with_prefix("holdfast-loadgen-kafka-").map_err(|error| failed(&error))?;
        let own = OwnKafka { script: services.join("kafka.sh"), folder };
        let pid = std::process::id().to_string();
        // With --while it ends even if this process is killed.
        let started = Command::new(&own.script)
            .args(["start", "--while", &pid])
            .arg(own.folder.path())
            .env("KAFKA_HEAP_OPTS", KAFKA_HEAP)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| {
                let script = own.script.display();
                failed(&format!("{script}: {error}; --services names its folder, --kafka brokers that run"))
            })?;
        let said = String::from_utf8_lossy(&started.stdout);
        let brokers = said.lines().find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
        let brokers = brokers.ok_or_else(|| failed(&format!("its script ended with {}", started.status)))?;
        Ok(Self { brokers: brokers.to_owned(), own: Some(own) })
    }

    /// `HOST:PORT,…`
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Its process, if it was started here.
    pub fn pid(&self) -> Option<u32> {
        let own = self.own.as_ref()?;
        fs::read_to_string(own.folder.path().join("broker-1/pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        let stop = Command::new(&self.script).arg("stop").arg(self.folder.path()).status();
        // What cannot be stopped ends with this process.
        drop(stop);
    }
}

/// Below the ports of outgoing connections, so that none of them takes it before Redis listens.
fn free_address() -> io::Result<SocketAddr> {
    let first = std::process::id() % 10_000;
    let mut ports = (0..10_000).map(|index| (20_000 + (first + index) % 10_000) as u16);
    let free = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    free.ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))?.local_addr()
}

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
    fn without_its_script_kafka_says_what_to_name() {
        let error = Kafka::start(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("Kafka did not start: /nowhere/kafka.sh: "), "{error}");
        assert!(error.contains("--services") && error.contains("--kafka"), "{error}");
    }

    #[test]
    fn whoever_listens_and_is_no_redis_is_not_taken_for_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || listener.accept().map(|(stream, _)| drop(stream)));
        assert!(!answers(address));
        peer.join().unwrap().unwrap();
    }
}
