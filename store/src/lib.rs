//! Where sessions, queues and retained messages live: one contract, several implementations.
//!
//! Knows the values that `wire` gives a session, and nothing of sockets, packets or Kafka. [`contract`] says what every
//! store keeps to; [`memory`] keeps it for as long as the process lives, [`embedded`] on a disk. Both run the same
//! `state`, so they cannot differ in what they answer, only in what survives.
//!
//! Start with [`contract`], then `state` (what each request does), then [`embedded`] (how it becomes durable).
#![forbid(unsafe_code)]

pub mod clock;
pub mod contract;
pub mod embedded;
pub mod memory;
mod open_error;
mod state;

use std::path::Path;
use std::sync::Arc;

pub use clock::Clock;
pub use contract::{Bounds, ReplyTo, Store, StreamBounds};
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use open_error::OpenError;

/// What every implementation is given.
#[derive(Clone)]
pub struct Options {
    /// Where the time comes from.
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

/// Opens the store that `url` names: `memory:` or `embedded:DIR`. A directory that does not exist is made.
///
/// The error's `Display` is one line for an operator: what is wrong, and how to mend it.
pub fn open(url: &str, options: Options) -> Result<Arc<dyn Store>, OpenError> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new(options.clock, options.bounds))),
        Some(("embedded", directory)) if !directory.is_empty() => {
            Ok(Arc::new(EmbeddedStore::open(Path::new(directory), options)?))
        }
        Some((scheme @ ("redis" | "rediss" | "redis+sentinel" | "redis+cluster"), _)) => {
            Err(OpenError::NotYet { scheme: scheme.to_owned() })
        }
        _ => Err(OpenError::UnknownUrl { url: url.to_owned() }),
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
            assert!(refusal(url).contains("memory:, embedded:DIR"), "{url}: {}", refusal(url));
        }
    }

    #[test]
    fn redis_is_announced_and_not_pretended() {
        assert!(refusal("redis://127.0.0.1/").contains("not in this version yet"));
        assert!(refusal("redis+cluster://a,b").contains("redis+cluster"));
    }
}
