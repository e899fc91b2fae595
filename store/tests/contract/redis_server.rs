//! A real Redis for the tests: the one that `REDIS_URL` names, or one of our own on a free port, of the program that `REDIS_SERVER`
//! names (`valkey-server` does as well).

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_mins(1);

/// Starts the server in a directory of its own, and sees that neither outlives who holds its standard input, however that ends.
const KEEPER: &str = r#"
dir=$(mktemp -d) || exit 1
printf '%s' "$3" >"$dir/conf"
"$4" "$dir/conf" --port "$1" --bind 127.0.0.1 --dir "$dir" --save '' --daemonize no $2 >"$dir/log" 2>&1 &
server=$!
echo $server
cat >/dev/null
kill -CONT $server 2>/dev/null
kill -KILL $server 2>/dev/null
rm -rf "$dir"
"#;

/// A server that ends with this value, or with this process.
pub(crate) struct RedisServer {
    keeper: Child,
    server: u32,
    port: u16,
}

impl RedisServer {
    /// Starts one with further arguments, and waits until it answers.
    pub(crate) fn start(arguments: &str) -> Self {
        Self::start_on(free_port(), arguments)
    }

    pub(crate) fn start_on(port: u16, arguments: &str) -> Self {
        Self::configured(port, arguments, "")
    }

    /// Starts one with a file of configuration as well.
    pub(crate) fn configured(port: u16, arguments: &str, configuration: &str) -> Self {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let found = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        assert!(
            found.is_ok(),
            "{program} is not installed: run e2e/services/redis.sh install, or set REDIS_URL"
        );
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", &port.to_string(), arguments, configuration, &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = line.trim().parse().unwrap();
        let this = Self { keeper, server, port };
        let started = Instant::now();
        while !this.answers() {
            assert!(started.elapsed() < READY_WITHIN, "redis-server does not answer on port {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
        this
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends the server itself a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.server.to_string()]).status();
        assert!(sent.unwrap().success(), "kill -{name} {}", self.server);
    }

    /// A connection of the test's own. A server that is told to follow another one ends those it has.
    pub(crate) fn connection(&self) -> redis::Connection {
        let started = Instant::now();
        loop {
            match redis::Client::open(self.url()).unwrap().get_connection() {
                Ok(connection) => return connection,
                Err(error) => assert!(started.elapsed() < READY_WITHIN, "{}: {error}", self.url()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(1));
        // One that wants a password answers too.
        connection.map_or_else(
            |error| !error.is_io_error(),
            |mut connection| match redis::cmd("PING").query::<String>(&mut connection) {
                Ok(_) => true,
                Err(error) => matches!(error.code(), Some("NOAUTH")),
            },
        )
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A port that nobody had a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits for a state.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < READY_WITHIN, "{what}: not within {READY_WITHIN:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The server that the tests of this process share. It ends with the process.
pub(crate) fn shared_url() -> String {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    std::env::var("REDIS_URL")
        .unwrap_or_else(|_| SERVER.get_or_init(|| RedisServer::start("--databases 1")).url())
}
