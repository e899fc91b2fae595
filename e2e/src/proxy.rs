//! A TCP proxy with weather: between two processes it passes bytes on, late or not at all, or cuts every connection.
//!
//! Bytes that a black hole holds come out of it when the weather changes, as they would with TCP behind a network that was
//! away; what either end closed meanwhile ends only then. Threads and blocking sockets: it serves dozens of connections, not thousands.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks on their way in one direction of a connection. Full: nothing more is read, and TCP holds the sender back.
const CHUNKS_MAX: usize = 128;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// Each way takes this long; how much may be on its way is not limited by that.
    Late(Duration),
    /// Nothing passes and nobody is told. New connections are accepted and hear nothing.
    BlackHole,
    /// Every connection is cut, new ones as soon as they come.
    Cut,
}

/// A listening proxy. Its connections end with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    target: Option<SocketAddr>,
    /// Connections of an earlier number are cut.
    cuts: u64,
    /// Both ends of each connection, by number; an ended one is taken out.
    connections: Vec<(u64, [TcpStream; 2])>,
    accepted: u64,
    over: bool,
}

impl Proxy {
    /// Listens on a free port; without a target yet it holds what comes.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = State {
            weather: Weather::Fair,
            target: None,
            cuts: 0,
            connections: Vec::new(),
            accepted: 0,
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// Listens on a free port, in front of `target`.
    ///
    /// # Panics
    /// As [`Proxy::open`].
    pub fn to(target: SocketAddr) -> Self {
        let proxy = Self::open();
        proxy.lead_to(target);
        proxy
    }

    /// Where connections go from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.change(|state| state.target = Some(target));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for all connections, also those that stand.
    pub fn set(&self, weather: Weather) {
        self.shared.change(|state| {
            state.weather = weather;
            if weather == Weather::Cut {
                state.cut();
            }
        });
    }

    /// Cuts every connection once; new ones are welcome.
    pub fn cut(&self) {
        self.shared.change(State::cut);
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.over = true;
            state.cut();
        });
        // Wakes the thread that accepts; it fails when that is gone already.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut(&mut self) {
        self.cuts += 1;
        for (_, ends) in self.connections.drain(..) {
            for end in ends {
                // It fails when the peer was first.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A proxy's thread that panicked fails the test by what does not arrive.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let cuts = {
                let state = self.lock();
                if state.over {
                    return;
                }
                state.cuts
            };
            let Ok(client) = client else { continue };
            let shared = Arc::clone(self);
            // An error ends this connection alone, as it would without a proxy.
            thread::spawn(move || shared.serve(client, cuts).is_ok());
        }
    }

    /// One connection from its acceptance to its end.
    fn serve(self: &Arc<Self>, client: TcpStream, cuts: u64) -> io::Result<()> {
        let Some(target) = self.await_target(cuts) else { return Ok(()) };
        let server = TcpStream::connect(target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let number = {
            let ends = [client.try_clone()?, server.try_clone()?];
            let mut state = self.lock();
            if state.cuts != cuts {
                return Ok(());
            }
            state.accepted += 1;
            let number = state.accepted;
            state.connections.push((number, ends));
            number
        };
        let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
        let pumps = ways.map(|(from, to)| {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(from, to, cuts))
        });
        for pump in pumps {
            let _ = pump.join();
        }
        self.lock().connections.retain(|(other, _)| *other != number);
        Ok(())
    }

    fn await_target(&self, cuts: u64) -> Option<SocketAddr> {
        let mut state = self.lock();
        loop {
            if state.cuts != cuts || state.weather == Weather::Cut {
                return None;
            }
            if let Some(target) = state.target.filter(|_| state.weather != Weather::BlackHole) {
                return Some(target);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One direction of a connection.
    fn pump(&self, from: TcpStream, mut to: TcpStream, cuts: u64) {
        let (chunks, arrived) = sync_channel(CHUNKS_MAX);
        let reader = thread::spawn(move || read_all(from, &chunks));
        let written = self.write_all(&arrived, &mut to, cuts);
        // The other direction may still have something to say, unless this one failed.
        let _ = to.shutdown(if written.is_ok() { Shutdown::Write } else { Shutdown::Both });
        drop(arrived);
        let _ = reader.join();
    }

    fn write_all(
        &self,
        chunks: &Receiver<(Instant, Vec<u8>)>,
        to: &mut TcpStream,
        cuts: u64,
    ) -> io::Result<()> {
        for (arrived, chunk) in chunks {
            self.await_passage(arrived, cuts)?;
            to.write_all(&chunk)?;
        }
        // The end of a connection is not known beyond a black hole either.
        self.await_passage(Instant::now(), cuts)
    }

    fn await_passage(&self, arrived: Instant, cuts: u64) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            if state.cuts != cuts {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            state = match state.weather {
                Weather::Fair => return Ok(()),
                Weather::Late(delay) => {
                    let remaining = (arrived + delay).saturating_duration_since(Instant::now());
                    if remaining.is_zero() {
                        return Ok(());
                    }
                    self.changed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0
                }
                Weather::BlackHole | Weather::Cut => {
                    self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

fn read_all(mut from: TcpStream, chunks: &SyncSender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if chunks.send((Instant::now(), chunk[..length].to_vec())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, until_true};

    /// Says back what it hears, to any number of clients.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut &stream));
            }
        });
        address
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn round_trip(mut client: &TcpStream) -> io::Result<Duration> {
        let started = Instant::now();
        client.write_all(b"hello")?;
        let mut answer = [0; 5];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"hello");
        Ok(started.elapsed())
    }

    #[test]
    fn bytes_pass_and_so_does_the_end() {
        let proxy = Proxy::to(echo());
        let mut client = client(&proxy);
        round_trip(&client).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        until_true("the connection to be forgotten", PATIENCE, || proxy.connections() == 0);
    }

    #[test]
    fn each_way_is_late_by_as_much_as_was_asked() {
        let proxy = Proxy::to(echo());
        let client = client(&proxy);
        proxy.set(Weather::Late(Duration::from_millis(100)));
        assert!(round_trip(&client).unwrap() >= Duration::from_millis(200));
    }

    #[test]
    fn a_black_hole_says_nothing_and_gives_back_what_fell_in() {
        let proxy = Proxy::to(echo());
        let mut old = client(&proxy);
        round_trip(&old).unwrap();
        proxy.set(Weather::BlackHole);
        let mut new = client(&proxy);
        for client in [&mut old, &mut new] {
            client.write_all(b"hello").unwrap();
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            client.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        proxy.set(Weather::Fair);
        for mut client in [old, new] {
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
        }
    }

    #[test]
    fn a_cut_ends_what_stands_and_what_comes_until_it_is_fair_again() {
        let proxy = Proxy::to(echo());
        let stands = client(&proxy);
        round_trip(&stands).unwrap();
        proxy.set(Weather::Cut);
        assert!(round_trip(&stands).is_err());
        assert!(round_trip(&client(&proxy)).is_err());
        proxy.set(Weather::Fair);
        round_trip(&client(&proxy)).unwrap();
    }

    #[test]
    fn what_comes_before_there_is_a_target_waits_for_it() {
        let proxy = Proxy::open();
        let client = client(&proxy);
        proxy.lead_to(echo());
        round_trip(&client).unwrap();
    }
}
