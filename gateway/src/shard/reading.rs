//! Bytes from client sockets.

use holdfast_engine::{ConnectionId, Now, SocketEnd};
use mio::event::Event;

use super::Shard;
use crate::io::socket::{ReadOutcome, Stage};

/// Sockets of the ready list that are read in one turn.
const READY_PER_TURN: usize = 128;

impl Shard {
    /// The poll reported a client socket.
    pub(super) fn handle_socket_event(&mut self, id: ConnectionId, event: &Event, now: Now) {
        if event.is_writable() {
            self.write_on(id, now);
        }
        // Gone: closed just now, or earlier in this batch of events.
        let Some(socket) = self.sockets.find(id) else { return };
        if event.is_read_closed() {
            socket.note_peer_finished();
        }
        if event.is_error() && !(socket.stage() == Stage::Open && self.engine.may_read(id)) {
            // Nobody will read it, and only a read would bring the error to light.
            let end = socket.take_end();
            self.end(id, end, now);
        } else if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(id, now);
        }
    }

    /// Puts a socket on the ready list: it is read in this turn or the next, after those that wait already.
    pub(super) fn enqueue(&mut self, id: ConnectionId) {
        if self.sockets.find(id).is_some_and(super::super::io::socket::Socket::enqueue) {
            self.ready.push_back(id);
        }
    }

    /// Reads the sockets whose turn it is, once each.
    pub(super) fn read_ready(&mut self, now: Now) {
        for _ in 0..self.ready.len().min(READY_PER_TURN) {
            let Some(id) = self.ready.pop_front() else { return };
            if let Some(socket) = self.sockets.find(id) {
                socket.dequeue();
                self.read(id, now);
            }
        }
    }

    /// One read. What remains in the kernel is left to the ready list, so that a connection which sends faster than it is read
    /// gets its share and no more.
    fn read(&mut self, id: ConnectionId, now: Now) {
        let Some(socket) = self.sockets.find(id) else { return };
        match socket.stage() {
            // Where the engine takes no more, the bytes stay in the kernel and TCP holds the device back; `ResumeRead` follows.
            Stage::Open if !self.engine.may_read(id) => {
                if self.engine.only_waits(id) && socket.is_over() {
                    self.end(id, SocketEnd::Fin, now);
                }
                return;
            }
            // Read, or thrown away, once the last words are out.
            Stage::Flushing => return,
            Stage::Open | Stage::Lingering => {}
        }
        let open = socket.stage() == Stage::Open;
        match socket.read(&mut self.scratch) {
            ReadOutcome::Bytes { length, more } => {
                if more && socket.enqueue() {
                    self.ready.push_back(id);
                }
                if open {
                    self.engine.handle_bytes(id, &mut self.scratch[..length], now);
                }
            }
            ReadOutcome::Empty => {}
            ReadOutcome::End(end) => self.end(id, end, now),
        }
    }

    /// The socket is over: closes it and tells the engine. For one that was closing anyway this is the end that the engine awaits.
    pub(super) fn end(&mut self, id: ConnectionId, end: SocketEnd, now: Now) {
        let Some(socket) = self.sockets.remove(id) else { return };
        self.unsent.bytes -= socket.unsent_bytes();
        let end = if socket.stage() == Stage::Open { end } else { SocketEnd::ByUs };
        drop(socket);
        self.engine.handle_closed(id, end, now);
    }
}
