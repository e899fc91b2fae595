//! Which shard holds a device's connection, for a message on a personal topic.
//!
//! Asked of the store each time: a remembered owner, or a remembered absence, could miss a device whose SUBACK has already left. What is to be heard behind
//! such a message waits for the answer, so the wait has an end; and a store that let one pass is left alone for a while, but for one question now and then.
//! Who is not told the owner sends the message to every shard that may be it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_store::Store;
use holdfast_wire::ids::{ClientId, Owner};
use holdfast_wire::store::{Reply, Request};
use tokio::time::timeout;

use crate::store_requests::{ask, is_temporary};

/// How long the store has to say where a device is.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// How long it is left alone once it has not.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where a device is connected, as far as the store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    At(Owner),
    Nowhere,
    /// It does not tell now.
    Unknown,
}

/// Asks for owners, for all links of one bridge.
#[derive(Debug)]
pub(crate) struct Owners {
    begun: Instant,
    /// In ms since then: before that nobody asks, and then one. 0 while everyone does.
    ask_from: AtomicU64,
}

/// The right to ask: what `ask_from` says while the question is open.
type Turn = u64;

impl Owners {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), ask_from: AtomicU64::new(0) }
    }

    /// Asks the store, for at most [`ANSWER_WITHIN`].
    pub(super) async fn find(&self, store: &dyn Store, client: &str) -> Whereabouts {
        let Some(turn) = self.turn(self.begun.elapsed()) else { return Whereabouts::Unknown };
        let request = Request::Lookup { client: ClientId::new(client) };
        match timeout(ANSWER_WITHIN, ask(store, request)).await {
            Ok(Ok(reply)) => {
                self.answered(turn);
                match reply {
                    Reply::Session(Some(session)) => {
                        session.owner.map_or(Whereabouts::Nowhere, Whereabouts::At)
                    }
                    // It may be connected, and not written back yet to a store that has lost it.
                    _ if store.has_just_begun() => Whereabouts::Unknown,
                    _ => Whereabouts::Nowhere,
                }
            }
            // This session alone cannot be read.
            Ok(Err(error)) if !is_temporary(&error) => {
                self.answered(turn);
                Whereabouts::Unknown
            }
            Ok(Err(_)) | Err(_) => {
                self.failed(self.begun.elapsed());
                Whereabouts::Unknown
            }
        }
    }

    fn turn(&self, now: Duration) -> Option<Turn> {
        let ask_from = self.ask_from.load(Ordering::Acquire);
        if ask_from == 0 {
            return Some(0);
        }
        if now.as_millis() < u128::from(ask_from) {
            return None;
        }
        let turn = later(now);
        let taken = self.ask_from.compare_exchange(ask_from, turn, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok().then_some(turn)
    }

    /// Only whoever asked alone, behind a failure, has everyone ask again: where a part of the store is away, answers of the rest are no news.
    fn answered(&self, turn: Turn) {
        if turn != 0 {
            // Another failure may have come between.
            let _ = self.ask_from.compare_exchange(turn, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn failed(&self, now: Duration) {
        self.ask_from.fetch_max(later(now), Ordering::AcqRel);
    }
}

fn later(now: Duration) -> u64 {
    (now + ASK_AGAIN_AFTER).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn behind_a_failure_one_asks_at_a_time_until_it_is_answered() {
        let owners = Owners::new();
        assert_eq!((owners.turn(ms(0)), owners.turn(ms(0))), (Some(0), Some(0)));
        owners.failed(ms(100));
        owners.answered(0);
        assert_eq!(owners.turn(ms(1_099)), None, "what was asked before is no news");
        let turn = owners.turn(ms(1_100)).unwrap();
        assert_eq!(owners.turn(ms(1_100)), None, "one is enough");
        owners.failed(ms(1_200));
        owners.answered(turn);
        assert_eq!(owners.turn(ms(2_199)), None);
        let turn = owners.turn(ms(2_200)).unwrap();
        owners.answered(turn);
        assert_eq!((owners.turn(ms(2_200)), owners.turn(ms(2_200))), (Some(0), Some(0)));
    }
}
