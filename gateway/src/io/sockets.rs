//! The shard's client sockets, in a slab parallel to the engine's connections.

use std::sync::Arc;

use holdfast_engine::ConnectionId;
use mio::net::TcpStream;

use super::room::SocketRoom;
use super::socket::Socket;

/// Sockets by the engine's slot. Bound: the engine hands out at most `limits.connections_max` slots and uses freed ones again.
///
/// Pages of a fixed size, so that growth at 200,000 connections copies nothing and never needs one huge run of memory.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pages: Vec<Box<[Option<Socket>]>>,
    length: usize,
    /// Shared with the other shards.
    room: Arc<SocketRoom>,
}

const PAGE_SLOTS: usize = 1_024;

impl Sockets {
    /// None yet; all that will be count in `room`.
    pub(crate) fn new(room: Arc<SocketRoom>) -> Self {
        Self { room, ..Self::default() }
    }

    /// Whether the process has no file left for another one.
    pub(crate) fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// Puts an accepted stream at the place that the engine gave it.
    pub(crate) fn insert(&mut self, id: ConnectionId, stream: TcpStream) {
        let (page, place) = position(id);
        while self.pages.len() <= page {
            self.pages.push((0..PAGE_SLOTS).map(|_| None).collect());
        }
        let former = self.pages[page][place].replace(Socket::new(stream, id.generation));
        // The engine reuses a slot only after it was told that its socket is gone; anything else would hand one
        // device's bytes to another.
        assert!(former.is_none(), "slot {} was given to two connections", id.slot);
        self.length += 1;
        self.room.take();
    }

    /// The socket of `id`; none if it was closed, whoever has its slot now.
    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        let (page, place) = position(id);
        let socket = self.pages.get_mut(page)?[place].as_mut()?;
        (socket.generation == id.generation).then_some(socket)
    }

    /// Takes the socket of `id` out; dropping it closes it.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Socket> {
        self.find(id)?;
        let (page, place) = position(id);
        self.length -= 1;
        self.room.give_back();
        self.pages[page][place].take()
    }

    /// How many sockets are open.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// All open sockets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Socket)> {
        self.pages.iter().flatten().enumerate().filter_map(|(slot, socket)| {
            let socket = socket.as_ref()?;
            Some((ConnectionId { slot: slot as u32, generation: socket.generation }, socket))
        })
    }
}

fn position(id: ConnectionId) -> (usize, usize) {
    (id.slot as usize / PAGE_SLOTS, id.slot as usize % PAGE_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> TcpStream {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    fn id(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { slot, generation }
    }

    #[test]
    fn a_socket_costs_at_most_32_bytes() {
        assert!(size_of::<Option<Socket>>() <= 32, "{} bytes", size_of::<Option<Socket>>());
    }

    #[test]
    fn a_stale_id_does_not_reach_the_slot_s_next_holder() {
        let mut sockets = Sockets::default();
        sockets.insert(id(5, 1), stream());
        assert!(sockets.remove(id(5, 1)).is_some());
        sockets.insert(id(5, 2), stream());
        assert!(sockets.find(id(5, 1)).is_none());
        assert!(sockets.remove(id(5, 1)).is_none());
        assert!(sockets.find(id(5, 2)).is_some());
        assert_eq!(sockets.len(), 1);
    }

    #[test]
    fn slots_of_several_pages_are_listed_with_their_generations() {
        let mut sockets = Sockets::default();
        for slot in [0, 1_023, 1_024, 5_000] {
            sockets.insert(id(slot, slot + 1), stream());
        }
        let listed: Vec<_> = sockets.iter().map(|(id, _)| id).collect();
        assert_eq!(listed, [id(0, 1), id(1_023, 1_024), id(1_024, 1_025), id(5_000, 5_001)]);
        assert!(sockets.find(id(9_999_999, 0)).is_none());
    }
}
