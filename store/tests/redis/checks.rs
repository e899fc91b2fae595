//! A server that cannot serve is an error of one line, at once, and without a password in it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use holdfast_store::{RedisOptions, RedisStore};

use crate::redis_server::RedisServer;

fn refusal(url: &str) -> String {
    let options = RedisOptions { deadline: Duration::from_secs(5), ..RedisOptions::default() };
    let refusal = RedisStore::connect(url, options).err().expect("it is refused").to_string();
    assert!(!refusal.contains('\n') && !refusal.contains("secret"), "{refusal}");
    refusal
}

fn with_password(server: &RedisServer, password: &str) -> String {
    format!("redis://:{password}@127.0.0.1:{}/", server.port())
}

#[test]
fn a_wrong_password_is_named_and_not_shown() {
    let server = RedisServer::start("--requirepass secret");
    for url in [with_password(&server, "secret-but-wrong"), server.url()] {
        assert!(refusal(&url).contains("does not accept the user and password"), "{}", refusal(&url));
    }
    assert!(RedisStore::connect(&with_password(&server, "secret"), RedisOptions::default()).is_ok());
}

#[test]
fn a_replica_is_refused() {
    let master = RedisServer::start("");
    let replica = RedisServer::start(&format!("--replicaof 127.0.0.1 {}", master.port()));
    assert!(refusal(&replica.url()).contains("is a replica"));
}

#[test]
fn keys_of_a_foreign_format_are_left_alone() {
    let server = RedisServer::start("");
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("SET").arg("hf{0}:format").arg("99").exec(&mut connection).unwrap();
    let refusal = refusal(&server.url());
    assert!(refusal.contains("format 99") && refusal.contains("reads 3"), "{refusal}");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys, ["hf{0}:format"]);
}

#[test]
fn a_server_that_is_too_old_says_which_version_it_is() {
    // Says of itself what version 6 says.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut writer = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let info = "redis_version:6.2.14\r\n";
                let answer = match line.to_ascii_uppercase().as_str() {
                    "INFO" => format!("${}\r\n{info}\r\n", info.len()),
                    "CLIENT" | "SELECT" => "+OK\r\n".to_owned(),
                    _ => continue,
                };
                // A client that has heard enough is gone.
                let _ = writer.write_all(answer.as_bytes());
            }
        }
    });
    let refusal = refusal(&format!("redis://{address}/"));
    assert!(refusal.contains("too old (6.2.14)"), "{refusal}");
}

#[test]
fn a_server_of_another_kind_is_refused_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n<p>\nwhat?\n</p>\r\n");
            // Until the client is gone.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let refusal = refusal(&url);
    assert!(refusal.contains("what answers there is no Redis"), "{refusal}");
}

#[test]
fn a_server_that_accepts_and_never_answers_is_refused_within_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deadline = Duration::from_millis(300);
    let options = RedisOptions { deadline, ..RedisOptions::default() };
    let asked = Instant::now();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let refusal = RedisStore::connect(&url, options).err().unwrap().to_string();
    assert!(refusal.contains("no answer within 300 ms"), "{refusal}");
    assert!(asked.elapsed() < Duration::from_secs(5));
}
