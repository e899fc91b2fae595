//! Which nodes are dead beyond doubt.
//!
//! A lease that ran out is not enough: after an absence of the store every lease has run out, until its node renews it within a second of the
//! store's return; and a process that was stopped wakes up with a look it took before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use holdfast_wire::ids::NodeId;

/// A node is seen as dead this often in a row, with the store answering all the while...
const LOOKS_MIN: u32 = 3;
/// ...and for so long: three times as long as a living node takes to renew its lease.
const DOUBT: Duration = Duration::from_secs(3);

/// Nodes whose lease has run out, as far as nobody is sure yet.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<NodeId, Suspect>);

#[derive(Debug)]
struct Suspect {
    since: Instant,
    looks: u32,
}

impl Suspects {
    /// The store named these nodes, and no others: gives those that are dead beyond doubt.
    pub(super) fn look(&mut self, dead: &[NodeId], now: Instant) -> Vec<NodeId> {
        self.0.retain(|node, _| dead.contains(node));
        for node in dead {
            self.0.entry(*node).or_insert(Suspect { since: now, looks: 0 }).looks += 1;
        }
        let is_sure = |suspect: &Suspect| {
            suspect.looks >= LOOKS_MIN && now.saturating_duration_since(suspect.since) >= DOUBT
        };
        self.0.iter().filter(|(_, suspect)| is_sure(suspect)).map(|(node, _)| *node).collect()
    }

    /// The store did not answer, or somebody else looked: everyone has the benefit of the doubt again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_dead_after_three_looks_over_three_seconds() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        for second in 0..3 {
            assert!(suspects.look(&[NODE], start + seconds(second)).is_empty());
        }
        assert_eq!(suspects.look(&[NODE], start + seconds(3)), [NODE]);
        assert_eq!(suspects.look(&[NODE], start + seconds(4)), [NODE], "until its sessions are reaped");
    }

    #[test]
    fn many_looks_at_once_are_not_enough() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        assert!((0..100).all(|_| suspects.look(&[NODE], start).is_empty()));
    }

    #[test]
    fn two_looks_far_apart_are_not_enough() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        assert!(suspects.look(&[NODE], start).is_empty());
        assert!(
            suspects.look(&[NODE], start + seconds(3_600)).is_empty(),
            "this process was stopped in between"
        );
    }

    #[test]
    fn a_renewed_lease_or_an_absence_of_the_store_begins_the_count_anew() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        for second in 0..3 {
            suspects.look(&[NODE], start + seconds(second));
        }
        suspects.look(&[], start + seconds(3));
        assert!(suspects.look(&[NODE], start + seconds(4)).is_empty());
        for second in 5..7 {
            suspects.look(&[NODE], start + seconds(second));
        }
        suspects.clear();
        assert!(suspects.look(&[NODE], start + seconds(7)).is_empty());
    }
}
