//! What stands between a store and its server and can hold back what one has to say, without a word to either.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Passes connections on to a server.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ways: Mutex<Ways>,
    changed: Condvar,
}

/// Connections by their number, in the order in which they came.
#[derive(Default)]
struct Ways {
    accepted: usize,
    ended: usize,
    /// Those with a lower number are held.
    held: usize,
}

impl Proxy {
    pub(crate) fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).unwrap();
                let number = accepting.change(|ways| {
                    ways.accepted += 1;
                    ways.accepted - 1
                });
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let state = Arc::clone(&accepting);
                thread::spawn(move || pass_on(from, to, || state.wait(|ways| number >= ways.held)));
                let state = Arc::clone(&accepting);
                thread::spawn(move || {
                    pass_on(server, client, || {});
                    state.change(|ways| ways.ended += 1);
                });
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// From now on the server hears nothing more on the connections that are there; new ones work.
    pub(crate) fn hold(&self) {
        self.state.change(|ways| ways.held = ways.accepted);
    }

    /// Lets the server hear all that was held back, and waits until it has ended so many connections.
    pub(crate) fn release_until_ended(&self, connections: usize) {
        self.state.change(|ways| ways.held = 0);
        self.state.wait(|ways| ways.ended >= connections);
    }

    /// Waits until so many connections have come.
    pub(crate) fn until_accepted(&self, connections: usize) {
        self.state.wait(|ways| ways.accepted >= connections);
    }
}

impl State {
    fn change<T>(&self, change: impl FnOnce(&mut Ways) -> T) -> T {
        let changed = change(&mut self.ways.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    fn wait(&self, until: impl Fn(&Ways) -> bool) {
        let ways = self.ways.lock().unwrap();
        let (_ways, waited) = self.changed.wait_timeout_while(ways, PATIENCE, |ways| !until(ways)).unwrap();
        assert!(!waited.timed_out(), "it never came");
    }
}

/// Copies until one side is gone; `may` returns when what was read may be written.
fn pass_on(mut from: TcpStream, mut to: TcpStream, may: impl Fn()) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        may();
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    may();
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
