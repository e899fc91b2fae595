//! The one way this crate asks for the time, so that tests and simulations can answer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Says the Unix time in ms. May be called under the store's lock: it must be quick and must not call the store.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock. One that stands before 1970 reads as 0.
pub fn system() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
