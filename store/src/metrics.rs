//! What every store counts of the messages that its bounds cost.

use std::sync::Once;

use metrics::counter;

const DROPPED: &str = "holdfast_store_messages_dropped_total";

/// Why a message left a stream, or did not come into it, before its readers had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It reached the age that a stream allows.
    TooOld,
    /// It was among the oldest of a full stream.
    StreamFull,
    /// The store was full, and its stream held most.
    StoreFull,
    /// Its stream was full and keeps what it has.
    Refused,
}

impl Dropped {
    fn label(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::StreamFull => "stream_full",
            Self::StoreFull => "store_full",
            Self::Refused => "refused",
        }
    }
}

/// Tells the recorder what the names mean; once a process.
pub(crate) fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        metrics::describe_counter!(DROPPED, "Messages that a bound took from those who had yet to read them");
    });
}

/// Counts messages; none leaves no trace.
pub(crate) fn count_dropped(why: Dropped, messages: u64) {
    if messages > 0 {
        counter!(DROPPED, "reason" => why.label()).increment(messages);
    }
}
