//! The node's right to own sessions, renewed each second in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_store::contract::{Request, Store};
use holdfast_wire::ids::NodeId;

use crate::shard::clock::Clock;

/// How far the store is behind with the node's lease; at the same time the proof that the store answers.
#[derive(Debug)]
pub(crate) struct Lease {
    node: NodeId,
    clock: Clock,
    /// When the last renewal that succeeded was asked for, in ms of `clock`; 0 for none.
    renewed_at_ms: AtomicU64,
}

/// The lease runs out this long after its last renewal; then another process may bury the node's sessions.
const LEASE_MS: u32 = 5_000;

/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// A store that has confirmed no renewal for so long does not count as answering.
const FRESH_MS: u64 = 3_000;

impl Lease {
    /// Not renewed yet.
    pub(crate) fn new(node: NodeId, clock: Clock) -> Self {
        Self { node, clock, renewed_at_ms: AtomicU64::new(0) }
    }

    /// Whether the store confirmed it lately.
    pub(crate) fn is_fresh(&self) -> bool {
        let renewed_at_ms = self.renewed_at_ms.load(Ordering::Relaxed);
        renewed_at_ms > 0 && self.clock.now().monotonic_ms.saturating_sub(renewed_at_ms) <= FRESH_MS
    }

    /// Renews it for as long as the task lives. Never waits for an answer: a store that hangs must not keep the next
    /// attempt from being made, and bounds the open ones by its own deadline.
    pub(crate) async fn keep(self: Arc<Self>, store: Arc<dyn Store>) {
        let mut renewals = tokio::time::interval(RENEW_EVERY);
        loop {
            renewals.tick().await;
            self.renew(&*store);
        }
    }

    fn renew(self: &Arc<Self>, store: &dyn Store) {
        let lease = Arc::clone(self);
        // At least 1, which tells it from "never".
        let asked_at_ms = self.clock.now().monotonic_ms.max(1);
        let confirm = move |result: Result<_, _>| match result {
            Ok(_) => {
                lease.renewed_at_ms.fetch_max(asked_at_ms, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "the lease was not renewed"),
        };
        store.submit(Request::RenewLease { node: self.node, for_ms: LEASE_MS }, Box::new(confirm));
    }
}
