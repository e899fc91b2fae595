//! Pushes by Kafka and the book of events, at once or when Kafka answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_bridge::BridgeHandle;
use holdfast_bridge::config::{EventsConfig, PushTopicConfig};
use holdfast_bridge::kafka::{KafkaConfig, KafkaPushes, KafkaStartError, keep_events};

use super::StartError;

/// What is to be read and written beside frames.
pub(super) struct Beside {
    pub(super) kafka: KafkaConfig,
    pub(super) pushes: PushTopicConfig,
    pub(super) events: EventsConfig,
}

/// Pushes that are read, or will be.
#[derive(Default)]
pub(super) struct LatePushes {
    reading: Arc<Mutex<Option<KafkaPushes>>>,
    stopping: Arc<AtomicBool>,
}

/// Pause between tries to begin.
const PAUSE: Duration = Duration::from_secs(1);

impl LatePushes {
    /// Begins now.
    pub(super) fn start(bridge: &BridgeHandle, beside: &Beside) -> Result<Self, StartError> {
        let pushes = Self::default();
        *pushes.reading() = Some(Beginning::default().go_on(bridge, beside)?);
        Ok(pushes)
    }

    /// Begins once Kafka answers; until then says what is wrong, each thing once.
    pub(super) fn start_later(bridge: &BridgeHandle, beside: Beside) -> Result<Self, StartError> {
        let pushes = Self::default();
        let (bridge, reading) = (bridge.clone(), Arc::clone(&pushes.reading));
        let stopping = Arc::clone(&pushes.stopping);
        let begin_later = move || {
            let (mut said, mut beginning) = (String::new(), Beginning::default());
            while !stopping.load(Ordering::Acquire) {
                match beginning.go_on(&bridge, &beside) {
                    Ok(begun) => {
                        let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
                        if !stopping.load(Ordering::Acquire) {
                            *reading = Some(begun);
                        }
                        return;
                    }
                    Err(error) if error.to_string() != said => {
                        said = error.to_string();
                        tracing::error!("{said}; pushes and events by Kafka wait until then");
                    }
                    Err(_) => {}
                }
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new()
            .name("late-pushes".into())
            .spawn(begin_later)
            .map_err(|error| StartError::System { what: "a thread", error })?;
        Ok(pushes)
    }

    /// As [`KafkaPushes::stop`].
    pub(super) fn stop(self, within: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        let begun = self.reading().take();
        begun.is_none_or(|pushes| pushes.stop(within))
    }

    fn reading(&self) -> MutexGuard<'_, Option<KafkaPushes>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is begun once each, in this order, over as many tries as it takes.
#[derive(Default)]
struct Beginning {
    keeps_events: bool,
}

impl Beginning {
    /// Begins, or goes on with it.
    fn go_on(&mut self, bridge: &BridgeHandle, beside: &Beside) -> Result<KafkaPushes, KafkaStartError> {
        let Beside { kafka, pushes, events } = beside;
        self.in_order(|| keep_events(bridge, kafka, events), || KafkaPushes::start(bridge, kafka, pushes))
    }

    fn in_order<T, E>(
        &mut self,
        keep_events: impl FnOnce() -> Result<(), E>,
        read_pushes: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.keeps_events {
            keep_events()?;
            self.keeps_events = true;
        }
        read_pushes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_begun_once_while_pushes_are_tried_again() {
        let (mut beginning, mut events) = (Beginning::default(), 0);
        let mut answers = [Err("events"), Ok(()), Ok(())].into_iter();
        let mut pushes = [Err("pushes"), Err("pushes"), Ok("reading")].into_iter();
        let mut told = Vec::new();
        for _ in 0..4 {
            let keep_events = || {
                events += 1;
                answers.next().unwrap()
            };
            told.push(beginning.in_order(keep_events, || pushes.next().unwrap()));
        }
        assert_eq!(told, [Err("events"), Err("pushes"), Err("pushes"), Ok("reading")]);
        assert_eq!(events, 2, "one that failed, and one that did not");
    }
}
