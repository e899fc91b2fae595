//! Asking a process to drain, from wherever the wish comes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Set once, by a signal, by `POST /drain`, or by a test; the process's main thread waits for it and then drains the node.
/// Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct DrainTrigger(Arc<(Mutex<bool>, Condvar)>);

impl DrainTrigger {
    /// From now on the node is not ready; whoever waits goes on to drain it. Asking again changes nothing.
    pub fn request(&self) {
        *self.lock() = true;
        self.0.1.notify_all();
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        *self.lock()
    }

    /// Blocks until it is asked for.
    pub fn wait(&self) {
        let requested = self.lock();
        // A poisoned lock still holds a valid flag.
        drop(self.0.1.wait_while(requested, |requested| !*requested).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_goes_on_once_a_drain_is_requested() {
        let trigger = DrainTrigger::default();
        let waiting = trigger.clone();
        let waiter = std::thread::spawn(move || waiting.wait());
        assert!(!trigger.is_requested());
        trigger.request();
        waiter.join().unwrap();
        assert!(trigger.is_requested());
    }
}
