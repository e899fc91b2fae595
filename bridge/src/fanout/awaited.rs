//! Reports that are awaited of members of shared groups, up to a bound.
//!
//! A device may keep silent for as long as its connection lives, so nobody waits here for room. When full, the report that has been awaited longest gives way:
//! those of devices that answer are the youngest, so a few that do not cost the others nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// All of one bridge.
#[derive(Debug)]
pub(crate) struct AwaitedReports {
    places_max: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By age, the oldest first. Whoever waits hears of it when its sender is dropped.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The right to wait for one report, until it gives way or is dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<AwaitedReports>,
    number: u64,
    gave_way: oneshot::Receiver<()>,
}

impl AwaitedReports {
    /// At most so many at once.
    pub(crate) fn new(places_max: u32) -> Self {
        Self { places_max: places_max as usize, places: Mutex::default() }
    }

    /// A place for one more. If all are taken, the oldest gives way.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let (keep, gave_way) = oneshot::channel();
        let mut places = self.places();
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, keep);
        if places.taken.len() > self.places_max {
            places.taken.pop_first();
        }
        drop(places);
        Place { all: Arc::clone(self), number, gave_way }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it has given way.
    pub(super) async fn gave_way(&mut self) {
        // Nobody sends anything: that it is dropped is the news.
        let _ = (&mut self.gave_way).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    async fn has_given_way(place: &mut Place) -> bool {
        let mut gave_way = pin!(place.gave_way());
        poll_fn(|context| Poll::Ready(gave_way.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn the_oldest_gives_way_and_who_leaves_makes_room() {
        let awaited = Arc::new(AwaitedReports::new(2));
        let (mut first, mut second) = (awaited.enter(), awaited.enter());
        assert!(!has_given_way(&mut first).await);
        let mut third = awaited.enter();
        assert!(has_given_way(&mut first).await);
        drop(third);
        third = awaited.enter();
        assert!(!has_given_way(&mut second).await && !has_given_way(&mut third).await);
        drop(first);
        let _fourth = awaited.enter();
        assert!(has_given_way(&mut second).await && !has_given_way(&mut third).await);
        assert_eq!(awaited.places().taken.len(), 2);
    }
}
