//! What peers may send that they should not. Each time: the specification's answer where there is one, the
//! connection closed and counted under its reason, memory flat, and an honest client beside it unharmed.
//!
//! `before_connect.rs` and `after_connect.rs` are tables of packets; `slow.rs` is about time and numbers; `garbage.rs`
//! about bytes without a plan; `websocket.rs` about the other listener.

mod after_connect;
mod before_connect;
mod garbage;
mod slow;
mod websocket;

use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Gateway, resident_bytes};

/// Waits until exactly `count` more connections than `before` have closed for one of `reasons`.
#[track_caller]
fn assert_closed(gateway: &Gateway, reasons: &[&str], before: u64, count: u64, case: &str) {
    until_true(&format!("{case}: to be counted under one of {reasons:?}"), PATIENCE, || {
        closed(gateway, reasons) == before + count
    });
}

/// How many connections have closed for one of these reasons.
fn closed(gateway: &Gateway, reasons: &[&str]) -> u64 {
    let metrics = gateway.metrics();
    reasons.iter().map(|reason| metrics.closed(reason)).sum()
}

/// The gateway's memory, to be compared with itself after the peers have done their worst.
struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    fn of(gateway: &Gateway) -> Self {
        Self { pid: gateway.pid(), before: resident_bytes(gateway.pid()) }
    }

    /// # Panics
    /// When it has grown by more than `mebibytes`.
    #[track_caller]
    fn assert_flat(&self, mebibytes: u64) {
        let grown = resident_bytes(self.pid).saturating_sub(self.before);
        assert!(grown <= mebibytes << 20, "memory grew by {} KiB", grown >> 10);
    }
}
