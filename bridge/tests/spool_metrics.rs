//! What an outage shows to whoever watches, and the alarm at the first frame that is lost. Alone in its process and one after the other, because metrics are.

mod values;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::metrics as names;
use holdfast_bridge::sink::{Lane, OnSettled, Sent, Sink, SinkHealth, Verdict};
use holdfast_bridge::spool::{OutageConfig, OutageSink};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::QoS;
use values::Values;

/// The metrics of this process, for one test at a time.
fn watched() -> (Values, MutexGuard<'static, ()>) {
    static VALUES: OnceLock<Values> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let values = VALUES.get_or_init(|| {
        let values = Values::default();
        metrics::set_global_recorder(values.clone()).unwrap();
        values
    });
    values.begin_anew();
    (values.clone(), alone)
}

type Unanswered = (Range<u32>, OnSettled);

/// Answers with what it was told to, or not at all.
#[derive(Clone, Default)]
struct MoodySink {
    silent: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    unanswered: Arc<Mutex<Vec<Unanswered>>>,
}

impl MoodySink {
    fn answer(&self, verdict: &Verdict) {
        for (frames, mut settled) in std::mem::take(&mut *self.unanswered.lock().unwrap()) {
            settled(frames, verdict.clone());
        }
    }
}

struct MoodyLane(MoodySink, u32);

impl Sink for MoodySink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(MoodyLane(self.clone(), 0))
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }

    fn withdraw(&self) {
        self.answer(&Verdict::Withdrawn);
    }
}

impl Lane for MoodyLane {
    fn push(&mut self, _: &LogRecord<'_>, _: bool) {
        self.1 += 1;
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        self.0.unanswered.lock().unwrap().push((0..std::mem::take(&mut self.1), settled));
        if !self.0.silent.load(Ordering::Acquire) {
            let refuses = self.0.refuses.load(Ordering::Acquire);
            self.0.answer(&if refuses { Verdict::Refused(0x97) } else { Verdict::Stored });
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn frame() -> LogRecord<'static> {
    LogRecord {
        offset: 0,
        node: NodeId(1),
        epoch: Epoch(1),
        packet_id: None,
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: 1,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "d",
            published_at_ms: 1,
            expires_at_ms: 0,
            properties: &[],
            payload: b"21.5",
        },
    }
}

#[track_caller]
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_outage_is_seen_and_the_first_lost_frame_counted() {
    let (values, _alone) = watched();
    let directory = tempfile::tempdir().unwrap();
    let primary = MoodySink::default();
    let config = OutageConfig {
        outage_after: Duration::from_millis(50),
        ..OutageConfig::in_directory(directory.path())
    };
    let sink = OutageSink::start(Arc::new(primary.clone()), &config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stored = Arc::new(AtomicU64::new(0));
    let mut lane = sink.lane();
    let mut publish = |frames: u32| {
        (0..frames).for_each(|_| lane.push(&frame(), false));
        let stored = Arc::clone(&stored);
        let settled = move |run: Range<u32>, verdict| {
            assert_eq!(verdict, Verdict::Stored);
            stored.fetch_add(u64::from(run.end - run.start), Ordering::AcqRel);
        };
        runtime.block_on(lane.send(Box::new(settled))).unwrap();
    };
    publish(3);
    assert_eq!(stored.load(Ordering::Acquire), 3);
    until("all is well", || values.gauge(names::SPOOL_STATE) == 0);

    primary.silent.store(true, Ordering::Release);
    publish(4);
    until("they go to the spool", || stored.load(Ordering::Acquire) == 7);
    until("it is told", || values.gauge(names::SPOOL_STATE) == 2 && values.gauge(names::SPOOL_RECORDS) == 4);
    assert_eq!(values.count(names::OUTAGES), 1);
    until("seconds are counted", || values.count(names::OUTAGE_SECONDS) >= 1);
    assert!(values.gauge(names::SPOOL_BYTES) > 100);
    assert_eq!(values.count(names::FRAMES_LOST), 0);

    // What was acknowledged comes back until an operator has mended something: it is tried again, and the spool takes frames meanwhile.
    for _ in 0..3 {
        until("they are tried", || !primary.unanswered.lock().unwrap().is_empty());
        primary.answer(&Verdict::Withdrawn);
    }
    publish(1);
    until("the spool has it", || stored.load(Ordering::Acquire) == 8);
    assert_eq!(values.count(names::FRAMES_LOST), 0);

    // What was acknowledged is refused for good: nobody can be told any more but the operator.
    until("the first are tried", || !primary.unanswered.lock().unwrap().is_empty());
    primary.refuses.store(true, Ordering::Release);
    primary.silent.store(false, Ordering::Release);
    primary.answer(&Verdict::Refused(0x97));
    until("all is well", || values.gauge(names::SPOOL_STATE) == 0 && values.gauge(names::SPOOL_RECORDS) == 0);
    assert_eq!(values.count(names::FRAMES_LOST), 5);
    assert_eq!(values.count(names::OUTAGES), 1);
}

#[test]
fn a_full_spool_says_so_for_as_long_as_devices_are_held_back() {
    const BATCHES: u64 = 40;
    let (values, _alone) = watched();
    let directory = tempfile::tempdir().unwrap();
    let primary = MoodySink::default();
    primary.silent.store(true, Ordering::Release);
    let config = OutageConfig {
        outage_after: Duration::from_millis(50),
        bytes_max: OutageConfig::BYTES_MIN,
        ..OutageConfig::in_directory(directory.path())
    };
    let sink = OutageSink::start(Arc::new(primary.clone()), &config).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let stored = Arc::new(AtomicU64::new(0));
    for _ in 0..BATCHES {
        let (mut lane, stored) = (sink.lane(), Arc::clone(&stored));
        let payload = vec![b'x'; 64 << 10];
        let frame = frame();
        lane.push(&LogRecord { message: Message { payload: &payload, ..frame.message }, ..frame }, false);
        runtime.spawn(async move {
            let settled = move |run: Range<u32>, _| {
                stored.fetch_add(u64::from(run.end - run.start), Ordering::AcqRel);
            };
            let _ = lane.send(Box::new(settled)).await;
        });
    }
    let takes_nothing = || !sink.health().spool.unwrap().stores;
    until("it is full", || takes_nothing() && values.gauge(names::SPOOL_STALLED) == 1);
    let full = stored.load(Ordering::Acquire);
    assert!((1..BATCHES).contains(&full), "{full} are stored");
    // No further frame comes, so nobody asks the spool again. What it did not take waits for the sink.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        assert!(takes_nothing() && values.gauge(names::SPOOL_STALLED) == 1, "devices are held back");
    }
    primary.silent.store(false, Ordering::Release);
    primary.answer(&Verdict::Stored);
    until("all are stored", || stored.load(Ordering::Acquire) == BATCHES);
    until("it is well again", || !takes_nothing() && values.gauge(names::SPOOL_STALLED) == 0);
}
