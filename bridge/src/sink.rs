//! Where frames go: Kafka, the local log, or the one with the other behind it for an outage.
//!
//! A link gathers the frames of one turn in a [`Lane`] of its own and sends them off together, so a sink sees batches. It says of each frame once, in
//! any order, what became of it: its [`Verdict`].

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Batch, Log, LogRecord};

/// The future of [`Lane::send`].
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), SinkClosed>> + Send + 'a>>;

/// Called for runs of a batch's frames, numbered as they were pushed; each frame is in exactly one run. May be called on any thread, from within
/// [`Lane::send`], [`Sink::withdraw`] and [`Sink::take_verdicts`] too, and must neither block nor call the sink. Dropped if the sink closes before it knows.
pub type OnSettled = Box<dyn FnMut(Range<u32>, Verdict) + Send>;

/// What became of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are stored.
    Stored,
    /// The one frame of the run is stored there; for those that asked, if the sink can tell.
    StoredAt(Receipt),
    /// They are nowhere: there was no room, and with QoS 0 nobody was promised any.
    Dropped,
    /// They are refused for good, with this MQTT 5 reason code (0x80 and above).
    Refused(u8),
    /// They are the caller's again: [`Sink::withdraw`] took them back, or the sink lost its way; then whatever is pushed is withdrawn, so that
    /// nothing overtakes it, until [`Sink::withdraw`] lets it begin anew. Some of them may have been stored all the same, so whoever pushes them
    /// again marks them `resent`.
    Withdrawn,
}

/// Where a sink keeps a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The Kafka topic, or `log`.
    pub topic: Arc<str>,
    /// The topic's partition; 0 in the log.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
}

/// The sink takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink is closed")]
pub struct SinkClosed;

/// How a sink does, for whoever asks after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkHealth {
    /// `kafka` or `log`.
    pub kind: &'static str,
    /// As far as is known, it stores what it is given.
    pub stores: bool,
    /// The spool before it; none without one.
    pub spool: Option<SpoolHealth>,
}

/// How a spool does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolHealth {
    /// `direct`, `withdrawing`, `spooling`, `draining` or `held`: what becomes of frames.
    pub state: &'static str,
    /// Records in it that the sink has not stored.
    pub records: u64,
    /// Its bytes on disk.
    pub bytes: u64,
    /// False while it takes nothing: it is full, or its disk refuses.
    pub stores: bool,
}

/// A place that keeps frames.
pub trait Sink: Send + Sync + 'static {
    /// A way into it for one link.
    fn lane(&self) -> Box<dyn Lane>;

    /// How it does.
    fn health(&self) -> SinkHealth;

    /// What keeps it from storing that waiting alone may not mend, in one line that says what would; none if nothing is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Gives back what it has not stored: every frame that was pushed before and has no verdict gets one soon, most of them
    /// [`Verdict::Withdrawn`], and what is pushed afterwards starts afresh. A [`Lane::send`] that waits for room completes, its frames withdrawn. A sink that
    /// gave frames back by itself gives back whatever is pushed until this is called: otherwise later frames would overtake them. Does nothing in
    /// a sink that always knows, as the log does.
    fn withdraw(&self) {}

    /// How long a bridge that is woken often for little may sleep before it looks again, so that it finds more at once; zero: that brings nothing here.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Tells the verdicts that there are, on this thread; none if the sink tells them by itself. Whoever calls it calls it again within a millisecond or
    /// two, so a sink may keep its verdicts for that and spare itself a waking for each. If the calls stay out it tells them all the same.
    fn take_verdicts(&self) {}

    /// Nobody calls [`Sink::take_verdicts`] for now.
    fn leave_verdicts(&self) {}
}

/// One link's way into a sink. Frames of one lane keep their order.
pub trait Lane: Send {
    /// Whether the frames that are pushed from now on were acknowledged: nobody can be told of a refusal any more. Those that an operator can make
    /// welcome (their topic is missing, or forbidden) come back [`Verdict::Withdrawn`] until that is done, and so do those that smaller batches may
    /// help.
    fn carry_acknowledged(&mut self, _acknowledged: bool) {}
    /// Adds a frame to the batch that is being gathered; copies what it needs. One that wants a receipt is settled by
    /// [`Verdict::StoredAt`] if the sink can tell.
    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool);
    /// Whether the sink is sure to refuse this frame for good (too large, no topic), and with which reason code. Asked, instead of pushing, where a
    /// frame is to be acknowledged long before the sink has it; so it must not ask anybody else.
    fn refuses(&mut self, _frame: &LogRecord<'_>) -> Option<u8> {
        None
    }
    /// Sends the batch off. Completes once the sink has room for it, not when it is stored: that is the backpressure. A sink may have begun to
    /// store a frame when it was pushed. Whoever waits for room is served in the order in which these futures were first polled, newcomers last: a client
    /// may go on over another lane while its frames wait in this one. So whoever has one goes on polling it, or drops it.
    fn send(&mut self, settled: OnSettled) -> Sent<'_>;
}

/// The local log as a sink. Its receipts name the topic `log`.
#[derive(Debug)]
pub struct LogSink {
    log: Arc<Log>,
    name: Arc<str>,
}

impl LogSink {
    /// Frames go to `log`.
    pub fn new(log: Arc<Log>) -> Self {
        Self { log, name: "log".into() }
    }
}

impl Sink for LogSink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(LogLane {
            batch: self.log.batch(),
            log: Arc::clone(&self.log),
            name: Arc::clone(&self.name),
            receipts: Vec::new(),
        })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: !self.log.is_stalled(), spool: None }
    }
}

struct LogLane {
    log: Arc<Log>,
    name: Arc<str>,
    batch: Batch,
    /// Frames of the batch that want one, by number.
    receipts: Vec<u32>,
}

impl Lane for LogLane {
    fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        if wants_receipt {
            self.receipts.push(self.batch.records());
        }
        self.batch.push(frame);
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let batch = std::mem::replace(&mut self.batch, self.log.batch());
        let receipts = std::mem::take(&mut self.receipts);
        let records = batch.records();
        let name = Arc::clone(&self.name);
        Box::pin(async move {
            let appended = self.log.append(
                batch,
                Box::new(move |appended| {
                    let mut next = 0;
                    for frame in receipts {
                        if next < frame {
                            settled(next..frame, Verdict::Stored);
                        }
                        let offset = (appended.first_offset + u64::from(frame)).cast_signed();
                        let receipt = Receipt { topic: Arc::clone(&name), partition: 0, offset };
                        settled(frame..frame + 1, Verdict::StoredAt(receipt));
                        next = frame + 1;
                    }
                    if next < records {
                        settled(next..records, Verdict::Stored);
                    }
                }),
            );
            appended.await.map_err(|_| SinkClosed)
        })
    }
}
