//! A device that speaks MQTT byte by byte, as the test wants it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::DEADLINE;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

/// A packet as it came: first byte of the fixed header, and what follows the remaining length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const PINGRESP: u8 = 0xd0;
pub(crate) const DISCONNECT: u8 = 0xe0;

impl Client {
    /// Opens a socket and says nothing.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a valid timeout");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream }
    }

    /// An established MQTT 3.1.1 session, clean, without keep alive.
    pub(crate) fn connect(address: SocketAddr, client_id: &str) -> Self {
        let mut client = Self::open(address);
        client.send(&connect_311(client_id));
        assert_eq!(client.read(), Packet { first: CONNACK, body: vec![0, 0] });
        client
    }

    /// An established MQTT 5 session, clean, without keep alive.
    pub(crate) fn connect_5(address: SocketAddr, client_id: &str) -> Self {
        let mut client = Self::open(address);
        client.send(&packet(0x10, &[b"\0\x04MQTT\x05\x02\0\0\0", &*text(client_id)].concat()));
        let connack = client.read();
        assert_eq!((connack.first, connack.body[1]), (CONNACK, 0), "{connack:?}");
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the gateway reads");
    }

    /// Sends a QoS 1 publication.
    pub(crate) fn publish(&mut self, topic: &str, packet_id: u16, payload: &[u8]) {
        self.send(&packet(0x32, &[&text(topic), &packet_id.to_be_bytes()[..], payload].concat()));
    }

    /// Subscribes with QoS 0 and waits for the SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.send(&packet(0x82, &[&[0, 1], &*text(filter), &[0]].concat()));
        assert_eq!(self.read(), Packet { first: SUBACK, body: vec![0, 1, 0] });
    }

    /// Proves that the gateway serves this connection, and that nothing but the answer was on its way.
    pub(crate) fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        assert_eq!(self.read(), Packet { first: PINGRESP, body: vec![] });
    }

    /// The next packet.
    pub(crate) fn read(&mut self) -> Packet {
        self.read_or_end().expect("a packet, not the end")
    }

    /// The next packet; none at the end of the connection, orderly or not.
    pub(crate) fn read_or_end(&mut self) -> Option<Packet> {
        let first = self.read_byte()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.read_byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Packet { first, body })
    }

    /// Waits for the end of the connection; fails on anything else.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.read_or_end(), None);
    }

    fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither a byte nor the end: {error}"),
        }
    }
}

/// A CONNECT of MQTT 3.1.1, clean session, without keep alive.
pub(crate) fn connect_311(client_id: &str) -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &*text(client_id)].concat())
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 0x7f;
        bytes.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
