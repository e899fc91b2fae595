//! The partitions that are ours, and how they come and go.
//!
//! Called back by librdkafka from within `poll`, on the reader's thread: the lock is never fought for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashMap;

use super::ledger::Ledger;
use crate::kafka::delivery::{Troubles, log};

/// Every partition that is ours now.
pub(super) struct Assignment {
    topic: String,
    partitions: Mutex<FxHashMap<i32, Partition>>,
    turns: AtomicU64,
    troubles: Troubles,
}

/// A partition for as long as it stays with us.
#[derive(Debug, Default)]
pub(super) struct Partition {
    /// Tells this stay from earlier ones, whose outcomes are nobody's any more.
    pub(super) turn: u64,
    pub(super) ledger: Ledger,
    pub(super) is_paused: bool,
}

impl Assignment {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions: Mutex::default(),
            turns: AtomicU64::new(1),
            troubles: Troubles::default(),
        }
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, FxHashMap<i32, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a record that was read: its partition, which is ours.
    pub(super) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// A list of some of our partitions.
    pub(super) fn list(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    /// What is to be committed of those partitions that `of` picks; none if that is nothing.
    pub(super) fn take_committable(&self, of: impl Fn(i32) -> bool) -> Option<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (&id, partition) in self.partitions().iter_mut().filter(|(id, _)| of(**id)) {
            if let Some(offset) = partition.ledger.take_committable() {
                // An offset is never negative, which is all that could be wrong with it.
                let _ = list.add_partition_offset(&self.topic, id, Offset::Offset(offset));
            }
        }
        (list.count() > 0).then_some(list)
    }

    /// Nothing came of a commit.
    pub(super) fn commit_failed(&self, list: &TopicPartitionList, error: &KafkaError) {
        tracing::debug!(%error, "offsets of pushes cannot be committed now");
        let mut partitions = self.partitions();
        for element in list.elements() {
            if let (Offset::Offset(offset), Some(partition)) =
                (element.offset(), partitions.get_mut(&element.partition()))
            {
                partition.ledger.commit_failed(offset);
            }
        }
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(lost) = rebalance else { return };
        let lost: Vec<i32> = lost.elements().iter().map(TopicPartitionListElem::partition).collect();
        if let Some(list) = self.take_committable(|id| lost.contains(&id))
            && let Err(error) = consumer.commit(&list, CommitMode::Sync)
        {
            tracing::debug!(%error, "partitions of pushes are gone before their offsets were committed");
        }
        // What is open there is pushed again by whoever gets them.
        let mut partitions = self.partitions();
        partitions.retain(|id, _| !lost.contains(id));
        tracing::info!(?lost, left = partitions.len(), "partitions of pushes went to others");
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(new) = rebalance {
            let new: Vec<i32> = new.elements().iter().map(TopicPartitionListElem::partition).collect();
            let mut partitions = self.partitions();
            for &id in &new {
                partitions.insert(id, Partition { turn: self.next_turn(), ..Partition::default() });
            }
            tracing::info!(?new, all = partitions.len(), "partitions of pushes are ours");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            self.commit_failed(offsets, &error);
        }
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.troubles.note(&error, reason);
    }
}
