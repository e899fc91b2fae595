//! The only place where a test lets time pass: until something is so, or a deadline says that it never will be.

use std::thread;
use std::time::{Duration, Instant};

/// What anything in the suite may take that is not measured itself: generous, as a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a state is looked at. Short against everything that tests wait for.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `look` finds something.
///
/// # Panics
/// When `within` has passed: `what` says what was awaited.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        pause(INTERVAL);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn until_true(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    until(what, within, || condition().then_some(()));
}

/// The pace of a peer that is slow on purpose, or the moment of a fault: what is tested is that time passes.
#[expect(clippy::disallowed_methods, reason = "the one place that the ban leads to")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}
