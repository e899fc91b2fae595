//! A Kafka that does not answer at the start: its sink begins when it does.
//!
//! ```text
//!   awaited ──(a broker answers, the topics are there)──> begun
//!      └── lanes keep nothing: what is pushed comes back then, or when it is withdrawn
//! ```
//!
//! Only for whoever keeps frames elsewhere meanwhile, as the spool does.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::config::KafkaConfig;
use super::error::{KafkaStartError, Refusal};
use super::lane::KafkaLane;
use super::plight::Plight;
use super::producer::Producers;
use super::record::RecordWriter;
use super::start::{Brokers, Found, RECORD_BYTES_MAX};
use super::topics::Topics;
use crate::core::now_ms;
use crate::log::LogRecord;
use crate::sink::{Lane, OnSettled, Sent, Verdict};

/// Brokers that have not answered by then are awaited beside everything else.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(3);
/// Pause between tries to begin.
const PAUSE: Duration = Duration::from_secs(1);
/// What a trouble at the start is about.
const ALL_TOPICS: &str = "";

/// What stores, once the brokers have answered.
pub(super) struct Parts {
    pub(super) producers: Arc<Producers>,
    topics: Arc<Topics>,
}

impl Parts {
    pub(super) fn open(
        config: &Arc<KafkaConfig>,
        found: Found,
        plight: &Arc<Plight>,
    ) -> Result<Self, KafkaStartError> {
        let topics = Arc::new(Topics::start(config, found)?);
        let producers = Producers::start(config, &topics, plight)?;
        tracing::info!(brokers = config.brokers, topic = config.topic, "frames go to Kafka");
        Ok(Self { producers, topics })
    }

    pub(super) fn lane(&self) -> KafkaLane {
        KafkaLane::new(Arc::clone(&self.producers), &self.topics)
    }
}

/// A sink that has begun, or will.
#[derive(Default)]
pub(super) struct Late {
    parts: OnceLock<Parts>,
    pub(super) plight: Arc<Plight>,
    /// Grows when what lanes were given is to come back.
    rounds: watch::Sender<u64>,
}

impl Late {
    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.plight.line()
    }

    /// Begins; once.
    pub(super) fn begin(&self, parts: Parts) {
        let _ = self.parts.set(parts);
        self.plight.is_over(ALL_TOPICS);
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    pub(super) fn withdraw(&self) {
        match self.parts() {
            Some(parts) => parts.producers.withdraw(),
            None => self.rounds.send_modify(|rounds| *rounds += 1),
        }
    }

    /// Begins as soon as it can; not yet because of `error`.
    pub(super) fn wait_for(
        self: &Arc<Self>,
        brokers: Arc<Brokers>,
        config: Arc<KafkaConfig>,
        error: &KafkaStartError,
    ) -> Result<(), KafkaStartError> {
        self.plight.is(ALL_TOPICS, error.to_string());
        let late = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("kafka-start".into())
            .spawn(move || begin_once_it_answers(&late, &brokers, &config))
            .map_err(|error| KafkaStartError::Other(format!("no thread can be started: {error}")))?;
        Ok(())
    }
}

/// Until the sink has begun or is gone.
fn begin_once_it_answers(late: &Weak<Late>, brokers: &Arc<Brokers>, config: &Arc<KafkaConfig>) {
    while late.strong_count() > 0 {
        let found = brokers.find(config, config.start_within);
        let Some(late) = late.upgrade() else { return };
        match found.and_then(|found| Parts::open(config, found, &late.plight)) {
            Ok(parts) => return late.begin(parts),
            Err(error) => late.plight.is(ALL_TOPICS, error.to_string()),
        }
        drop(late);
        std::thread::sleep(PAUSE);
    }
}

/// A lane of a sink that had not begun when it was opened.
pub(super) struct LateLane {
    late: Arc<Late>,
    rounds: watch::Receiver<u64>,
    begun: Option<KafkaLane>,
    /// As [`Lane::carry_acknowledged`] was told.
    acknowledged: bool,
    /// Frames that were pushed in vain since the last [`Lane::send`].
    frames: u32,
    writer: RecordWriter,
}

impl LateLane {
    pub(super) fn new(late: Arc<Late>) -> Self {
        let rounds = late.rounds.subscribe();
        Self { late, rounds, begun: None, acknowledged: false, frames: 0, writer: RecordWriter::default() }
    }

    /// The lane behind it. All frames of a batch take one way.
    fn begun(&mut self) -> Option<&mut KafkaLane> {
        if self.begun.is_none() && self.frames == 0 {
            self.begun = self.late.parts().map(Parts::lane);
        }
        self.begun.as_mut()
    }
}

impl Lane for LateLane {
    fn carry_acknowledged(&mut self, acknowledged: bool) {
        self.acknowledged = acknowledged;
    }

    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        let acknowledged = self.acknowledged;
        match self.begun() {
            Some(lane) => {
                lane.carry_acknowledged(acknowledged);
                lane.push(frame, wants_receipt);
            }
            None => self.frames += 1,
        }
    }

    /// What the topics take is not known yet: what a topic does not take unless somebody has widened it is refused while its device can hear of it.
    fn refuses(&mut self, frame: &LogRecord<'_>) -> Option<u8> {
        if let Some(lane) = self.begun() {
            return lane.refuses(frame);
        }
        let frame = LogRecord { resent: true, ..*frame };
        let bytes = self.writer.envelope(&frame, u64::MAX, now_ms()).bytes;
        (bytes > RECORD_BYTES_MAX).then(|| Refusal::TooLarge.reason_code())
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let frames = std::mem::take(&mut self.frames);
        if frames == 0 {
            return match &mut self.begun {
                Some(lane) => lane.send(settled),
                None => Box::pin(std::future::ready(Ok(()))),
            };
        }
        let rounds = &mut self.rounds;
        Box::pin(async move {
            // Its sender lives as long as the lane.
            let _ = rounds.changed().await;
            settled(0..frames, Verdict::Withdrawn);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::log::tests::frame;

    #[test]
    fn what_is_pushed_before_kafka_answers_comes_back_when_it_is_withdrawn() {
        let late = Arc::new(Late::default());
        let mut lane = LateLane::new(Arc::clone(&late));
        let told = Arc::new(Mutex::new(Vec::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..2 {
            (0..3).for_each(|_| lane.push(&frame(), false));
            let heard = Arc::clone(&told);
            let mut sent =
                lane.send(Box::new(move |run, verdict| heard.lock().unwrap().push((run, verdict))));
            let waits = std::future::poll_fn(|context| {
                std::task::Poll::Ready(sent.as_mut().poll(context).is_pending())
            });
            assert!(runtime.block_on(waits), "nobody has answered");
            late.withdraw();
            runtime.block_on(sent).unwrap();
            assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [(0..3, Verdict::Withdrawn)]);
        }
    }
}
