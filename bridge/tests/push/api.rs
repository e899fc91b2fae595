//! The push API on a port of its own, and a client that may do as it likes.

use std::fmt::Display;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use holdfast_bridge::{BridgeConfig, devices, push};
use holdfast_store::Store;
use holdfast_wire::link::Outcome;
use serde_json::Value;

use crate::shard::{DEADLINE, Heard, Rig, Shard, memory_store};

/// The API as a bridge mounts it.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Api {
    pub(crate) fn of(rig: &Rig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = push::router(rig.bridge.clone()).merge(devices::router(rig.bridge.clone()));
        let router = holdfast_http::dress(router, "see the docs");
        runtime.spawn(holdfast_http::serve(listener, router, std::future::pending()));
        Self { address, _runtime: Some(runtime) }
    }

    /// By the bridge itself, which sees it to its last answer.
    pub(crate) fn served_by(rig: &Rig) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let router = push::router(rig.bridge.clone()).merge(devices::router(rig.bridge.clone()));
        rig.bridge.serve(listener, router).unwrap();
        Self { address, _runtime: None }
    }

    pub(crate) fn post(&self, body: &Value) -> (u16, Value) {
        post(self.address, &body.to_string(), "")
    }

    /// Posts without waiting, for a push that a shard has yet to report.
    pub(crate) fn post_later(&self, body: Value) -> JoinHandle<(u16, Value)> {
        let address = self.address;
        std::thread::spawn(move || post(address, &body.to_string(), ""))
    }

    pub(crate) fn request(&self, line: &str, body: &str, headers: &str) -> (u16, Value) {
        request(self.address, line, body, headers)
    }

    /// Asks, and reads the answer line by line.
    pub(crate) fn lines(&self, line: &str, body: &str) -> LinesAnswer {
        let mut asked = self.open(line, body.len());
        asked.send(body.as_bytes());
        asked
    }

    /// Asks with a body of so many bytes that is still to be sent.
    pub(crate) fn open(&self, line: &str, length: usize) -> LinesAnswer {
        let mut stream = connect(self.address);
        // Without chunks, so that the body's lines are the stream's.
        let head = format!("{line} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        LinesAnswer { reader: BufReader::new(stream), is_in_body: false }
    }
}

/// An answer that is read as it comes.
pub(crate) struct LinesAnswer {
    reader: BufReader<TcpStream>,
    is_in_body: bool,
}

impl LinesAnswer {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// A handle that sends on from another thread.
    pub(crate) fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Hangs up, and waits until the server has noticed.
    pub(crate) fn hang_up(self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
        self.ended();
    }

    /// Waits until the server has ended the connection, be it with a reset.
    pub(crate) fn ended(mut self) {
        if let Err(error) = self.reader.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }

    /// What its first line says.
    pub(crate) fn status(mut self) -> u16 {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Waits until the answer has begun.
    pub(crate) fn begun(mut self) -> Self {
        self.read_head();
        self
    }

    /// The next line; none at the end.
    pub(crate) fn next(&mut self) -> Option<Value> {
        self.read_head();
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn read_head(&mut self) {
        let mut line = String::new();
        while !self.is_in_body {
            line.clear();
            self.reader.read_line(&mut line).unwrap();
            if line.starts_with("HTTP/") {
                assert!(line.contains(" 200 "), "{line}");
            }
            self.is_in_body = line == "\r\n";
        }
    }

    pub(crate) fn rest(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

pub(crate) fn post(address: SocketAddr, body: &str, headers: &str) -> (u16, Value) {
    request(address, "POST /v1/push", body, headers)
}

pub(crate) fn request(address: SocketAddr, line: &str, body: &str, headers: &str) -> (u16, Value) {
    let mut stream = connect(address);
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_lowercase();
    let is_problem = head.contains("application/problem+json");
    let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    assert_eq!(is_problem, body["detail"].is_string(), "{answer}");
    if is_problem {
        assert_eq!(body["status"].as_u64(), Some(status.into()), "{answer}");
        assert_eq!(status == 503, head.contains("retry-after"), "{answer}");
        assert_eq!(status == 405, head.contains("\r\nallow:"), "{answer}");
    }
    (status, body)
}

/// One line each.
pub(crate) fn as_lines(items: impl IntoIterator<Item = impl Display>) -> String {
    let lines: Vec<_> = items.into_iter().map(|item| format!("{item}\n")).collect();
    lines.concat()
}

/// Number, topic and payload of a delivery.
pub(crate) fn numbered(heard: Heard) -> (u64, String, String) {
    match heard {
        Heard::Deliver { delivery, topic, payload, .. } => (delivery, topic, payload),
        other => panic!("no delivery: {other:?}"),
    }
}

/// Reports so many deliveries as delivered.
pub(crate) fn deliver(shard: &mut Shard, count: usize) {
    for _ in 0..count {
        let (delivery, ..) = numbered(shard.hear());
        shard.report(delivery, Outcome::Delivered);
    }
}

/// A bridge with bounds of its own for pushes.
pub(crate) fn bounded(push: holdfast_bridge::config::PushConfig) -> Rig {
    let store: Arc<dyn Store> = memory_store();
    Rig::start_with(BridgeConfig { push, ..BridgeConfig::default() }, store)
}
