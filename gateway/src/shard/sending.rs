//! Bytes to client sockets, and the staged end of a connection.

use std::mem;

use holdfast_engine::{CloseReason, ConnectionId, Level, Now, SocketEnd};
use holdfast_wire::ids::ClientId;
use tracing::field::{debug, display};

use super::Shard;
use crate::io::socket::{Stage, WriteOutcome};

impl Shard {
    /// Sends what the engine has for its connections, one write for each. True if a connection came to its end over it.
    pub(super) fn flush(&mut self, now: Now) -> bool {
        let Self { engine, sockets, unsent, stats, .. } = self;
        engine.flush(|id, bytes| {
            let Some(socket) = sockets.find(id).filter(|socket| socket.stage() == Stage::Open) else {
                return;
            };
            let waited = socket.unsent_bytes();
            match socket.write(bytes, unsent.bytes_max) {
                WriteOutcome::Sent | WriteOutcome::StillBlocked => {}
                WriteOutcome::Blocked => {
                    stats.blocked += 1;
                    unsent.blocked.push(id);
                }
                WriteOutcome::Overflow => {
                    // What waits will never be read; the kernel's share of it is freed at once.
                    socket.reset_on_close();
                    unsent.ended.push((id, SocketEnd::Overflowed));
                }
                WriteOutcome::End(end) => unsent.ended.push((id, end)),
            }
            unsent.bytes += socket.unsent_bytes() - waited;
        });
        for id in unsent.blocked.drain(..) {
            engine.handle_blocked(id);
        }
        let mut ended = mem::take(&mut self.unsent.ended);
        let any = !ended.is_empty();
        for (id, end) in ended.drain(..) {
            self.end(id, end, now);
        }
        self.unsent.ended = ended;
        any
    }

    /// The kernel has room for more of a connection's bytes.
    pub(super) fn write_on(&mut self, id: ConnectionId, now: Now) {
        let Some(socket) = self.sockets.find(id).filter(|socket| socket.is_blocked()) else { return };
        let waited = socket.unsent_bytes();
        let outcome = socket.write_on();
        self.unsent.bytes -= waited - socket.unsent_bytes();
        match (outcome, socket.stage()) {
            (WriteOutcome::End(end), _) => self.end(id, end, now),
            (WriteOutcome::Sent, Stage::Open) => self.engine.handle_unblocked(id, now),
            (WriteOutcome::Sent, _) => self.linger(id, now),
            _ => {}
        }
    }

    /// Begins the closes that the engine asked for. True if there were any.
    pub(super) fn carry_out_closes(&mut self, now: Now) -> bool {
        let mut closes = mem::take(&mut self.closes);
        let any = !closes.is_empty();
        for (id, reason, client) in closes.drain(..) {
            let Some(socket) = self.sockets.find(id).filter(|socket| socket.stage() == Stage::Open) else {
                continue;
            };
            let blocked = socket.is_blocked();
            self.log_close(id, reason, client.as_ref(), now);
            if blocked {
                self.start_flushing(id, now);
            } else {
                self.linger(id, now);
            }
        }
        self.closes = closes;
        any
    }

    /// Cuts closing sockets whose peers did not finish in time.
    pub(super) fn cut_lingering(&mut self, now: Now) {
        while let Some((id, stage)) = self.lingering.pop_due(now.monotonic_ms) {
            if let Some(socket) = self.sockets.find(id).filter(|socket| socket.stage() == stage) {
                socket.reset_on_close();
                self.stats.linger_cut += 1;
                self.end(id, SocketEnd::ByUs, now);
            }
        }
    }

    /// Ends all connections that are left, without a goodbye, and tells store and bridges as far as they listen without
    /// delay. Returns how many there were.
    pub(super) fn cut_all(&mut self) -> usize {
        let now = self.clock.now();
        let left: Vec<ConnectionId> = self.sockets.iter().map(|(id, _)| id).collect();
        for id in &left {
            self.end(*id, SocketEnd::Reset, now);
        }
        self.settle(now);
        self.write_links(now);
        left.len()
    }

    fn start_flushing(&mut self, id: ConnectionId, now: Now) {
        if let Some(socket) = self.sockets.find(id) {
            socket.start_flushing();
            self.lingering.push(id, Stage::Flushing, now.monotonic_ms);
        }
    }

    fn linger(&mut self, id: ConnectionId, now: Now) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.start_lingering().is_err() {
            self.end(id, SocketEnd::ByUs, now);
            return;
        }
        self.lingering.push(id, Stage::Lingering, now.monotonic_ms);
        // The peer's FIN may have been reported while nobody read.
        self.enqueue(id);
    }

    /// The client id stands in quotes and escaped: it is text of a peer.
    fn log_close(&mut self, id: ConnectionId, reason: CloseReason, client: Option<&ClientId>, now: Now) {
        let level = reason.level();
        if level == Level::Debug && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let Some(suppressed) = self.close_log.admit(now.monotonic_ms) else { return };
        let peer = self.sockets.find(id).and_then(|socket| socket.peer()).map(display);
        let client_id = client.map(|client| debug(&**client));
        // Lines that were left out before this one, if there were any.
        let suppressed = Some(suppressed).filter(|lines| *lines > 0);
        let reason = reason.label();
        match level {
            Level::Debug => tracing::debug!(reason, client_id, peer, suppressed, "connection closed"),
            Level::Info => tracing::info!(reason, client_id, peer, suppressed, "connection closed"),
            Level::Warn => tracing::warn!(reason, client_id, peer, suppressed, "connection closed"),
        }
    }
}
