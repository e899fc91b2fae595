//! A client that sends whatever bytes it is told to, and reads packets with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::packet::{self, Connect, Packet, Version, kind};
use crate::wait::PATIENCE;

/// One TCP connection that speaks MQTT, or does not.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    version: Version,
    unread: Vec<u8>,
}

/// Why no further packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed the connection, orderly or with a reset.
    Closed,
    /// It still stands, and was silent until the deadline.
    Silence,
}

impl Client {
    /// Opens the connection and sends nothing.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn dial(to: SocketAddr, version: Version) -> Self {
        Self::try_dial(to, version).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"))
    }

    /// Opens the connection and sends nothing.
    pub fn try_dial(to: SocketAddr, version: Version) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&to, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, version, unread: Vec::new() })
    }

    /// Connects and is accepted, with a clean session; the CONNACK is gone.
    ///
    /// # Panics
    /// When it is not accepted.
    pub fn open(to: SocketAddr, version: Version, client_id: &str) -> Self {
        Self::connect(to, &Connect::new(version, client_id)).0
    }

    /// Sends this CONNECT and is accepted.
    ///
    /// # Panics
    /// When it is not accepted.
    pub fn connect(to: SocketAddr, connect: &Connect) -> (Self, Packet) {
        let (client, answer) = Self::try_connect(to, connect).expect("a CONNACK");
        assert_eq!(answer.connect_code(), 0, "refused: {answer:?}");
        (client, answer)
    }

    /// Sends this CONNECT and gives the answer, whatever it says.
    pub fn try_connect(to: SocketAddr, connect: &Connect) -> io::Result<(Self, Packet)> {
        let mut client = Self::try_dial(to, connect.version())?;
        client.try_send(&connect.encode())?;
        let answer = client.poll(PATIENCE).map_err(|end| io::Error::other(format!("{end:?}")))?;
        Ok((client, answer))
    }

    /// The version it dialled with.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the server has closed, or does not read them in time.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads on");
    }

    /// Sends bytes to a server that may close meanwhile.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Subscribes to one filter and waits for the grant, which it gives.
    ///
    /// # Panics
    /// When no SUBACK comes.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.send(&packet::subscribe(self.version, 0x5555, filter, options));
        let granted = self.receive_kind(kind::SUBACK);
        *granted.body.last().expect("SUBACK carries a code")
    }

    /// The next packet.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&mut self) -> Packet {
        self.poll(PATIENCE).unwrap_or_else(|end| panic!("a packet was due: {end:?}"))
    }

    /// The next packet, which is of this kind.
    ///
    /// # Panics
    /// When it is of another or none comes.
    pub fn receive_kind(&mut self, kind: u8) -> Packet {
        let packet = self.receive();
        assert_eq!(packet.kind(), kind, "packet type {kind} was due: {packet:?}");
        packet
    }

    /// The next packet, which is a PUBLISH.
    ///
    /// # Panics
    /// When it is of another kind or none comes.
    pub fn receive_publish(&mut self) -> packet::Publish {
        let version = self.version;
        self.receive().publish(version)
    }

    /// Everything until the server closes.
    ///
    /// # Panics
    /// When it does not.
    pub fn receive_to_end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            match self.poll(PATIENCE) {
                Ok(packet) => packets.push(packet),
                Err(End::Closed) => return packets,
                Err(End::Silence) => panic!("still open after {PATIENCE:?}; so far: {packets:?}"),
            }
        }
    }

    /// The next packet, if one comes in time.
    pub fn poll(&mut self, within: Duration) -> Result<Packet, End> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(packet) = self.take() {
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).map_err(|_| End::Closed)?;
            let mut chunk = [0; 16 * 1024];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(End::Silence);
                }
                Err(_) => return Err(End::Closed),
            }
        }
    }

    /// Asks for a PINGRESP and waits for it: all that was sent before has been read.
    ///
    /// # Panics
    /// When another packet or none comes.
    pub fn ping(&mut self) {
        self.send(packet::PINGREQ);
        self.receive_kind(kind::PINGRESP);
    }

    /// Closes the socket without a DISCONNECT.
    pub fn cut(self) {
        // Fails when the server was first.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Says DISCONNECT and waits until the server has closed.
    ///
    /// # Panics
    /// When it does not close.
    pub fn leave(mut self) {
        self.send(packet::DISCONNECT);
        self.receive_to_end();
    }

    fn take(&mut self) -> Option<Packet> {
        let (&first, rest) = self.unread.split_first()?;
        let (length, length_bytes) = packet::read_length(rest)?;
        let start = 1 + length_bytes;
        let body = self.unread.get(start..start + length)?.to_vec();
        self.unread.drain(..start + length);
        Some(Packet { first, body })
    }
}
