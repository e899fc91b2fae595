//! Taking connections off the listeners.

use holdfast_engine::{Engine, Listener as Transport, Now, SocketEnd};
use mio::net::TcpStream;
use mio::{Interest, Registry};

use super::{Shard, Source};
use crate::io::listener::Accepted;
use crate::io::sockets::Sockets;

/// Accepts per listener and turn. A storm of connections leaves room for those that are there already.
const ACCEPTS_PER_TURN: usize = 64;

impl Shard {
    /// Accepts on every listener that may have connections waiting.
    pub(super) fn accept(&mut self, now: Now) {
        for listener in &mut self.listeners {
            for _ in 0..ACCEPTS_PER_TURN {
                if !listener.ready {
                    break;
                }
                match listener.accept(now.monotonic_ms) {
                    // Dropping it closes it: it is refused at once, instead of waiting for a place that may never come free.
                    Accepted::Stream(_) if self.sockets.is_full() => {
                        self.stats.refused_for_files += 1;
                        if let Some(suppressed) = self.accept_log.admit(now.monotonic_ms) {
                            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
                            tracing::warn!(
                                suppressed,
                                "no file is left for another connection, it is refused; raise the limit of open files (ulimit -n)"
                            );
                        }
                    }
                    Accepted::Stream(stream) => {
                        let registry = self.poll.registry();
                        admit(&mut self.engine, registry, &mut self.sockets, listener.transport, stream, now);
                    }
                    Accepted::Lost => self.stats.accept_lost += 1,
                    Accepted::Empty => {}
                    Accepted::Paused(reason) => {
                        self.stats.accept_pauses += 1;
                        if let Some(suppressed) = self.accept_log.admit(now.monotonic_ms) {
                            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
                            tracing::warn!(
                                %reason,
                                suppressed,
                                "no room for another socket, connections wait; raise the limit of open files (ulimit -n)"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Gives a new stream to the engine; dropping it closes it where it cannot be taken.
///
/// It is registered once, for both directions: an edge for writing is reported only after the kernel's buffer was full, so asking for
/// it costs nothing and never has to be asked for again.
fn admit(
    engine: &mut Engine,
    registry: &Registry,
    sockets: &mut Sockets,
    transport: Transport,
    mut stream: TcpStream,
    now: Now,
) {
    let Ok(id) = engine.handle_accept(transport, now) else { return };
    let interest = Interest::READABLE | Interest::WRITABLE;
    match registry.register(&mut stream, Source::Connection(id).token(), interest) {
        Ok(()) => sockets.insert(id, stream),
        Err(_) => engine.handle_closed(id, SocketEnd::Reset, now),
    }
}
