//! The log as its users see it: what was completed is there, whatever happened in between.

pub(crate) mod failing_disk;
mod reading;
mod recovery;
mod released;

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_wire::message::Message;

use super::record::tests::sample;
use super::*;

/// Longer than anything here takes; a test that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A batch whose records carry the numbers as payloads.
pub(crate) fn batch(log: &Log, numbers: std::ops::Range<u64>) -> Batch {
    let mut batch = log.batch();
    for number in numbers {
        push(&mut batch, number.to_string().as_bytes());
    }
    batch
}

/// Any record.
pub(crate) fn frame() -> LogRecord<'static> {
    sample(b"")
}

fn push(batch: &mut Batch, payload: &[u8]) {
    batch.push(&LogRecord { message: Message { payload, ..sample(b"").message }, ..sample(b"") });
}

/// Queues a batch; the receiver hears when it is complete.
pub(crate) fn submit(log: &Log, batch: Batch) -> mpsc::Receiver<Appended> {
    let (done, completed) = mpsc::channel();
    let on_appended: OnAppended = Box::new(move |appended| {
        let _ = done.send(appended);
    });
    assert!(log.try_append(batch, on_appended).unwrap().is_ok(), "the queue has room");
    completed
}

/// Appends and waits until it is complete.
pub(crate) fn store(log: &Log, numbers: std::ops::Range<u64>) -> Appended {
    submit(log, batch(log, numbers)).recv_timeout(DEADLINE).expect("the batch is completed")
}

fn open(directory: &Path) -> (Log, Recovered) {
    Log::open(directory, LogConfig::default()).unwrap()
}

/// All payloads as numbers, and all damage.
fn contents(directory: &Path) -> (Vec<u64>, Vec<Damage>) {
    let mut reader = LogReader::open(directory).unwrap();
    let (mut numbers, mut damage) = (Vec::new(), Vec::new());
    while let Some(entry) = reader.next_entry().unwrap() {
        match entry {
            Entry::Record(record) => {
                numbers.push(std::str::from_utf8(record.message.payload).unwrap().parse().unwrap());
            }
            Entry::Damaged(place) => damage.push(place),
        }
    }
    (numbers, damage)
}

#[track_caller]
pub(crate) fn wait_until(mut reached: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "it never came to this");
        std::thread::yield_now();
    }
}

/// What a stalled log gives back.
pub(crate) fn reclaim(log: &Log) -> Vec<Reclaimed> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(log.reclaim()).1
}
