//! What standing ready for an outage costs a frame while the sink is well, and how fast a spool fills and drains.
//!
//! `cargo bench -p holdfast-bridge --bench spool [-- DIRECTORY]`. The sink settles what it is sent at once and keeps nothing, so everything shown
//! is the bridge's own. The directory should lie on the disk that counts; a temporary one otherwise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, OnSettled, Sent, Sink, SinkHealth, Verdict};
use holdfast_bridge::spool::{OutageConfig, OutageSink};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to `GlobalAlloc::dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to `GlobalAlloc::realloc`'s contract.
        unsafe { System.realloc(pointer, layout, length) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PAYLOAD: [u8; 128] = [b'x'; 128];
const FRAMES: u64 = 2_000_000;
const SPOOLED: u64 = 2_000_000;
const SPOOLED_BATCH: u64 = 256;

/// Keeps nothing; while it is away it does not answer either.
#[derive(Clone, Default)]
struct NullSink {
    away: Arc<AtomicBool>,
    unanswered: Arc<Mutex<Vec<(u32, OnSettled)>>>,
    frames: Arc<AtomicU64>,
}

struct NullLane {
    sink: NullSink,
    frames: u32,
}

impl Sink for NullSink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(NullLane { sink: self.clone(), frames: 0 })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }

    fn withdraw(&self) {
        self.answer(&Verdict::Withdrawn);
    }
}

impl NullSink {
    fn answer(&self, verdict: &Verdict) {
        let unanswered = std::mem::take(&mut *self.unanswered.lock().expect("nobody panics"));
        for (frames, mut settled) in unanswered {
            settled(0..frames, verdict.clone());
        }
    }
}

impl Lane for NullLane {
    fn push(&mut self, frame: &LogRecord<'_>, _: bool) {
        black_box(frame);
        self.frames += 1;
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let frames = std::mem::take(&mut self.frames);
        if self.sink.away.load(Ordering::Acquire) {
            self.sink.unanswered.lock().expect("nobody panics").push((frames, settled));
        } else {
            settled(0..frames, Verdict::Stored);
            self.sink.frames.fetch_add(u64::from(frames), Ordering::AcqRel);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn main() {
    let argument = std::env::args().nth(1).filter(|argument| !argument.starts_with("--"));
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let root = argument.map_or_else(|| temporary.path().to_owned(), Into::into);
    println!("{:<34} {:>16} {:>18}", "", "CPU ns/frame", "allocations/frame");
    for batch in [1, 16, 256, 2_048] {
        direct(&format!("the sink alone, batches of {batch}"), &NullSink::default(), batch);
        let sink = OutageSink::start(Arc::new(NullSink::default()), &config(&root)).expect("the spool opens");
        direct(&format!("with a spool behind it, {batch}"), &sink, batch);
    }
    spooled(&root);
}

fn config(root: &Path) -> OutageConfig {
    OutageConfig {
        outage_after: Duration::from_millis(100),
        ..OutageConfig::in_directory(&root.join("spool"))
    }
}

fn record(number: u64) -> LogRecord<'static> {
    LogRecord {
        offset: 0,
        node: NodeId(1),
        epoch: Epoch(1),
        packet_id: PacketId::new(number as u16 | 1),
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: number,
            topic: "devices/sensor-000001/accel",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "sensor-000001",
            published_at_ms: 1_732_150_000_000 + number,
            expires_at_ms: 0,
            properties: &[],
            payload: &PAYLOAD,
        },
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn direct(name: &str, sink: &dyn Sink, batch: u64) {
    let mut lane = sink.lane();
    let mut before = (0, Duration::ZERO);
    runtime().block_on(async {
        for number in 0..FRAMES {
            if number == FRAMES / 4 {
                before = (ALLOCATIONS.load(Ordering::Relaxed), cpu_time());
            }
            lane.push(&record(number), false);
            if (number + 1) % batch == 0 {
                lane.send(Box::new(|run, verdict| _ = black_box((run, verdict)))).await.expect("open");
            }
        }
    });
    let frames = (FRAMES - FRAMES / 4) as f64;
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before.0) as f64 / frames;
    let cpu = cpu_time().saturating_sub(before.1).as_nanos() as f64 / frames;
    println!("{name:<34} {cpu:>16.0} {allocations:>18.3}");
}

/// Fills a spool during an outage, and lets it drain while as many frames again arrive.
fn spooled(root: &Path) {
    let primary = NullSink::default();
    let sink = OutageSink::start(Arc::new(primary.clone()), &config(root)).expect("the spool opens");
    primary.away.store(true, Ordering::Release);
    let mut lane = sink.lane();
    let settled = Arc::new(AtomicU64::new(0));
    let mut publish = |frames: u64| {
        runtime().block_on(async {
            for number in 0..frames {
                lane.push(&record(number), false);
                if (number + 1) % SPOOLED_BATCH == 0 || number + 1 == frames {
                    let settled = Arc::clone(&settled);
                    let count = move |run: std::ops::Range<u32>, _| {
                        settled.fetch_add(u64::from(run.len() as u32), Ordering::AcqRel);
                    };
                    lane.send(Box::new(count)).await.expect("open");
                }
            }
        });
    };
    // The first frames are given back once the outage is noticed.
    publish(SPOOLED_BATCH);
    wait_until(|| settled.load(Ordering::Acquire) == SPOOLED_BATCH);
    let (started, cpu) = (Instant::now(), cpu_time());
    publish(SPOOLED);
    wait_until(|| settled.load(Ordering::Acquire) == SPOOLED + SPOOLED_BATCH);
    row("into the spool, synced", started, cpu, SPOOLED);
    let (started, cpu) = (Instant::now(), cpu_time());
    primary.away.store(false, Ordering::Release);
    primary.answer(&Verdict::Stored);
    let unanswered = primary.frames.load(Ordering::Acquire);
    wait_until(|| primary.frames.load(Ordering::Acquire) >= unanswered + SPOOLED / 2);
    row("out of the spool", started, cpu, SPOOLED / 2);
}

fn wait_until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn row(name: &str, started: Instant, cpu: Duration, frames: u64) {
    let rate = frames as f64 / started.elapsed().as_secs_f64();
    let cpu = cpu_time().saturating_sub(cpu).as_nanos() as f64 / frames as f64;
    println!("{name:<34} {cpu:>16.0} {rate:>14.0} frames/s");
}

/// CPU time of this process so far, in the kernel's ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
