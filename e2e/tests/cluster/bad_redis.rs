//! A start with a Redis that cannot serve: one clear line, an exit code, and no port that anyone could have used meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use holdfast_e2e::wait::{PATIENCE, until};
use holdfast_e2e::{Redis, RoleSetup};

/// Each role with this store.
fn roles(url: &str) -> [RoleSetup; 2] {
    let bridge = RoleSetup::bridge().argument("--sink", "log");
    let gateway = RoleSetup::gateway().argument("--bridge", "127.0.0.1:1");
    [bridge, gateway].map(|setup| setup.argument("--store", url))
}

/// Each role ends with one line that has these words, and not those that are secret.
#[track_caller]
fn assert_refused(url: &str, words: &[&str], secret: &str) {
    for setup in roles(url) {
        let addresses = setup.addresses();
        let failure = setup.try_start().expect_err("it must not start");
        assert_eq!(failure.status.code(), Some(2), "{failure}");
        assert_eq!(failure.stderr.trim_end().lines().count(), 1, "{failure}");
        for word in words {
            assert!(failure.stderr.contains(word), "{word:?} is not in: {failure}");
        }
        assert!(secret.is_empty() || !failure.stderr.contains(secret), "{failure}");
        assert_closed(&addresses);
    }
}

#[track_caller]
fn assert_closed(addresses: &[SocketAddr]) {
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is open");
    }
}

#[test]
fn a_wrong_password_is_one_line_without_it() {
    let redis = Redis::start_with(&["--requirepass", "open-sesame"]);
    let url = |login: &str| format!("redis://{login}{}", redis.address());
    for (login, secret) in [(":open-barley@", "barley"), ("", "sesame"), ("somebody:open-sesame@", "sesame")]
    {
        assert_refused(&url(login), &["store.url", &redis.address().to_string(), "password"], secret);
    }
    let [bridge, _] = roles(&url(":open-sesame@"));
    drop(bridge.start());
}

#[test]
fn a_replica_that_cannot_be_written_is_one_line() {
    let primary = Redis::start();
    let port = primary.address().port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]);
    assert_refused(
        &replica.url(),
        &["store.url", &replica.address().to_string(), "is a replica", "master"],
        "",
    );
}

#[test]
fn keys_of_another_format_are_one_line_and_stay() {
    let redis = Redis::start();
    assert_eq!(redis.ask("SET hf{0}:format 9"), "OK");
    assert_refused(&redis.url(), &["store.url", "hf{0}:format", "format 9", "empty database"], "");
    assert_eq!(redis.ask("GET hf{0}:format"), "9");
    assert_eq!(redis.ask("DBSIZE"), "1");
}

#[test]
fn a_redis_that_is_too_old_is_one_line_and_nobody_listens_while_it_is_asked() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for setup in roles(&format!("redis://{address}")) {
        let addresses = setup.addresses();
        let failure = thread::scope(|scope| {
            let starting = scope.spawn(|| setup.try_start().expect_err("it must not start"));
            let (stranger, _) = until("Redis to be asked", PATIENCE, || listener.accept().ok());
            stranger.set_nonblocking(false).unwrap();
            stranger.set_read_timeout(Some(PATIENCE)).unwrap();
            answer_as_redis_6(&stranger, &addresses);
            starting.join().expect("it ends")
        });
        assert_eq!(failure.status.code(), Some(2), "{failure}");
        assert_eq!(failure.stderr.trim_end().lines().count(), 1, "{failure}");
        for word in ["store.url", "too old", "6.2.14", "7"] {
            assert!(failure.stderr.contains(word), "{word:?} is not in: {failure}");
        }
        assert_closed(&addresses);
    }
}

/// As much of a Redis of another time as anyone asks before going away.
fn answer_as_redis_6(client: &TcpStream, closed: &[SocketAddr]) {
    let mut requests = BufReader::new(client);
    while let Some(command) = read_command(&mut requests) {
        assert_closed(closed);
        let info = "redis_version:6.2.14\r\nredis_mode:standalone\r\nrun_id:0123456789abcdef\r\n";
        let answer = match command.to_ascii_uppercase().as_str() {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "PING" => "+PONG\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        if { client }.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The first word of a request: an array of strings, each with its length before it.
fn read_command(requests: &mut impl BufRead) -> Option<String> {
    let words = read_number(requests, '*')?;
    let mut command = None;
    for _ in 0..words {
        let mut word = vec![0; read_number(requests, '$')? + 2];
        requests.read_exact(&mut word).ok()?;
        command.get_or_insert_with(|| String::from_utf8_lossy(&word).trim_end().to_owned());
    }
    command
}

fn read_number(requests: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    requests.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}
