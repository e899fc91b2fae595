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
    let mut stream = TcpStream::connect(address).expect("the admin server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a valid timeout");
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("the head ends");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Response { status, body: body.to_owned() }
}
