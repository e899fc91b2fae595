//! What keeps frames from being stored until an operator mends it: said once in the log, and to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics as names;

/// The one trouble that is known.
#[derive(Default)]
pub(super) struct Plight {
    known: Mutex<Option<Known>>,
    /// Spares whoever has stored a record the lock.
    any: AtomicBool,
}

struct Known {
    /// The topic that it is about; empty: all of them.
    topic: Box<str>,
    line: String,
}

impl Plight {
    /// It is this, in one line that says how to mend it.
    pub(super) fn is(&self, topic: &str, line: String) {
        let mut known = self.known();
        if known.as_ref().is_none_or(|known| known.line != line) {
            tracing::error!("{line}; frames wait in the spool until then");
            metrics::gauge!(names::SINK_TROUBLE).set(1.0);
            *known = Some(Known { topic: topic.into(), line });
            self.any.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// What was about this topic is over.
    pub(super) fn is_over(&self, topic: &str) {
        if self.known().take_if(|known| *known.topic == *topic).is_some() {
            self.any.store(false, Ordering::Release);
            metrics::gauge!(names::SINK_TROUBLE).set(0.0);
            tracing::info!(topic, "Kafka takes frames that waited");
        }
    }

    pub(super) fn line(&self) -> Option<String> {
        self.known().as_ref().map(|known| known.line.clone())
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_with_one_topic_is_not_over_because_another_takes_records() {
        let plight = Plight::default();
        plight.is("a", "a is missing".to_owned());
        plight.is_over("b");
        assert_eq!(plight.line().as_deref(), Some("a is missing"));
        plight.is_over("a");
        assert_eq!(plight.line(), None);
    }
}
