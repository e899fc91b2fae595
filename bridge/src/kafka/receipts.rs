//! The book of receipts: what became of each push.

use super::book::{Book, LineCounters};
use super::config::KafkaConfig;
use super::error::KafkaStartError;
use crate::books::ReceiptBook;
use crate::metrics as names;
use crate::push::Receipt;

/// Receipts that wait for Kafka, at most. Beyond it those of records wait where they are, and those of requests are dropped.
const RECEIPTS_MAX: u32 = 50_000;

pub(super) fn open(kafka: &KafkaConfig, topic: &str) -> Result<Book, KafkaStartError> {
    let receipts = |result| metrics::counter!(names::RECEIPTS, "result" => result);
    let counters = LineCounters { stored: receipts("stored"), dropped: receipts("dropped") };
    Book::open(kafka, topic, RECEIPTS_MAX, counters)
}

impl ReceiptBook for Book {
    fn note(&self, receipt: &Receipt<'_>) {
        Self::note(self, receipt.key(), &receipt.json());
    }
}
