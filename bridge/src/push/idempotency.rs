//! One outcome for each id: remembered for a while, and waited for together while it is not known.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use tokio::sync::watch;

use super::outcome::PushOutcome;
use super::request::PushError;
use crate::config::PushConfig;

/// How a push stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// On its way.
    InFlight,
    /// The store did not confirm that it keeps it, and is asked again.
    Held,
    /// This came of it.
    Known(Result<PushOutcome, PushError>),
}

impl Standing {
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

/// Outcomes by id. At most [`PushConfig::outcomes_max`], none known for longer than [`PushConfig::outcome_age_max`]; those in flight stay in any
/// case, and whoever may begin pushes bounds them.
#[derive(Debug)]
pub(super) struct Outcomes {
    config: PushConfig,
    by_id: HashMap<Box<str>, Known>,
    /// The same ids in the order they came, by their place in it.
    order: BTreeMap<u64, (Instant, Box<str>)>,
    next_place: u64,
}

#[derive(Debug)]
struct Known {
    place: u64,
    fingerprint: u64,
    outcome: watch::Receiver<Standing>,
    /// When the outcome came: a walk through a group takes its time, and may be asked after when it is over.
    since: Option<Instant>,
}

/// What is known of an id.
pub(super) enum Entered<P> {
    /// Nothing: push, and tell the outcome.
    First(watch::Sender<Standing>, watch::Receiver<Standing>, P),
    /// It was pushed; this is where the outcome is or will be.
    Known(watch::Receiver<Standing>),
}

impl Outcomes {
    pub(super) fn new(config: PushConfig) -> Self {
        Self { config, by_id: HashMap::new(), order: BTreeMap::new(), next_place: 0 }
    }

    /// A push came with this id. Nothing is known of one before it has its permit: whoever finds an id may count on an outcome.
    pub(super) fn enter<P>(
        &mut self,
        id: &str,
        fingerprint: u64,
        now: Instant,
        permit: impl FnOnce() -> Result<P, PushError>,
    ) -> Result<Entered<P>, PushError> {
        self.forget_old(now);
        if let Some(known) = self.by_id.get(id) {
            if known.fingerprint != fingerprint {
                return Err(PushError::IdReused(id.to_owned()));
            }
            return Ok(Entered::Known(known.outcome.clone()));
        }
        let permit = permit()?;
        let (tell, outcome) = watch::channel(Standing::InFlight);
        let place = self.place();
        self.by_id.insert(id.into(), Known { place, fingerprint, outcome: outcome.clone(), since: None });
        self.order.insert(place, (now, id.into()));
        Ok(Entered::First(tell, outcome, permit))
    }

    /// Its outcome has come.
    pub(super) fn known(&mut self, id: &str, now: Instant) {
        if let Some(known) = self.by_id.get_mut(id) {
            known.since = Some(now);
        }
    }

    /// Nothing came of it; the id may be used again, and crowds nobody out.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(known) = self.by_id.remove(id) {
            self.order.remove(&known.place);
        }
    }

    /// The one behind all others.
    fn place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn forget_old(&mut self, now: Instant) {
        for _ in 0..self.order.len() {
            let Some(first) = self.order.first_entry() else { return };
            let age_max = self.config.outcome_age_max;
            let is_aged = |since: Instant| now.saturating_duration_since(since) > age_max;
            let is_crowded = self.by_id.len() >= self.config.outcomes_max;
            if !is_aged(first.get().0) && !is_crowded {
                return;
            }
            let (_, id) = first.remove();
            let stays = match self.by_id.get(&id).map(|known| known.since) {
                Some(None) => Some(now),
                Some(Some(since)) if !is_aged(since) && !is_crowded => Some(since),
                _ => None,
            };
            let Some(since) = stays else {
                self.by_id.remove(&id);
                continue;
            };
            let place = self.place();
            if let Some(known) = self.by_id.get_mut(&id) {
                known.place = place;
            }
            self.order.insert(place, (since, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcomes(outcomes_max: usize) -> Outcomes {
        Outcomes::new(PushConfig { outcomes_max, ..PushConfig::default() })
    }

    fn enter(
        outcomes: &mut Outcomes,
        id: &str,
        fingerprint: u64,
        now: Instant,
    ) -> Result<Entered<()>, PushError> {
        outcomes.enter(id, fingerprint, now, || Ok(()))
    }

    fn first(outcomes: &mut Outcomes, id: &str, now: Instant) -> watch::Sender<Standing> {
        let Ok(Entered::First(tell, ..)) = enter(outcomes, id, 1, now) else { panic!("{id} is known") };
        tell
    }

    /// It is delivered.
    fn end(outcomes: &mut Outcomes, id: &str, tell: &watch::Sender<Standing>, now: Instant) {
        tell.send_replace(Standing::Known(Ok(PushOutcome::Delivered)));
        outcomes.known(id, now);
    }

    fn is_known(outcomes: &mut Outcomes, id: &str, now: Instant) -> bool {
        matches!(enter(outcomes, id, 1, now), Ok(Entered::Known(_)))
    }

    #[test]
    fn an_id_has_one_outcome_and_is_not_for_another_push() {
        let (mut outcomes, now) = (outcomes(10), Instant::now());
        let tell = first(&mut outcomes, "a", now);
        tell.send_replace(Standing::Known(Ok(PushOutcome::Queued)));
        let Ok(Entered::Known(outcome)) = enter(&mut outcomes, "a", 1, now) else { panic!() };
        assert_eq!(*outcome.borrow(), Standing::Known(Ok(PushOutcome::Queued)));
        assert!(matches!(enter(&mut outcomes, "a", 2, now), Err(PushError::IdReused(_))));
        outcomes.forget("a");
        first(&mut outcomes, "a", now);
    }

    #[test]
    fn a_push_that_gets_no_permit_leaves_nothing_that_another_could_wait_for() {
        let (mut outcomes, now) = (outcomes(10), Instant::now());
        let busy = || Err::<(), _>(PushError::Busy);
        assert!(matches!(outcomes.enter("a", 1, now, busy), Err(PushError::Busy)));
        let _tell = first(&mut outcomes, "a", now);
        assert!(
            matches!(outcomes.enter("a", 1, now, busy), Ok(Entered::Known(_))),
            "it waits, and needs none"
        );
    }

    #[test]
    fn outcomes_go_by_count_and_age_but_not_while_in_flight() {
        let (mut outcomes, now) = (outcomes(3), Instant::now());
        let _in_flight = first(&mut outcomes, "in flight", now);
        for number in 0..10 {
            let tell = first(&mut outcomes, &number.to_string(), now);
            end(&mut outcomes, &number.to_string(), &tell, now);
        }
        assert!(outcomes.order.len() <= 3);
        assert!(is_known(&mut outcomes, "in flight", now));
        assert!(is_known(&mut outcomes, "9", now));
        let later = now + PushConfig::default().outcome_age_max + Duration::from_secs(1);
        assert!(is_known(&mut outcomes, "in flight", later));
        first(&mut outcomes, "9", later);
    }

    #[test]
    fn tries_that_came_to_nothing_crowd_no_outcome_out() {
        let (mut outcomes, now) = (outcomes(3), Instant::now());
        let tell = first(&mut outcomes, "known", now);
        end(&mut outcomes, "known", &tell, now);
        for _ in 0..100 {
            first(&mut outcomes, "tried again and again", now);
            outcomes.forget("tried again and again");
        }
        assert!(is_known(&mut outcomes, "known", now));
        assert_eq!((outcomes.order.len(), outcomes.by_id.len()), (1, 1));
    }

    #[test]
    fn an_outcome_is_remembered_from_the_moment_it_is_known() {
        let (mut outcomes, now) = (outcomes(10), Instant::now());
        let age_max = PushConfig::default().outcome_age_max;
        let tell = first(&mut outcomes, "long", now);
        end(&mut outcomes, "long", &tell, now + age_max);
        assert!(is_known(&mut outcomes, "long", now + age_max * 3 / 2));
        first(&mut outcomes, "long", now + age_max * 5 / 2);
    }
}
