//! Where frames go: the local log today; Kafka takes the same place.
//!
//! A link gathers the frames of one turn in a [`Lane`] of its own and sends them off together, so a sink sees batches, and says
//! of each frame once, in any order, whether it is stored or refused for good.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use crate::log::{Batch, Log, LogRecord};

/// The future of [`Lane::send`].
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), SinkClosed>> + Send + 'a>>;

/// Called for runs of a batch's frames, numbered as they were pushed, each exactly once: with 0 for stored, with an MQTT 5 reason code (0x80 and
/// above) for refused for good. May be called on any thread and must not block. Dropped if the sink closes before it knows.
pub type OnSettled = Box<dyn FnMut(Range<u32>, u8) + Send>;

/// The sink takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink is closed")]
pub struct SinkClosed;

/// A place that keeps frames.
pub trait Sink: Send + Sync + 'static {
    /// A way into it for one link.
    fn lane(&self) -> Box<dyn Lane>;
}

/// One link's way into a sink. Frames of one lane keep their order.
pub trait Lane: Send {
    /// Adds a frame to the batch that is being gathered; copies what it needs.
    fn push(&mut self, frame: &LogRecord<'_>);
    /// Sends the batch off. Completes once the sink has room for it, not when it is stored: that is the backpressure.
    fn send(&mut self, settled: OnSettled) -> Sent<'_>;
}

/// The local log as a sink.
#[derive(Debug)]
pub struct LogSink(Arc<Log>);

impl LogSink {
    /// Frames go to `log`.
    pub fn new(log: Arc<Log>) -> Self {
        Self(log)
    }
}

impl Sink for LogSink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(LogLane { batch: self.0.batch(), log: Arc::clone(&self.0) })
    }
}

struct LogLane {
    log: Arc<Log>,
    batch: Batch,
}

impl Lane for LogLane {
    fn push(&mut self, frame: &LogRecord<'_>) {
        self.batch.push(frame);
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let batch = std::mem::replace(&mut self.batch, self.log.batch());
        let records = batch.records();
        Box::pin(async move {
            self.log.append(batch, Box::new(move |_| settled(0..records, 0))).await.map_err(|_| SinkClosed)
        })
    }
}
