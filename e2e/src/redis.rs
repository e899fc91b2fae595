//! A real Redis for one test, in each of its forms: one server, a primary with sentinels, or a cluster. Started on free ports and empty
//! directories, killed, stopped and continued, started again with what it had stored. Its processes end with the value, and with the test
//! process if that is killed. A test that needs no power over it takes what `REDIS_URL` names, if it names one.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
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

/// For Redis to answer a question, on a machine that is busy. Short against all that is awaited by asking again.
const ANSWER: Duration = Duration::from_secs(5);
/// For another server to take the place of one that died: noticed after one or two seconds, voted on, promoted.
const SUCCESSION: Duration = Duration::from_mins(1);

/// What serves as the session store. In the forms with replicas each answer waits for one of them, so that one death loses nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedisForm {
    /// One server.
    #[default]
    Alone,
    /// A primary, two replicas and three sentinels.
    Sentinel,
    /// Three primaries, each with two replicas.
    Cluster,
}

/// Servers that keep append-only files.
#[derive(Debug)]
pub struct Redis {
    servers: Servers,
    folder: TempDir,
}

#[derive(Debug)]
enum Servers {
    One {
        address: SocketAddr,
        arguments: Vec<String>,
        child: Killed,
    },
    Several {
        form: RedisForm,
        url: String,
    },
    /// Of somebody else.
    Foreign {
        url: String,
    },
}

impl Redis {
    /// One server.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One server with further arguments, such as `--requirepass secret`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = folder();
        let address = free_address();
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = Killed(start_one(folder.path(), address, &arguments));
        Self { servers: Servers::One { address, arguments, child }, folder }
    }

    /// The one that `REDIS_URL` in the environment names, or one of our own. Nobody may kill, stop or ask it, or expect to be alone there.
    ///
    /// # Panics
    /// When one is started and does not come up.
    pub fn any() -> Self {
        match env::var("REDIS_URL") {
            Ok(url) => Self { servers: Servers::Foreign { url }, folder: folder() },
            Err(_) => Self::start(),
        }
    }

    /// In one of its forms, through `services/redis.sh`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_as(form: RedisForm) -> Self {
        if form == RedisForm::Alone {
            return Self::start();
        }
        let folder = folder();
        let url = format!("{}?replicas=1", start_several(folder.path(), form));
        Self { servers: Servers::Several { form, url }, folder }
    }

    /// Where the one server listens.
    ///
    /// # Panics
    /// When there are several.
    pub fn address(&self) -> SocketAddr {
        match &self.servers {
            Servers::One { address, .. } => *address,
            Servers::Several { url, .. } | Servers::Foreign { url } => {
                panic!("{url} is not one server of ours")
            }
        }
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        match &self.servers {
            Servers::One { address, .. } => format!("redis://{address}"),
            Servers::Several { url, .. } | Servers::Foreign { url } => url.clone(),
        }
    }

    /// What the one server answers to a line such as `GET key`; the first line of it.
    ///
    /// # Panics
    /// When it does not answer, or there are several.
    pub fn ask(&self, line: &str) -> String {
        ask(self.address(), line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// What the one server has under the first key that matches `pattern`, with what its protocol says about that; little if there is none.
    ///
    /// # Panics
    /// As [`Redis::ask`].
    pub fn value(&self, pattern: &str) -> Vec<u8> {
        let line = format!(
            "EVAL \"local keys = redis.call('KEYS', ARGV[1]); return keys[1] and redis.call('GET', keys[1])\" 0 {pattern}"
        );
        answer(self.address(), &line).unwrap_or_else(|error| panic!("{pattern}: {error}"))
    }

    /// Kills the server, or the primary (of several the first), as a power failure of the process would, and waits for its end.
    ///
    /// # Panics
    /// When there is none to kill.
    pub fn kill(&mut self) {
        if let Servers::One { child, .. } = &mut self.servers {
            child.0.kill().expect("a child can be killed");
            child.0.wait().expect("a child can be awaited");
            return;
        }
        let primary = self.primaries().into_iter().next().expect("one of them is a primary");
        send(primary.pid().expect("it runs"), Signal::KILL);
        until_true("a killed server to be gone", PATIENCE, || primary.pid().is_none());
    }

    /// After [`Redis::kill`] of a primary: until others have as many primaries as there were.
    ///
    /// # Panics
    /// When that does not come to be, or there is nobody to take its place.
    pub fn await_successor(&self) {
        let wanted = match self.servers {
            Servers::Several { form: RedisForm::Cluster, .. } => 3,
            Servers::Several { .. } => 1,
            _ => panic!("one server has no successor"),
        };
        until_true("a replica to be promoted", SUCCESSION, || self.primaries().len() == wanted);
    }

    /// SIGSTOP to the server, or to every primary: it accepts and never answers.
    pub fn pause(&self) {
        match &self.servers {
            Servers::One { child, .. } => send(child.0.id(), Signal::STOP),
            _ => {
                for pid in self.primaries().iter().filter_map(Server::pid) {
                    send(pid, Signal::STOP);
                }
            }
        }
    }

    /// SIGCONT to all.
    pub fn resume(&self) {
        match &self.servers {
            Servers::One { child, .. } => send(child.0.id(), Signal::CONT),
            _ => {
                for pid in self.all().iter().filter_map(Server::pid) {
                    send(pid, Signal::CONT);
                }
            }
        }
    }

    /// After [`Redis::kill`] of one server: takes away what it had stored.
    ///
    /// # Panics
    /// When its directory cannot be changed.
    pub fn forget(&self) {
        fs::remove_dir_all(self.folder.path().join("appendonlydir")).expect("a directory of our own");
    }

    /// Starts again what was killed: same directory, same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        match &mut self.servers {
            Servers::One { address, arguments, child } => {
                *child = Killed(start_one(self.folder.path(), *address, arguments));
            }
            Servers::Several { form, .. } => drop(start_several(self.folder.path(), *form)),
            Servers::Foreign { url } => panic!("nobody but its owner starts {url}"),
        }
    }

    /// Those of several that run and say that they are primaries.
    fn primaries(&self) -> Vec<Server> {
        let is_primary = |server: &Server| {
            server.pid().is_some() && server.says("ROLE").is_some_and(|role| role == "master")
        };
        self.all().into_iter().filter(is_primary).collect()
    }

    /// Servers and sentinels, in the order of their names.
    fn all(&self) -> Vec<Server> {
        let entries = fs::read_dir(self.folder.path()).expect("a directory of our own");
        let folders = entries.map(|entry| entry.expect("a directory of our own").path());
        let mut servers: Vec<_> =
            folders.filter(|folder| folder.join("pid").exists()).map(|folder| Server { folder }).collect();
        servers.sort_by(|one, other| one.folder.cmp(&other.folder));
        servers
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if !matches!(self.servers, Servers::Several { .. }) {
            return;
        }
        // Nothing of it is needed any more, so nobody waits for an orderly end. Sentinels come first: none of them promotes anyone.
        for server in self.all().iter().rev() {
            if let Some(pid) = server.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if thread::panicking() {
            for server in self.all() {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(10).collect();
                eprintln!("--- the end of what {} said ---", server.folder.display());
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// One of several.
#[derive(Debug)]
struct Server {
    folder: PathBuf,
}

impl Server {
    fn number(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    /// Unless it is dead. A number may have gone to another process meanwhile; the command line tells. One that waits to be reaped has none.
    fn pid(&self) -> Option<u32> {
        let (pid, port) = (self.number("pid")?, self.number("port")?);
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(&format!(":{port}")).then_some(pid)
    }

    fn says(&self, line: &str) -> Option<String> {
        let port = u16::try_from(self.number("port")?).ok()?;
        ask(SocketAddr::from(([127, 0, 0, 1], port)), line).ok()
    }
}

fn folder() -> TempDir {
    TempDir::with_prefix("holdfast-redis-").expect("the system's temporary folder is writable")
}

/// The URL that the script prints.
fn start_several(folder: &Path, form: RedisForm) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/redis.sh");
    let mut command = Command::new(script);
    match form {
        RedisForm::Alone => command.arg("start"),
        RedisForm::Sentinel => command.arg("sentinel"),
        RedisForm::Cluster => command.args(["cluster", "--replicas", "2"]),
    };
    command.args(["--while", &std::process::id().to_string()]).arg(folder);
    let output = command.stdin(Stdio::null()).output().expect("redis.sh can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "redis.sh ended with {}: {complaint}", output.status);
    let text = String::from_utf8(output.stdout).expect("an address is UTF-8");
    let url = text.lines().find_map(|line| line.strip_prefix("REDIS_URL="));
    url.unwrap_or_else(|| panic!("redis.sh names no URL: {text}")).to_owned()
}

fn start_one(folder: &Path, address: SocketAddr, arguments: &[String]) -> Child {
    let log =
        File::options().create(true).append(true).open(folder.join("stdout")).expect("a file of our own");
    // The kernel ends it if the test is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--port", &address.port().to_string()]);
    command.arg("--dir").arg(folder).args(arguments).stdin(Stdio::null()).stdout(log);
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

/// While it loads its file it answers with an error; one that wants a password is there as well.
fn answers(address: SocketAddr) -> bool {
    ask(address, "PING").is_ok_and(|answer| answer == "PONG" || answer.starts_with("NOAUTH"))
}

/// The first text of the answer to a line.
fn ask(address: SocketAddr, line: &str) -> io::Result<String> {
    let answer = answer(address, line)?;
    let answer = String::from_utf8_lossy(&answer);
    // `*` and `$` are lengths of what follows.
    let text = answer.lines().find(|line| !line.starts_with(['*', '$']));
    Ok(text.unwrap_or_default().trim_start_matches(['+', '-', ':']).to_owned())
}

/// The answer to a line as it came, and that to a goodbye.
fn answer(address: SocketAddr, line: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_was_killed_comes_back_with_what_it_had() {
        let mut redis = Redis::start();
        assert_eq!(redis.ask("SET kept yes"), "OK");
        redis.kill();
        redis.restart();
        assert_eq!(redis.ask("GET kept"), "yes");
        assert!(redis.value("k*").starts_with(b"$3\r\nyes\r\n"));
        redis.pause();
        assert!(!answers(redis.address()));
        redis.resume();
        until_true("Redis to answer again", PATIENCE, || answers(redis.address()));
    }

    #[test]
    fn a_primary_that_was_killed_has_a_successor_and_comes_back_as_its_replica() {
        for form in [RedisForm::Sentinel, RedisForm::Cluster] {
            let mut redis = Redis::start_as(form);
            redis.await_successor();
            let before = redis.primaries();
            redis.kill();
            redis.await_successor();
            let after = redis.primaries();
            assert_ne!(after[0].folder, before[0].folder, "{form:?}");
            redis.restart();
            let former = &before[0];
            until_true("the former primary to follow", SUCCESSION, || {
                former.says("ROLE").is_some_and(|role| role == "slave")
            });
        }
    }
}
