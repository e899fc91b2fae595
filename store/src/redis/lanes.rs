//! Which requests have to wait for which (rule 1 of the contract).
//!
//! A lane is a client or a stream. On one connection, commands take effect in the order in which they are sent, so a request that
//! is a single command is done with its lane as soon as it is sent. One of several steps holds its lanes until the last:
//!
//! ```text
//! lane of a client:   [Alone] [Sent Sent Sent] [Alone] ...       phases, one after the other;
//! lane of a filter:   [Steps Steps] [Sent] [Steps]               the members of one phase go side by side
//! ```
//!
//! Every request enters all its lanes at once and in the order of submission, so none can wait for one behind it.

use std::collections::{HashMap, VecDeque};

/// What a request does to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// One command; whoever comes next may follow at once.
    Sent,
    /// Several steps, beside which others of the same kind may go.
    Steps,
    /// Several steps, beside which nothing may go.
    Alone,
}

/// Names a request while it is in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

struct Phase {
    kind: Use,
    /// In the order of submission; those that have finished are gone.
    members: Vec<Ticket>,
}

struct Member<T> {
    lanes: Vec<u64>,
    /// In how many of them others are before it.
    blocked: usize,
    /// Until it starts.
    job: Option<T>,
}

/// All lanes that are in use, never more than requests that wait or run.
pub(super) struct Lanes<T> {
    phases: HashMap<u64, VecDeque<Phase>>,
    members: HashMap<Ticket, Member<T>>,
    next: u64,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self { phases: HashMap::new(), members: HashMap::new(), next: 0 }
    }

    /// Whether nobody is in a lane.
    pub(super) fn is_free(&self, lane: u64) -> bool {
        !self.phases.contains_key(&lane)
    }

    /// Enters. Gives the job back if it may start now; whoever starts says when it has finished.
    pub(super) fn enter(&mut self, mut on: Vec<(u64, Use)>, job: T) -> (Ticket, Option<T>) {
        on.sort_unstable_by_key(|(lane, _)| *lane);
        on.dedup_by_key(|(lane, _)| *lane);
        let ticket = Ticket(self.next);
        self.next += 1;
        let mut blocked = 0;
        for (lane, kind) in &on {
            let phases = self.phases.entry(*lane).or_default();
            match phases.back_mut().filter(|last| last.kind == *kind && *kind != Use::Alone) {
                Some(last) => last.members.push(ticket),
                None => phases.push_back(Phase { kind: *kind, members: vec![ticket] }),
            }
            blocked += usize::from(phases.len() > 1);
        }
        let lanes = on.into_iter().map(|(lane, _)| lane).collect();
        let (kept, given) = if blocked == 0 { (None, Some(job)) } else { (Some(job), None) };
        self.members.insert(ticket, Member { lanes, blocked, job: kept });
        (ticket, given)
    }

    /// A request that had started has finished. Gives those that may start now, in order.
    pub(super) fn finish(&mut self, ticket: Ticket) -> Vec<(Ticket, T)> {
        let mut ready = Vec::new();
        let Some(done) = self.members.remove(&ticket) else { return ready };
        for lane in done.lanes {
            let Some(phases) = self.phases.get_mut(&lane) else { continue };
            let Some(front) = phases.front_mut() else { continue };
            front.members.retain(|member| *member != ticket);
            if !front.members.is_empty() {
                continue;
            }
            phases.pop_front();
            let Some(next) = phases.front() else {
                self.phases.remove(&lane);
                continue;
            };
            for member in &next.members {
                let Some(waiting) = self.members.get_mut(member) else { continue };
                waiting.blocked -= 1;
                if waiting.blocked == 0
                    && let Some(job) = waiting.job.take()
                {
                    ready.push((*member, job));
                }
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_holds_up_everyone_behind_it() {
        let mut lanes = Lanes::new();
        let (first, started) = lanes.enter(vec![(1, Use::Alone)], 'a');
        assert_eq!(started, Some('a'));
        let (second, started) = lanes.enter(vec![(1, Use::Sent)], 'b');
        assert_eq!(started, None);
        assert_eq!(lanes.enter(vec![(1, Use::Sent)], 'c').1, None);
        assert_eq!(lanes.enter(vec![(1, Use::Alone)], 'd').1, None);
        let ready = lanes.finish(first);
        assert_eq!(ready.iter().map(|(_, job)| *job).collect::<String>(), "bc");
        assert!(lanes.finish(second).is_empty());
        assert_eq!(lanes.finish(ready[1].0)[0].1, 'd');
    }

    #[test]
    fn many_steps_go_side_by_side_and_what_is_sent_comes_between() {
        let mut lanes = Lanes::new();
        let (first, _) = lanes.enter(vec![(1, Use::Alone), (9, Use::Steps)], 'a');
        let (second, started) = lanes.enter(vec![(2, Use::Alone), (9, Use::Steps)], 'b');
        assert_eq!(started, Some('b'), "another client subscribes to the same filter");
        assert_eq!(lanes.enter(vec![(9, Use::Sent)], 'c').1, None);
        assert_eq!(
            lanes.enter(vec![(3, Use::Alone), (9, Use::Steps)], 'd').1,
            None,
            "it was submitted later"
        );
        assert!(lanes.finish(first).is_empty());
        let ready = lanes.finish(second);
        assert_eq!(ready.len(), 1);
        assert_eq!(lanes.finish(ready[0].0)[0].1, 'd');
    }

    #[test]
    fn lanes_that_nobody_uses_are_gone() {
        let mut lanes = Lanes::new();
        let (first, _) = lanes.enter(vec![(1, Use::Alone), (2, Use::Steps), (2, Use::Steps)], ());
        assert!(!lanes.is_free(2));
        lanes.finish(first);
        assert!(lanes.is_free(1) && lanes.is_free(2) && lanes.phases.is_empty() && lanes.members.is_empty());
    }
}
