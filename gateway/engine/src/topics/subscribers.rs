//! The subscriptions of all sessions that are connected here.
//!
//! Ordinary filters lie in one tree; shared groups in a table by their full filter; personal filters only in their
//! session, which is found by client id.

use std::collections::HashMap;

use holdfast_wire::topic::FilterTree;
use rustc_hash::FxBuildHasher;

use crate::input::ConnectionId;
use crate::session::subscription::Options;

/// One session's hold on a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) id: ConnectionId,
    /// Subscription identifier; 0: none.
    pub(crate) identifier: u32,
    pub(crate) options: Options,
}

/// Everyone who holds one filter.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// The filter, kept once a persistent session holds it: positions of messages name it.
    pub(crate) stream: Option<Box<str>>,
    members: Vec<Subscriber>,
    /// Place by slot, once there are too many to search.
    #[expect(clippy::box_collection, reason = "8 bytes for each of many small audiences, not 32")]
    places: Option<Box<HashMap<u32, u32, FxBuildHasher>>>,
    /// Where a shared group's round stands.
    next: usize,
}

/// From this size on, members are found by a table: leaving must not cost the square of the audience when everyone leaves at once.
const SEARCHED_MAX: usize = 64;

impl Subscribers {
    pub(crate) fn members(&self) -> &[Subscriber] {
        &self.members
    }

    /// Adds a member or replaces its subscription.
    pub(crate) fn put(&mut self, subscriber: Subscriber) {
        if let Some(place) = self.place(subscriber.id.slot) {
            self.members[place] = subscriber;
            return;
        }
        if let Some(places) = &mut self.places {
            places.insert(subscriber.id.slot, self.members.len() as u32);
        }
        self.members.push(subscriber);
        if self.places.is_none() && self.members.len() > SEARCHED_MAX {
            let places =
                self.members.iter().enumerate().map(|(place, member)| (member.id.slot, place as u32));
            self.places = Some(Box::new(places.collect()));
        }
    }

    /// Removes a member; true if nobody is left.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        if let Some(place) = self.place(slot) {
            self.members.swap_remove(place);
            if let Some(places) = &mut self.places {
                places.remove(&slot);
                if let Some(moved) = self.members.get(place) {
                    places.insert(moved.id.slot, place as u32);
                }
            }
        }
        self.members.is_empty()
    }

    /// The members in turn, each round beginning one further on.
    pub(crate) fn round(&mut self) -> impl Iterator<Item = Subscriber> + '_ {
        self.next = if self.members.is_empty() { 0 } else { (self.next + 1) % self.members.len() };
        let (before, from) = self.members.split_at(self.next);
        from.iter().chain(before).copied()
    }

    fn place(&self, slot: u32) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&slot).map(|place| *place as usize),
            None => self.members.iter().position(|member| member.id.slot == slot),
        }
    }
}

/// All subscriptions of the shard but the personal ones.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    pub(crate) tree: FilterTree<Subscribers>,
    /// By `$share/{group}/{filter}`.
    pub(crate) groups: HashMap<Box<str>, Subscribers, FxBuildHasher>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::mqtt::QoS;

    fn subscriber(slot: u32) -> Subscriber {
        let options = Options { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false };
        Subscriber { id: ConnectionId { slot, generation: 0 }, identifier: 0, options }
    }

    #[test]
    fn members_come_and_go_in_any_number_and_order() {
        let mut subscribers = Subscribers::default();
        (0..500).for_each(|slot| subscribers.put(subscriber(slot)));
        (0..500).for_each(|slot| subscribers.put(subscriber(slot)));
        assert_eq!(subscribers.members().len(), 500);
        for slot in (0..500).step_by(2) {
            assert!(!subscribers.remove(slot));
            assert!(!subscribers.remove(slot));
        }
        let mut left: Vec<_> = subscribers.members().iter().map(|member| member.id.slot).collect();
        left.sort_unstable();
        assert_eq!(left, (0..500).filter(|slot| slot % 2 == 1).collect::<Vec<_>>());
        assert!((0..500).map(|slot| subscribers.remove(slot)).last().unwrap());
    }

    #[test]
    fn a_group_takes_turns() {
        let mut subscribers = Subscribers::default();
        (0..3).for_each(|slot| subscribers.put(subscriber(slot)));
        let firsts: Vec<_> = (0..6).map(|_| subscribers.round().next().unwrap().id.slot).collect();
        assert_eq!(firsts, [1, 2, 0, 1, 2, 0]);
        assert_eq!(subscribers.round().count(), 3);
    }
}
