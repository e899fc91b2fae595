//! What is counted of the conversation with the server.

use std::sync::Once;
use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};

const CALLS: &str = "holdfast_redis_calls_total";
const CALL_SECONDS: &str = "holdfast_redis_call_seconds";
const RECONNECTS: &str = "holdfast_redis_reconnects_total";
const UP: &str = "holdfast_redis_up";

/// Outcome of a call: the server carried it out.
pub(super) const ANSWERED: &str = "answered";
/// Outcome of a call: the server said no.
pub(super) const ERROR: &str = "error";
/// Outcome of a call: no answer came, or the connection was lost.
pub(super) const LOST: &str = "lost";
/// Outcome of a call: it was not sent, since the server is away or too many wait.
pub(super) const REFUSED: &str = "refused";

/// Tells the recorder what the names mean; once a process.
pub(super) fn describe() {
    static DESCRIBED: Once = Once::new();
    crate::metrics::describe();
    DESCRIBED.call_once(|| {
        metrics::describe_counter!(CALLS, "Calls of functions in the Redis server, by outcome");
        metrics::describe_histogram!(CALL_SECONDS, Unit::Seconds, "How long the Redis server took to answer");
        metrics::describe_counter!(RECONNECTS, "Connections to the Redis server that replaced a lost one");
        metrics::describe_gauge!(UP, "1 while the Redis server answers");
    });
}

pub(super) fn count_call(outcome: &'static str) {
    counter!(CALLS, "outcome" => outcome).increment(1);
}

pub(super) fn time_call(took: Duration) {
    histogram!(CALL_SECONDS).record(took.as_secs_f64());
}

pub(super) fn count_reconnect() {
    counter!(RECONNECTS).increment(1);
}

pub(super) fn say_up(up: bool) {
    gauge!(UP).set(if up { 1.0 } else { 0.0 });
}
