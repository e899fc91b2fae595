//! Where the bridges are: names are looked up again and again, so that bridges come and go without a restart of the gateway.
//!
//! On a thread of its own, because a name server that does not answer blocks whoever asks for many seconds. Whoever started it hears of each
//! change. A name that cannot be resolved keeps the addresses that it last had: a name server's outage takes no link down.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::Builder;
use std::time::Duration;

/// The running thread. Dropping it tells the thread to end without waiting for it: it may be in the middle of a look-up.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// Never sent on: its loss is the order to stop.
    _stop: mpsc::SyncSender<()>,
}

impl Resolver {
    /// Looks `names` (`HOST:PORT`) up at once and then every `every`; calls `changed` with all addresses, in order and each once, whenever
    /// they are not those of the time before.
    pub(crate) fn start(
        names: Vec<String>,
        every: Duration,
        mut changed: impl FnMut(&[SocketAddr]) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let mut names: Vec<Name> = names.into_iter().map(Name::new).collect();
        Builder::new().name("resolver".to_owned()).spawn(move || {
            let mut known = Vec::new();
            loop {
                for name in &mut names {
                    name.look_up();
                }
                let all: BTreeSet<SocketAddr> =
                    names.iter().flat_map(|name| name.addresses.iter().copied()).collect();
                let all: Vec<SocketAddr> = all.into_iter().collect();
                if all != known {
                    changed(&all);
                    known = all;
                }
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// A name and what it last stood for.
#[derive(Debug)]
struct Name {
    /// `HOST:PORT`.
    text: String,
    addresses: Vec<SocketAddr>,
    /// The last look-up gave nothing, and that was said.
    failing: bool,
}

impl Name {
    fn new(text: String) -> Self {
        Self { text, addresses: Vec::new(), failing: false }
    }

    fn look_up(&mut self) {
        let found = self.text.to_socket_addrs().map(|found| {
            // Name servers answer in turns; the order means nothing here.
            let mut found: Vec<SocketAddr> = found.collect();
            found.sort_unstable();
            found.dedup();
            found
        });
        self.note(found);
    }

    fn note(&mut self, found: io::Result<Vec<SocketAddr>>) {
        let was_failing = self.failing;
        match found {
            Ok(found) if !found.is_empty() => {
                self.failing = false;
                if was_failing || self.addresses != found {
                    tracing::info!(bridges = self.text, addresses = ?found, "bridges found");
                }
                self.addresses = found;
            }
            nothing => {
                self.failing = true;
                if !was_failing {
                    let reason = match nothing {
                        Err(error) => error.to_string(),
                        Ok(_) => "it has no address".to_owned(),
                    };
                    tracing::warn!(
                        bridges = self.text,
                        reason,
                        kept = ?self.addresses,
                        "the name of the bridges (link.bridges) cannot be resolved; it is looked up again until it can"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_once_and_a_name_that_fails_keeps_them() {
        let (tell, told) = mpsc::channel();
        let names = vec!["127.0.0.1:7".to_owned(), "127.0.0.1:7".to_owned(), "127.0.0.2:7".to_owned()];
        let changed = move |all: &[SocketAddr]| drop(tell.send(all.to_vec()));
        let resolver = Resolver::start(names, Duration::from_millis(1), changed).unwrap();
        let all = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(all, ["127.0.0.1:7".parse().unwrap(), "127.0.0.2:7".parse().unwrap()]);
        drop(resolver);
        assert!(told.recv_timeout(Duration::from_secs(20)).is_err(), "nothing changed until it ended");
    }

    #[test]
    fn a_name_that_fails_for_a_while_keeps_its_addresses() {
        let mut name = Name::new("bridges:7".to_owned());
        let addresses: Vec<SocketAddr> = vec!["10.0.0.1:7".parse().unwrap()];
        name.note(Err(io::ErrorKind::NotFound.into()));
        assert!(name.failing && name.addresses.is_empty());
        name.note(Ok(addresses.clone()));
        assert!(!name.failing);
        name.note(Ok(Vec::new()));
        assert!(name.failing);
        assert_eq!(name.addresses, addresses);
    }
}
