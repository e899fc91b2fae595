//! Devices behind links: each sends numbered frames, keeps what is unacknowledged, and sends that again over a new link.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Sink, Verdict};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::QoS;
use tokio::sync::Semaphore;

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// Frames that a link may have unsettled, as its window would.
pub(crate) const WINDOW: usize = 300;

pub(crate) fn record<'a>(client: &'a str, payload: &'a [u8], qos: QoS, resent: bool) -> LogRecord<'a> {
    LogRecord {
        offset: 0,
        node: NodeId(1),
        epoch: Epoch(1),
        packet_id: None,
        dup: false,
        resent,
        event_time_ms: 0,
        message: Message {
            id: 1,
            topic: "t",
            qos,
            retain: false,
            publisher: client,
            published_at_ms: 1,
            expires_at_ms: 0,
            properties: &[],
            payload,
        },
    }
}

#[derive(Default)]
struct Fleet {
    next: BTreeMap<String, u64>,
    /// Sent and not acknowledged, in order: client and number.
    unacknowledged: BTreeMap<String, BTreeSet<u64>>,
    acknowledged: HashMap<String, Vec<Range<u64>>>,
    refused: u64,
}

/// What the devices of one link know; outlives links and bridges.
#[derive(Clone, Default)]
pub(crate) struct Devices {
    fleet: Arc<Mutex<Fleet>>,
    clients: Vec<String>,
}

impl Devices {
    pub(crate) fn new(link: usize, count: usize) -> Self {
        Self {
            clients: (0..count).map(|client| format!("device-{link}-{client}")).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn acknowledged(&self) -> HashMap<String, Vec<Range<u64>>> {
        self.fleet.lock().unwrap().acknowledged.clone()
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        let fleet = self.fleet.lock().unwrap();
        fleet.acknowledged.values().flatten().map(|range| range.end - range.start).sum()
    }

    pub(crate) fn unacknowledged_count(&self) -> usize {
        self.fleet.lock().unwrap().unacknowledged.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn refused_count(&self) -> u64 {
        self.fleet.lock().unwrap().refused
    }

    /// Frames of a turn: first what a former link left, then new ones.
    fn turn(&self, first: bool, count: usize) -> Vec<(String, u64, bool)> {
        let mut fleet = self.fleet.lock().unwrap();
        let mut frames = Vec::new();
        if first {
            for (client, numbers) in &fleet.unacknowledged {
                frames.extend(numbers.iter().map(|&number| (client.clone(), number, true)));
            }
        }
        for at in 0..count {
            let client = &self.clients[at % self.clients.len()];
            let next = fleet.next.entry(client.clone()).or_default();
            let number = *next;
            *next += 1;
            fleet.unacknowledged.entry(client.clone()).or_default().insert(number);
            frames.push((client.clone(), number, false));
        }
        frames
    }

    fn settled(&self, client: &str, number: u64, verdict: &Verdict) {
        let mut fleet = self.fleet.lock().unwrap();
        let was = fleet.unacknowledged.get_mut(client).and_then(|numbers| numbers.take(&number));
        assert!(was.is_some(), "{client} {number} is settled twice");
        match verdict {
            Verdict::Stored | Verdict::StoredAt(_) => {
                let ranges = fleet.acknowledged.entry(client.to_owned()).or_default();
                match ranges.last_mut() {
                    Some(range) if range.end == number => range.end += 1,
                    _ => ranges.push(number..number + 1),
                }
            }
            Verdict::Refused(_) => fleet.refused += 1,
            Verdict::Withdrawn | Verdict::Dropped => panic!("{client} {number} was given back to its link"),
        }
    }

    /// Publishes over a link of its own until told to stop, or the sink is closed; `limit` frames at most. What is unsettled then stays so.
    pub(crate) async fn publish(self, sink: Arc<dyn Sink>, batch: usize, stop: Arc<AtomicBool>, limit: u64) {
        let mut lane = sink.lane();
        drop(sink);
        let window = Arc::new(Semaphore::new(WINDOW.max(batch)));
        let (mut first, mut sent) = (true, 0);
        let stale = Arc::new(AtomicBool::new(false));
        let _stale = OnDrop(Arc::clone(&stale));
        while !stop.load(Ordering::Acquire) && sent < limit {
            let frames = self.turn(first, batch);
            first = false;
            sent += batch as u64;
            if frames.is_empty() {
                break;
            }
            let permits = frames.len().min(WINDOW) as u32;
            let Ok(permit) = Arc::clone(&window).acquire_many_owned(permits).await else { return };
            for (client, number, resent) in &frames {
                lane.push(&record(client, &number.to_le_bytes(), QoS::AtLeastOnce, *resent), false);
            }
            let devices = self.clone();
            let mut left = frames.len();
            let mut permit = Some(permit);
            let stale = Arc::clone(&stale);
            let settled = move |run: Range<u32>, verdict: Verdict| {
                for at in run {
                    let (client, number, _) = &frames[at as usize];
                    // A link that is gone hears nothing any more.
                    if !stale.load(Ordering::Acquire) {
                        devices.settled(client, *number, &verdict);
                    }
                    left -= 1;
                }
                if left == 0 {
                    drop(permit.take());
                }
            };
            if lane.send(Box::new(settled)).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // What is under way is waited for, as a link does that drains.
        while !stop.load(Ordering::Acquire) && self.unacknowledged_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits for a state.
#[track_caller]
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
