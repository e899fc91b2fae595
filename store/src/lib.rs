//! Where sessions, queues and retained messages live: one contract, several implementations.
//!
//! Knows the values that `wire` gives a session, and nothing of sockets, packets or Kafka. [`contract`] says what every
//! store keeps to; [`memory`] keeps it for as long as the process lives, [`embedded`] on a disk. Both run the same
//! `state`, so they cannot differ in what they answer, only in what survives. [`redis`] keeps it in a server that many
//! processes share.
//!
//! Start with [`contract`], then `state` (what each request does), then [`embedded`] (how it becomes durable), or [`redis`].
#![forbid(unsafe_code)]

pub mod clock;
pub mod contract;
pub mod embedded;
pub mod memory;
mod open_error;
pub mod redis;
mod state;

use std::path::Path;
use std::sync::Arc;

pub use clock::Clock;
pub use contract::{Bounds, ReplyTo, Store, StreamBounds};
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use open_error::OpenError;
pub use redis::{RedisOptions, RedisStore};

/// What every implementation is given.
#[derive(Clone)]
pub struct Options {
    /// Where the time comes from; a Redis server's own comes first, since many nodes live by it.
    pub clock: Clock,
    /// How much it may keep.
    pub bounds: Bounds,
}

impl Default for Options {
    /// The system's clock and the bounds' defaults.
    fn default() -> Self {
        Self { clock: clock::system(), bounds: Bounds::default() }
    }
}

/// Opens the store that `url` names: `memory:`, `embedded:DIR` or `redis://USER:PASSWORD@HOST:PORT/DB`. A directory that
/// does not exist is made.
///
/// The error's `Display` is one line for an operator: what is wrong, and how to mend it.
pub fn open(url: &str, options: Options) -> Result<Arc<dyn Store>, OpenError> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new(options.clock, options.bounds))),
        Some(("embedded", directory)) if !directory.is_empty() => {
            Ok(Arc::new(EmbeddedStore::open(Path::new(directory), options)?))
        }
        Some(("redis", _)) => {
            let options = RedisOptions { bounds: options.bounds, ..RedisOptions::default() };
            Ok(Arc::new(RedisStore::connect(url, options)?))
        }
        Some((scheme @ ("rediss" | "redis+sentinel" | "redis+cluster"), _)) => {
            Err(OpenError::NotYet { scheme: scheme.to_owned() })
        }
        _ => {
            // A misspelt scheme does not make its password any less secret.
            let url = url.rsplit_once('@').map_or(url.to_owned(), |(_, address)| format!("...@{address}"));
            Err(OpenError::UnknownUrl { url })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        open(url, Options::default()).err().expect("it is refused").to_string()
    }

    #[test]
    fn an_unknown_url_is_refused_with_what_is_allowed() {
        for url in ["", "memory", "memory:x", "embedded:", "postgres://db"] {
            assert!(refusal(url).contains("memory:, embedded:DIR, redis://"), "{url}: {}", refusal(url));
        }
    }

    #[test]
    fn a_misspelt_scheme_does_not_show_its_password() {
        assert!(!refusal("radis://user:secret@127.0.0.1/").contains("secret"));
    }

    #[test]
    fn other_ways_to_redis_are_announced_and_not_pretended() {
        for scheme in ["rediss", "redis+sentinel", "redis+cluster"] {
            let refusal = refusal(&format!("{scheme}://user:secret@a,b"));
            assert!(refusal.contains(scheme) && refusal.contains("not in this version yet"), "{refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn a_redis_that_is_not_there_is_an_error_at_once() {
        // Port 1 is never given out to anyone who did not ask for it.
        let refusal = refusal("redis://user:secret@127.0.0.1:1/");
        assert!(refusal.contains("127.0.0.1:1") && refusal.contains("cannot be reached"), "{refusal}");
        assert!(!refusal.contains("secret"), "{refusal}");
    }
}
