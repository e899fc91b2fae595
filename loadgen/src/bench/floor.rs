//! The floor: what the kernel alone costs. A server that reads nothing of a packet but its length and type, knows
//! subscriptions by exact topic only, and keeps no state that could be lost. Nobody could be faster and honest.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use holdfast_wire::mqtt::{FixedHeader, PacketType, QoS};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{BenchError, packets};

const LISTENER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 256 << 10;
const BACKLOG: i32 = 4_096;

struct Client {
    stream: TcpStream,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
}

struct Floor {
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    subscribers: HashMap<Vec<u8>, Vec<usize>>,
}

/// Serves until the process is ended. Only for trusted load: it has no bound on anything.
pub fn serve(address: SocketAddr, mut ready: impl FnMut(SocketAddr)) -> Result<(), BenchError> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        None,
    )
    .map_err(BenchError::io("listen"))?;
    socket.set_reuse_address(true).map_err(BenchError::io("listen"))?;
    socket.bind(&address.into()).map_err(BenchError::io("listen"))?;
    socket.listen(BACKLOG).map_err(BenchError::io("listen"))?;
    let mut listener = TcpListener::from_std(socket.into());
    let mut poll = Poll::new().map_err(BenchError::io("epoll"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(BenchError::io("epoll"))?;
    ready(listener.local_addr().map_err(BenchError::io("listen"))?);
    let mut floor = Floor { clients: Vec::new(), free: Vec::new(), subscribers: HashMap::new() };
    let mut events = Events::with_capacity(2_048);
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(BenchError::io("epoll")(error));
            }
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&listener, &poll)?;
                continue;
            }
            let index = event.token().0;
            if event.is_readable() && floor.read(index, &mut scratch).is_none() {
                floor.close(index);
            } else if event.is_writable() {
                floor.flush(index);
            }
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> Result<(), BenchError> {
        while let Ok((mut stream, _)) = listener.accept() {
            let index = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            stream.set_nodelay(true).map_err(BenchError::io("accept"))?;
            poll.registry()
                .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
                .map_err(BenchError::io("epoll"))?;
            self.clients[index] = Some(Client { stream, inbound: Vec::new(), outbound: Vec::new() });
        }
        Ok(())
    }

    /// `None`: the connection is over.
    fn read(&mut self, index: usize, scratch: &mut [u8]) -> Option<()> {
        loop {
            let client = self.clients.get_mut(index)?.as_mut()?;
            let count = match client.stream.read(scratch) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            };
            let mut joined = std::mem::take(&mut client.inbound);
            let bytes = if joined.is_empty() {
                &scratch[..count]
            } else {
                joined.extend_from_slice(&scratch[..count]);
                &joined
            };
            let read = self.answer(index, bytes)?;
            let rest = bytes[read..].to_vec();
            self.clients[index].as_mut()?.inbound = rest;
            if count < scratch.len() {
                break;
            }
        }
        self.flush(index);
        Some(())
    }

    fn answer(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let mut read = 0;
        while let Some(header) = FixedHeader::decode(&bytes[read..]).ok()? {
            let Some(packet) = bytes.get(read..read + header.packet_length()) else { break };
            read += packet.len();
            match header.packet_type {
                PacketType::Connect => self.queue(index, &[0x20, 2, 0, 0]),
                PacketType::PingReq => self.queue(index, &[0xD0, 0]),
                PacketType::Subscribe => {
                    let (granted, body) = packet.split_last()?;
                    let (packet_id, topic) = body.get(header.header_length.into()..)?.split_at_checked(2)?;
                    self.subscribers.entry(topic.get(2..)?.to_vec()).or_default().push(index);
                    self.queue(index, &[0x90, 3, packet_id[0], packet_id[1], *granted]);
                }
                PacketType::Publish => {
                    let (topic, packet_id, _) = packets::split_publish(packet)?;
                    if header.qos() == QoS::AtLeastOnce {
                        let client = self.clients[index].as_mut()?;
                        packets::puback(packet_id, &mut client.outbound);
                    }
                    if let Some(subscribers) = self.subscribers.get(topic) {
                        for subscriber in subscribers.clone() {
                            self.queue(subscriber, packet);
                            if subscriber != index {
                                self.flush(subscriber);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Some(read)
    }

    fn queue(&mut self, index: usize, bytes: &[u8]) {
        if let Some(Some(client)) = self.clients.get_mut(index) {
            client.outbound.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        while !client.outbound.is_empty() {
            // An error shows again as the end of the stream.
            let Ok(written) = client.stream.write(&client.outbound) else { return };
            client.outbound.drain(..written);
        }
        client.outbound = Vec::new();
    }

    fn close(&mut self, index: usize) {
        if self.clients.get_mut(index).and_then(Option::take).is_some() {
            self.subscribers.retain(|_, subscribers| {
                subscribers.retain(|subscriber| *subscriber != index);
                !subscribers.is_empty()
            });
            self.free.push(index);
        }
    }
}
