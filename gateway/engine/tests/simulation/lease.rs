//! The node's lease as the shell keeps it: what is asked when, and what the engine is told.
//!
//! Mirrors `gateway/src/lease.rs` and `gateway/src/shard/holding.rs`, in which clocks and threads do what the world's steps do here.

use std::collections::BTreeMap;

use holdfast_engine::LeaseWord;
use holdfast_wire::store::{Reply, StoreError};

/// How long a lease lasts, and how often it is renewed, in ms. Shorter than in a node, as the world's time is dear.
pub(crate) const LEASE_MS: u32 = 1_000;
const RENEW_EVERY_MS: u64 = 100;

#[derive(Default)]
pub(crate) struct Lease {
    /// Renewals without an answer: when each was asked for, and whether the engine waits for it.
    open: BTreeMap<u64, (u64, bool)>,
    last: u64,
    next_ms: u64,
    was_renewed: bool,
    is_interrupted: bool,
    /// Nothing is handled before a renewal is confirmed that was asked for then or later.
    held_since_ms: Option<u64>,
}

impl Lease {
    /// It was renewed before the node admits anyone.
    pub(crate) fn renewed() -> Self {
        Self { was_renewed: true, ..Self::default() }
    }

    /// Time has passed while the process ran.
    pub(crate) fn pass(&mut self, now_ms: u64) {
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + RENEW_EVERY_MS;
            self.renew(now_ms, false);
        }
    }

    /// The engine wants to know.
    pub(crate) fn ask(&mut self, now_ms: u64) {
        self.renew(now_ms, true);
    }

    /// The process did not run for so long that others may have buried it.
    pub(crate) fn hold(&mut self, now_ms: u64) {
        self.held_since_ms = Some(now_ms);
        self.renew(now_ms, false);
    }

    pub(crate) fn holds(&self) -> bool {
        self.held_since_ms.is_some()
    }

    /// The oldest renewal that awaits its answer, or the latest.
    pub(crate) fn next(&self, latest: bool) -> Option<u64> {
        let (first, last) = (self.open.first_key_value(), self.open.last_key_value());
        if latest { last } else { first }.map(|(number, _)| *number)
    }

    /// It was answered. Returns what the engine is told, in this order.
    pub(crate) fn handle_answer(
        &mut self,
        number: u64,
        answer: &Result<Reply, StoreError>,
    ) -> Vec<LeaseWord> {
        let (asked_at_ms, asker) = self.open.remove(&number).expect("it is open");
        let mut words = Vec::new();
        let word = match answer {
            Ok(Reply::Renewed { known }) => {
                if self.held_since_ms.is_some_and(|since_ms| asked_at_ms >= since_ms) {
                    self.held_since_ms = None;
                }
                let was_renewed = std::mem::replace(&mut self.was_renewed, true);
                let was_interrupted = std::mem::take(&mut self.is_interrupted);
                if was_renewed && !*known {
                    words.push(LeaseWord::Forgotten);
                } else if was_interrupted {
                    words.push(LeaseWord::Recovered);
                }
                let has_earlier = self.open.first_key_value().is_some_and(|(open, _)| *open < number);
                if has_earlier { LeaseWord::Unanswered } else { LeaseWord::Renewed }
            }
            Err(StoreError::Fenced) => return vec![LeaseWord::Buried],
            _ => {
                self.is_interrupted = true;
                LeaseWord::Unanswered
            }
        };
        if asker {
            words.push(word);
        }
        words
    }

    fn renew(&mut self, now_ms: u64, asker: bool) {
        self.last += 1;
        self.open.insert(self.last, (now_ms, asker));
    }
}
