//! The thread that polls: records become pushes, outcomes become commits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::runtime::Handle;

use super::assignment::{Assignment, Partition};
use super::carrier::Carrier;
use super::{END, FINISH, Order};
use crate::config::PushTopicConfig;
use crate::metrics as names;

/// How long one wait for records lasts. Outcomes are looked for in between: often while some come, seldom while they let themselves be waited for.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);
/// The same while no outcome is awaited; then only an order to stop waits.
const WAIT_IDLE: Duration = Duration::from_millis(250);
/// How often offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// After an error of librdkafka, so that one that persists costs nothing.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    consumer: BaseConsumer<Assignment>,
    carrier: Arc<Carrier>,
    runtime: Handle,
    order: Arc<Order>,
    in_flight_max: usize,
    in_flight_bytes_max: u64,
    /// Outcomes that are known. Bounded by the ledgers.
    settle: Sender<Settled>,
    settled: Receiver<Settled>,
    committed_at: Instant,
    /// Records without an outcome, as the gauge says.
    open: usize,
    /// Dropped when the reader ends.
    _end: Sender<()>,
}

struct Settled {
    partition: i32,
    turn: u64,
    offset: i64,
}

impl Reader {
    pub(super) fn new(
        consumer: BaseConsumer<Assignment>,
        carrier: Carrier,
        runtime: Handle,
        order: Arc<Order>,
        config: &PushTopicConfig,
        end: Sender<()>,
    ) -> Self {
        let (settle, settled) = channel();
        Self {
            consumer,
            carrier: Arc::new(carrier),
            runtime,
            order,
            in_flight_max: config.in_flight_max as usize,
            in_flight_bytes_max: config.in_flight_bytes_max.into(),
            settle,
            settled,
            committed_at: Instant::now(),
            open: 0,
            _end: end,
        }
    }

    /// Until it is told to end.
    pub(super) fn run(mut self) {
        let mut wait = WAIT_MIN;
        let mut finishing = false;
        loop {
            match self.order.current() {
                END => break,
                FINISH if !finishing => {
                    finishing = true;
                    self.pause_all();
                }
                _ => {}
            }
            let took = self.poll(wait);
            let settled = self.settle();
            self.commit_when_due(finishing);
            if finishing && self.open == 0 {
                break;
            }
            wait = match (took || settled, self.open) {
                (true, _) => WAIT_MIN,
                (false, 0) => WAIT_IDLE,
                (false, _) => (wait * 2).min(WAIT_MAX),
            };
        }
        metrics::gauge!(names::PUSH_RECORDS_IN_FLIGHT).set(0.0);
        if let Some(list) = self.consumer.context().take_committable(|_| true)
            && let Err(error) = self.consumer.commit(&list, CommitMode::Sync)
        {
            tracing::warn!(%error, "the last offsets of pushes are not committed; those pushes come again");
        }
    }

    /// Takes one record, if there is one.
    fn poll(&self, wait: Duration) -> bool {
        match self.consumer.poll(wait) {
            Some(Ok(record)) => {
                self.take(&record);
                true
            }
            Some(Err(error)) => {
                self.carrier.complain(&format!("no pushes can be read from Kafka: {error}"));
                std::thread::sleep(ERROR_PAUSE);
                false
            }
            None => false,
        }
    }

    fn take(&self, record: &BorrowedMessage<'_>) {
        let (id, offset) = (record.partition(), record.offset());
        let assignment = self.consumer.context();
        let mut partitions = assignment.partitions();
        let partition = partitions
            .entry(id)
            .or_insert_with(|| Partition { turn: assignment.next_turn(), ..Partition::default() });
        let bytes = u32::try_from(record.payload_len()).unwrap_or(u32::MAX);
        if !partition.ledger.take(offset, bytes) {
            return;
        }
        let turn = partition.turn;
        let is_full = partition.ledger.is_full(self.in_flight_max, self.in_flight_bytes_max);
        if is_full && !partition.is_paused {
            partition.is_paused = self.consumer.pause(&assignment.list([id])).is_ok();
        }
        drop(partitions);
        let read = self.carrier.read(record);
        let (carrier, settle) = (Arc::clone(&self.carrier), self.settle.clone());
        self.runtime.spawn(async move {
            if carrier.carry(read).await {
                // A reader that is gone commits nothing any more.
                let _ = settle.send(Settled { partition: id, turn, offset });
            }
        });
    }

    /// Whether there were outcomes. Partitions with room again are read on.
    fn settle(&mut self) -> bool {
        let mut partitions = self.consumer.context().partitions();
        let mut any = false;
        while let Ok(Settled { partition, turn, offset }) = self.settled.try_recv() {
            any = true;
            if let Some(partition) = partitions.get_mut(&partition).filter(|now| now.turn == turn) {
                partition.ledger.settle(offset);
            }
        }
        let open = partitions.values().map(|partition| partition.ledger.open()).sum();
        if any && self.order.current() != FINISH {
            // Half of it, since what librdkafka had fetched of a paused partition is fetched again.
            let (records, bytes) = (self.in_flight_max.div_ceil(2), self.in_flight_bytes_max.div_ceil(2));
            let has_room =
                |partition: &Partition| partition.is_paused && !partition.ledger.is_full(records, bytes);
            for (&id, partition) in partitions.iter_mut().filter(|(_, partition)| has_room(partition)) {
                let resumed = self.consumer.resume(&self.consumer.context().list([id]));
                partition.is_paused = resumed.is_err();
            }
        }
        drop(partitions);
        if self.open != open {
            self.open = open;
            metrics::gauge!(names::PUSH_RECORDS_IN_FLIGHT).set(open as f64);
        }
        any
    }

    fn commit_when_due(&mut self, at_once: bool) {
        if !at_once && self.committed_at.elapsed() < COMMIT_EVERY {
            return;
        }
        let assignment = self.consumer.context();
        let Some(list) = assignment.take_committable(|_| true) else { return };
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            assignment.commit_failed(&list, &error);
        }
        self.committed_at = Instant::now();
    }

    fn pause_all(&self) {
        let assignment = self.consumer.context();
        let ids: Vec<i32> = assignment.partitions().keys().copied().collect();
        if let Err(error) = self.consumer.pause(&assignment.list(ids)) {
            tracing::debug!(%error, "partitions of pushes cannot be paused");
        }
    }
}
