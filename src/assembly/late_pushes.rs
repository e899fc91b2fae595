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
        *pushes.reading() = Some(begin(bridge, beside)?);
        Ok(pushes)
    }

    /// Begins once Kafka answers; until then says what is wrong, each thing once.
    pub(super) fn start_later(bridge: &BridgeHandle, beside: Beside) -> Result<Self, StartError> {
        let pushes = Self::default();
        let (bridge, reading) = (bridge.clone(), Arc::clone(&pushes.reading));
        let stopping = Arc::clone(&pushes.stopping);
        let begin_later = move || {
            let mut said = String::new();
            while !stopping.load(Ordering::Acquire) {
                match begin(&bridge, &beside) {
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

fn begin(bridge: &BridgeHandle, beside: &Beside) -> Result<KafkaPushes, KafkaStartError> {
    keep_events(bridge, &beside.kafka, &beside.events)?;
    KafkaPushes::start(bridge, &beside.kafka, &beside.pushes)
}
