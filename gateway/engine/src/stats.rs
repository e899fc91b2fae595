//! Plain counters of one engine; the shell publishes them. Each only grows.

use crate::connection::close::CloseReason;

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections taken.
    pub accepted: u64,
    /// Connections refused as they came.
    pub accept_refused: u64,
    /// Sessions established.
    pub connects: u64,
    /// ... of which resumed.
    pub resumes: u64,
    /// Sessions taken over by a new connection.
    pub takeovers: u64,
    /// Sessions that did not hear in time what their former owner knew: some messages may come to them twice.
    pub handovers_late: u64,
    /// PUBLISH packets and JSON frames taken, by QoS.
    pub received: [u64; 3],
    /// Payload bytes of those.
    pub received_bytes: u64,
    /// QoS 0 publications dropped because the bridges take no more.
    pub dropped_no_credit: u64,
    /// Acknowledgements sent for uplinks (PUBACK, PUBREC, JSON ack).
    pub acknowledged: u64,
    /// Uplinks refused for good.
    pub refused: u64,
    /// Connections whose reading was paused because the bridges take no more.
    pub paused: u64,
    /// PUBLISH packets and JSON pushes sent, by QoS.
    pub sent: [u64; 3],
    /// Payload bytes of those.
    pub sent_bytes: u64,
    /// QoS 0 deliveries dropped because the client does not read.
    pub dropped_slow_consumer: u64,
    /// Deliveries dropped because the client's queue is full.
    pub dropped_queue_full: u64,
    /// Deliveries not sent because their message expiry passed.
    pub dropped_expired: u64,
    /// Deliveries larger than the client's maximum packet size.
    pub dropped_too_large: u64,
    /// Messages sent again with DUP after a resume.
    pub resent: u64,
    /// Wills published.
    pub wills: u64,
    /// Wills left to the store, which gives them to a bridge, as the bridges took no more or none was there for too long.
    pub wills_left: u64,
    /// Questions to the store that it could not answer.
    pub store_errors: u64,
    /// Openings of sessions that the store could not answer, and was to be asked about again.
    pub opens_again: u64,
    /// Sessions closed that the store had opened for connections which ended before it could say so.
    pub strays_closed: u64,
    /// Sessions written back to a store that had forgotten them.
    pub restored: u64,
    /// Events of connections that no bridge was there to be told of, or one that takes too little.
    pub events_dropped: u64,
    /// Links given up because more waited for a bridge than may.
    pub links_overrun: u64,
    /// Connections ended, by reason.
    pub closed: ClosedByReason,
}

/// Connections ended, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedByReason([u64; CloseReason::COUNT]);

impl Default for ClosedByReason {
    fn default() -> Self {
        Self([0; CloseReason::COUNT])
    }
}

impl ClosedByReason {
    /// How many ended for this reason.
    pub fn count(&self, reason: CloseReason) -> u64 {
        self.0[reason as usize]
    }

    pub(crate) fn add(&mut self, reason: CloseReason) {
        self.0[reason as usize] += 1;
    }
}
