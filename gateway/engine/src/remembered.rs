//! What is known of sessions that are not here any more, by client and epoch; it is forgotten by age.
//!
//! Who keeps something here states the bound, and asks for the oldest to be forgotten when it is met.

use std::collections::BTreeMap;

use holdfast_wire::ids::{ClientId, Epoch};

/// One `T` for each session.
#[derive(Debug)]
pub(crate) struct Remembered<T> {
    /// With the number by which it stands in `ages`.
    by_session: BTreeMap<(ClientId, Epoch), (u64, T)>,
    /// The oldest first.
    ages: BTreeMap<u64, (ClientId, Epoch)>,
    last_number: u64,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { by_session: BTreeMap::new(), ages: BTreeMap::new(), last_number: 0 }
    }
}

impl<T> Remembered<T> {
    pub(crate) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// Takes the place of what was known of this session, and is the youngest.
    pub(crate) fn insert(&mut self, session: (ClientId, Epoch), known: T) {
        let _ = self.remove(&session);
        self.last_number += 1;
        self.ages.insert(self.last_number, session.clone());
        self.by_session.insert(session, (self.last_number, known));
    }

    pub(crate) fn find(&self, session: &(ClientId, Epoch)) -> Option<&T> {
        self.by_session.get(session).map(|(_, known)| known)
    }

    pub(crate) fn find_mut(&mut self, session: &(ClientId, Epoch)) -> Option<&mut T> {
        self.by_session.get_mut(session).map(|(_, known)| known)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&(ClientId, Epoch), &mut T)> {
        self.by_session.iter_mut().map(|(session, (_, known))| (session, known))
    }

    /// The last session of this client before an epoch.
    pub(crate) fn last_before(&self, client: &ClientId, epoch: Epoch) -> Option<(ClientId, Epoch)> {
        let earlier = (client.clone(), Epoch(0))..(client.clone(), epoch);
        self.by_session.range(earlier).next_back().map(|(session, _)| session.clone())
    }

    pub(crate) fn remove(&mut self, session: &(ClientId, Epoch)) -> Option<T> {
        let (number, known) = self.by_session.remove(session)?;
        self.ages.remove(&number);
        Some(known)
    }

    pub(crate) fn oldest(&self) -> Option<&T> {
        self.ages.first_key_value().and_then(|(_, session)| self.find(session))
    }

    pub(crate) fn oldest_session(&self) -> Option<&(ClientId, Epoch)> {
        self.ages.first_key_value().map(|(_, session)| session)
    }

    pub(crate) fn remove_oldest(&mut self) -> Option<((ClientId, Epoch), T)> {
        let (_, session) = self.ages.pop_first()?;
        let (_, known) = self.by_session.remove(&session)?;
        Some((session, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(client: &str, epoch: u64) -> (ClientId, Epoch) {
        (ClientId::new(client), Epoch(epoch))
    }

    #[test]
    fn the_oldest_is_forgotten_first_whatever_its_client_is_called() {
        let mut remembered = Remembered::default();
        for (number, client) in ["z", "a", "m"].into_iter().enumerate() {
            remembered.insert(session(client, 1), number);
        }
        remembered.insert(session("a", 1), 3);
        assert_eq!(remembered.oldest(), Some(&0));
        let oldest = || remembered.remove_oldest().map(|(_, number)| number);
        let forgotten: Vec<_> = std::iter::from_fn(oldest).collect();
        assert_eq!(forgotten, [0, 2, 3]);
        assert_eq!((remembered.len(), remembered.oldest()), (0, None));
    }

    #[test]
    fn what_is_removed_has_no_age_any_more() {
        let mut remembered = Remembered::default();
        for epoch in 1..=3 {
            remembered.insert(session("c", epoch), epoch);
        }
        assert_eq!(remembered.last_before(&ClientId::new("c"), Epoch(3)), Some(session("c", 2)));
        assert_eq!(remembered.last_before(&ClientId::new("d"), Epoch(3)), None);
        assert_eq!(
            (remembered.remove(&session("c", 1)), remembered.remove(&session("c", 1))),
            (Some(1), None)
        );
        assert_eq!((remembered.oldest(), remembered.ages.len()), (Some(&2), 2));
    }
}
