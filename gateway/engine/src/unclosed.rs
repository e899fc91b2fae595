//! Sessions that the store could not close, until it is asked again: in the order of time, or all of a client that comes back before.
//!
//! Who keeps one here states the bound.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_wire::ids::ClientId;

use crate::requests::Closing;

/// Closes that failed.
#[derive(Debug, Default)]
pub(crate) struct Unclosed {
    /// By when the store is asked again, in ms of the monotonic clock, and a number that tells them apart.
    due: BTreeMap<(u64, u64), Closing>,
    /// The same keys by client: when a store is back, thousands of clients look for their own at once.
    by_client: BTreeSet<(ClientId, (u64, u64))>,
}

impl Unclosed {
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// When the store is asked about the next one, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.keys().next().map(|(due_ms, _)| *due_ms)
    }

    /// `number`: of nothing else.
    pub(crate) fn insert(&mut self, due_ms: u64, number: u64, closing: Closing) {
        self.by_client.insert((closing.client.clone(), (due_ms, number)));
        self.due.insert((due_ms, number), closing);
    }

    /// One whose time has come.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<Closing> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        let (key, closing) = entry.remove_entry();
        self.by_client.remove(&(closing.client.clone(), key));
        Some(closing)
    }

    /// One of this client, the one that is due first.
    pub(crate) fn take_of(&mut self, client: &ClientId) -> Option<Closing> {
        let own = (client.clone(), (0, 0))..=(client.clone(), (u64::MAX, u64::MAX));
        let entry = self.by_client.range(own).next()?.clone();
        self.by_client.remove(&entry);
        self.due.remove(&entry.1)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::Epoch;

    use super::*;

    fn closing(client: &str, epoch: u64) -> Closing {
        Closing {
            client: ClientId::new(client),
            epoch: Epoch(epoch),
            expiry_s: 0,
            will: None,
            failures: 1,
            is_brought_back: false,
        }
    }

    #[test]
    fn what_a_client_takes_up_again_is_not_due_any_more() {
        let mut unclosed = Unclosed::default();
        for (number, client) in ["b", "a", "b", "c"].into_iter().enumerate() {
            unclosed.insert(100 - number as u64, number as u64, closing(client, number as u64));
        }
        let client = ClientId::new("b");
        let own: Vec<_> = std::iter::from_fn(|| unclosed.take_of(&client)).collect();
        assert!(own.iter().map(|closing| closing.epoch).eq([Epoch(2), Epoch(0)]));
        assert_eq!((unclosed.len(), unclosed.next_ms()), (2, Some(97)));
        assert_eq!(unclosed.take_due(96).map(|closing| closing.epoch), None);
        let due: Vec<_> = std::iter::from_fn(|| unclosed.take_due(100)).collect();
        assert!(due.iter().map(|closing| closing.epoch).eq([Epoch(3), Epoch(1)]));
        assert!(unclosed.is_empty() && unclosed.by_client.is_empty());
    }
}
