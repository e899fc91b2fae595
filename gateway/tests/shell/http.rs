//! As much HTTP as the admin server's answers need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::DEADLINE;

/// An answer.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path)
}

pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> Response {
    exchange(address, method, path, "")
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Response {
    exchange(address, "POST", path, body)
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Response {
    let length = body.len();
    send(
        address,
        &format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Whatever it is, if only it is answered with the end of the connection.
pub(crate) fn send(address: SocketAddr, request: &str) -> Response {
    let mut stream = TcpStream::connect(address).expect("the admin server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a valid timeout");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("the head ends");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Response { status, body: body.to_owned() }
}
