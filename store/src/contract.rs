//! What every session store keeps to; `contract_tests` checks each implementation against it.
//!
//! 1. **Order.** Requests that one caller submits for one client take effect in the order of submission.
//! 2. **Fencing.** A write with an epoch other than the session's current one changes nothing and answers [`StoreError::Fenced`]. Epochs
//!    only grow, across restarts too.
//! 3. **Durability.** [`Reply`] comes after the change would survive the death of the process, for sessions with an expiry, their streams
//!    and retained messages. Sessions without an expiry need not survive.
//! 4. **An answer always comes**, at the latest after the implementation's deadline; then it is [`StoreError::Unavailable`].
//! 5. **Bounds.** A stream keeps at most [`StreamBounds`]; the oldest messages go first and leave a gap in the offsets.

pub use holdfast_wire::store::*;

/// Called once with the answer, on a thread of the store's choice, or on the caller's before [`Store::submit`]
/// returns. Must not block.
pub type ReplyTo = Box<dyn FnOnce(Result<Reply, StoreError>) + Send>;

/// A session store.
pub trait Store: Send + Sync + 'static {
    /// Takes a request; never blocks for IO.
    fn submit(&self, request: Request, reply: ReplyTo);
}

/// What a stream keeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// Messages.
    pub messages_max: u32,
    /// Bytes of encoded messages.
    pub bytes_max: u64,
    /// Age of a message since it was published, in ms.
    pub age_ms_max: u64,
}

impl Default for StreamBounds {
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 << 20, age_ms_max: 7 * 24 * 3_600_000 }
    }
}
