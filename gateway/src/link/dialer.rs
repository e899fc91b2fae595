//! Where a bridge is, and how patiently it is dialled again.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::stream::LinkStream;

/// A bridge as the node is told of it.
#[derive(Debug)]
pub enum LinkTarget {
    /// A bridge in the same process: one end of a socket pair for each shard, in their order. A link that ends does not come back.
    Pair(Vec<UnixStream>),
    /// A bridge of its own; dialled by each shard, again and again.
    Address(SocketAddr),
    /// `HOST:PORT` of one or more bridges: each address that the name resolves to is one. Looked up again and again.
    Name(String),
}

/// One shard's way to one bridge.
#[derive(Debug)]
pub(crate) enum Dialer {
    /// Takes a socket that is connected already, once.
    Pair(Option<UnixStream>),
    /// Dials.
    Address {
        /// Where the bridge listens.
        address: SocketAddr,
        /// Attempts without success since the last one.
        failures: u32,
        /// Spreads the shards of many nodes when a bridge comes back.
        jitter: u64,
    },
}

const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;

impl Dialer {
    /// Dials `address`; `seed` sets this shard's jitter apart from the others'.
    pub(crate) fn to_address(address: SocketAddr, seed: u64) -> Self {
        Self::Address { address, failures: 0, jitter: seed | 1 }
    }

    /// Where it dials.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Pair(_) => None,
            Self::Address { address, .. } => Some(*address),
        }
    }

    /// Takes the ready socket or begins to connect; none if there is nothing left to take.
    pub(super) fn dial(&mut self) -> Option<io::Result<LinkStream>> {
        match self {
            Self::Pair(stream) => stream.take().map(LinkStream::from_pair),
            Self::Address { address, .. } => Some(LinkStream::connect(*address)),
        }
    }

    /// The link stands: the next loss is the first again.
    pub(super) fn note_success(&mut self) {
        if let Self::Address { failures, .. } = self {
            *failures = 0;
        }
    }

    /// How long to wait before the next attempt, in ms: doubling up to 5 s, of which up to half is left to chance; none if there
    /// will be none.
    pub(super) fn pause_ms(&mut self) -> Option<u64> {
        let Self::Address { failures, jitter, .. } = self else { return None };
        let pause_ms = (PAUSE_MS_MIN << (*failures).min(16)).min(PAUSE_MS_MAX);
        *failures += 1;
        // xorshift: good enough to fall out of step with the others.
        *jitter ^= *jitter << 13;
        *jitter ^= *jitter >> 7;
        *jitter ^= *jitter << 17;
        Some(pause_ms / 2 + *jitter % (pause_ms / 2 + 1))
    }

    /// Whether the last loss was the first in a row, and so worth a loud line.
    pub(super) fn is_first_failure(&self) -> bool {
        !matches!(self, Self::Address { failures: 1.., .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_small_again_after_success() {
        let mut dialer = Dialer::to_address("127.0.0.1:1".parse().unwrap(), 42);
        let pauses: Vec<u64> = (0..40).filter_map(|_| dialer.pause_ms()).collect();
        assert!((50..=100).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| (2_500..=5_000).contains(pause)), "{pauses:?}");
        assert!(pauses[10..].iter().any(|pause| *pause != pauses[10]), "no jitter: {pauses:?}");
        dialer.note_success();
        assert!(dialer.is_first_failure());
        assert!(dialer.pause_ms().is_some_and(|pause| pause <= 100));
    }

    #[test]
    fn a_pair_is_taken_once() {
        let (end, _other) = UnixStream::pair().unwrap();
        let mut dialer = Dialer::Pair(Some(end));
        assert!(dialer.dial().is_some_and(|stream| stream.is_ok()));
        assert!(dialer.dial().is_none());
        assert_eq!(dialer.pause_ms(), None);
    }
}
