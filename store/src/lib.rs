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
mod metrics;
mod open_error;
pub mod redis;
mod state;

use std::path::Path;
use std::sync::Arc;

pub use clock::Clock;
pub use contract::{Bounds, ReplyTo, Store, StreamBounds, WhenFull};
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
    /// Replicas of a Redis that must have a change before it is answered, unless the URL says how many ([`RedisOptions::replicas`]).
    pub redis_replicas: u32,
}

impl Default for Options {
    /// The system's clock and the bounds' defaults.
    fn default() -> Self {
        Self { clock: clock::system(), bounds: Bounds::default(), redis_replicas: 0 }
    }
}

/// Opens the store that `url` names: `memory:`, `embedded:DIR`, or a Redis: one server (`redis://`, `rediss://`), the one
/// that sentinels name (`redis+sentinel://`), a cluster (`redis+cluster://`); [`RedisStore::connect`] has the details. A directory that does not
/// exist is made.
///
/// The error's `Display` is one line for an operator: what is wrong, and how to mend it.
pub fn open(url: &str, options: Options) -> Result<Arc<dyn Store>, OpenError> {
    metrics::describe();
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new(options.clock, options.bounds))),
        Some(("embedded", directory)) if !directory.is_empty() => {
            Ok(Arc::new(EmbeddedStore::open(Path::new(directory), options)?))
        }
        Some(("redis" | "rediss" | "redis+sentinel" | "redis+cluster", _)) => {
            let Options { bounds, redis_replicas: replicas, .. } = options;
            let options = RedisOptions { bounds, replicas, ..RedisOptions::default() };
            Ok(Arc::new(RedisStore::connect(url, options)?))
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
    fn a_redis_that_is_not_there_is_an_error_at_once() {
        // Port 1 is never given out to anyone who did not ask for it.
        for (url, why) in [
            ("redis://user:secret@127.0.0.1:1/", "127.0.0.1:1/0 cannot be reached"),
            ("rediss://user:secret@127.0.0.1:1/", "127.0.0.1:1/0 cannot be reached"),
            ("redis+sentinel://user:secret@127.0.0.1:1/main", "no sentinel names a primary for main"),
            ("redis+cluster://user:secret@127.0.0.1:1", "the cluster of 127.0.0.1:1 cannot be reached"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(why) && !refusal.contains("secret"), "{refusal}");
        }
    }
}
