//! What of a shared subscription's group's stream is not settled, and who has it.
//!
//! ```text
//! gone      one       (settled)  another  given  on hold   (settled)    nobody's yet
//!        holds these             has it   back
//! ─────┬────────────┬──────────┬────────┬──────┬─────────┬───────────┬────────────────┐
//!     cut                                                         frontier          the stream's end
//! ```
//!
//! Runs of offsets, not messages: it knows nothing of what they are. A claim takes what was given back, the oldest first, and then moves the frontier.
//! What a member that holds nothing costs is nothing. A run below the cut is forgotten unless a member holds it, whose numbers it still counts in; it
//! holds nothing back then. So there are never more runs than offsets that members have claimed and not saved, and messages between the cut and the frontier.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use holdfast_wire::ids::ClientId;
use holdfast_wire::session_record::Offset;

/// The unsettled runs of one stream.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Everything up to here is gone.
    cut: Offset,
    /// Everything behind it was never anyone's.
    frontier: Offset,
    /// First offset to last and holder; between the cut and the frontier, and nowhere in one another.
    unsettled: BTreeMap<Offset, Run>,
    /// First offsets of those that were given back.
    free: BTreeSet<Offset>,
    /// When holds end, and where, soonest first. Unix ms.
    holds: BTreeSet<(u64, Offset)>,
    held: HashMap<ClientId, Holding>,
}

#[derive(Debug)]
struct Run {
    last: Offset,
    holder: Holder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Member,
    Nobody,
    /// On hold until this time, Unix ms. Such a run has one offset.
    Until(u64),
}

/// What one member holds: runs in the order in which it claimed them, also what is gone of them.
#[derive(Debug, Default)]
struct Holding {
    runs: VecDeque<(Offset, Offset)>,
    offsets: u64,
}

impl Runs {
    /// Of a stream that ends here.
    pub(crate) fn new(end: Offset) -> Self {
        Self {
            cut: end,
            frontier: end,
            unsettled: BTreeMap::new(),
            free: BTreeSet::new(),
            holds: BTreeSet::new(),
            held: HashMap::new(),
        }
    }

    /// Puts back what a disk knows to be settled, in order: what is before it is free. False if it does not follow what came before it.
    pub(crate) fn restore_settled(&mut self, first: Offset, last: Offset) -> bool {
        let first = first.max(self.cut + 1);
        if first <= self.frontier || last < first {
            return false;
        }
        if self.frontier + 1 < first {
            self.free(self.frontier + 1, first - 1);
        }
        self.frontier = last;
        true
    }

    /// Everything up to here is settled.
    pub(crate) fn settled(&self) -> Offset {
        self.unsettled.keys().next().map_or(self.frontier, |first| first - 1)
    }

    /// How many offsets a member holds.
    pub(crate) fn held_by(&self, member: &ClientId) -> u64 {
        self.held.get(member).map_or(0, |holding| holding.offsets)
    }

    /// What a member holds apart from the first so many, in the order in which it claimed it: how many came before, and the offset.
    pub(crate) fn held_behind(
        &self,
        member: &ClientId,
        skipped: u64,
    ) -> impl Iterator<Item = (u64, Offset)> + '_ {
        let runs = self.held.get(member).into_iter().flat_map(|holding| &holding.runs);
        let mut before = 0;
        runs.flat_map(move |(first, last)| {
            let begins = before;
            before += last - first + 1;
            let skip = skipped.saturating_sub(begins);
            (first.saturating_add(skip)..=*last).map(move |offset| (begins + (offset - first), offset))
        })
    }

    /// The next offset that anyone may claim, in a stream that ends here.
    pub(crate) fn claimable(&self, end: Offset) -> Option<Offset> {
        let behind = (self.frontier < end).then_some(self.frontier + 1);
        self.free.first().copied().or(behind)
    }

    /// A member claims what is claimable next.
    pub(crate) fn claim(&mut self, member: &ClientId, offset: Offset) {
        if let Some(run) = self.remove(offset)
            && offset < run.last
        {
            self.insert(offset + 1, run);
        }
        self.frontier = self.frontier.max(offset);
        if !self.held.contains_key(member) {
            self.held.insert(member.clone(), Holding::default());
        }
        let Some(holding) = self.held.get_mut(member) else { return };
        holding.offsets += 1;
        let first = match holding.runs.back_mut() {
            Some((first, last)) if *last + 1 == offset => {
                *last = offset;
                *first
            }
            _ => {
                holding.runs.push_back((offset, offset));
                offset
            }
        };
        let run = Run { last: offset, holder: Holder::Member };
        self.unsettled.insert(first.max(self.cut + 1), run);
    }

    /// A member has settled the first so many of the offsets that it holds, or all that it does. Gives which, first and last ones, without those that are
    /// gone.
    pub(crate) fn settle(&mut self, member: &ClientId, offsets: u64) -> Vec<(Offset, Offset)> {
        let mut settled = Vec::new();
        let Some(mut holding) = self.held.remove(member) else { return settled };
        let mut left = offsets;
        while left > 0
            && let Some((first, last)) = holding.runs.pop_front()
        {
            let count = left.min(last - first + 1);
            left -= count;
            holding.offsets -= count;
            let rest = first + count;
            if rest <= last {
                holding.runs.push_front((rest, last));
            }
            if last > self.cut {
                let first = first.max(self.cut + 1);
                self.remove(first);
                if first < rest {
                    settled.push((first, rest - 1));
                }
                if rest <= last {
                    self.insert(rest.max(first), Run { last, holder: Holder::Member });
                }
            }
        }
        if holding.offsets > 0 {
            self.held.insert(member.clone(), holding);
        }
        settled
    }

    /// A member gives back all that it holds.
    pub(crate) fn give_back(&mut self, member: &ClientId) {
        for (first, last) in self.held.remove(member).unwrap_or_default().runs {
            if last > self.cut {
                let first = first.max(self.cut + 1);
                self.remove(first);
                self.free(first, last);
            }
        }
    }

    /// What was just appended here is on hold until this time.
    pub(crate) fn hold(&mut self, offset: Offset, until_ms: u64) {
        if offset <= self.cut {
            return;
        }
        // What nobody has claimed before it keeps its place in the order.
        if self.frontier + 1 < offset {
            self.free(self.frontier + 1, offset - 1);
        }
        self.frontier = offset;
        self.insert(offset, Run { last: offset, holder: Holder::Until(until_ms) });
    }

    /// A hold ends. Says whether something was settled by that.
    pub(crate) fn end_hold(&mut self, offset: Offset, taken: bool) -> bool {
        let is_held = self.unsettled.get(&offset).is_some_and(|run| matches!(run.holder, Holder::Until(_)));
        if is_held {
            self.remove(offset);
            if !taken {
                self.free(offset, offset);
            }
        }
        is_held && taken
    }

    /// Holds end whose time is over.
    pub(crate) fn end_holds(&mut self, now_ms: u64) {
        while let Some((until_ms, offset)) = self.holds.first().copied()
            && until_ms <= now_ms
        {
            self.end_hold(offset, false);
        }
    }

    /// Everything up to here is gone.
    pub(crate) fn cut(&mut self, to: Offset) {
        self.cut = to;
        self.frontier = self.frontier.max(to);
        while let Some(first) = self.unsettled.keys().next().copied()
            && first <= to
            && let Some(run) = self.remove(first)
        {
            if run.last > to {
                self.insert(to + 1, run);
            }
        }
    }

    /// Frees a run that is nobody's, together with those beside it.
    fn free(&mut self, mut first: Offset, mut last: Offset) {
        let before = self.unsettled.range(..first).next_back();
        if let Some((begins, run)) = before
            && run.holder == Holder::Nobody
            && run.last + 1 == first
        {
            first = *begins;
        }
        let behind = self.unsettled.get(&(last + 1)).filter(|run| run.holder == Holder::Nobody);
        if let Some(run) = behind {
            let begins = last + 1;
            last = run.last;
            self.remove(begins);
        }
        self.insert(first, Run { last, holder: Holder::Nobody });
    }

    fn insert(&mut self, first: Offset, run: Run) {
        match run.holder {
            Holder::Member => {}
            Holder::Nobody => drop(self.free.insert(first)),
            Holder::Until(until_ms) => drop(self.holds.insert((until_ms, first))),
        }
        self.unsettled.insert(first, run);
    }

    fn remove(&mut self, first: Offset) -> Option<Run> {
        let run = self.unsettled.remove(&first)?;
        match run.holder {
            Holder::Member => {}
            Holder::Nobody => drop(self.free.remove(&first)),
            Holder::Until(until_ms) => drop(self.holds.remove(&(until_ms, first))),
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: Offset = 40;

    /// What is known of one offset, one by one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum One {
        /// Behind the frontier.
        New,
        Free,
        HeldBy(usize),
        Until(u64),
        Settled,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim(usize, usize),
        Settle(usize, u64),
        GiveBack(usize),
        Hold(u64),
        EndHold(Offset, bool),
        EndHolds(u64),
        Cut(Offset),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize, 1..5_usize).prop_map(|(member, offsets)| Step::Claim(member, offsets)),
            3 => (0..3_usize, 0..5_u64).prop_map(|(member, offsets)| Step::Settle(member, offsets)),
            1 => (0..3_usize).prop_map(Step::GiveBack),
            2 => (0..9_u64).prop_map(Step::Hold),
            2 => (1..END, any::<bool>()).prop_map(|(offset, taken)| Step::EndHold(offset, taken)),
            1 => (0..9_u64).prop_map(Step::EndHolds),
            1 => (1..6_u64).prop_map(Step::Cut),
            1 => Just(Step::Restart),
        ]
    }

    /// A stream whose offsets 1 to 40 are appended, all those before a hold together with it.
    struct World {
        runs: Runs,
        ones: Vec<One>,
        /// What each member holds, in order, with what is gone of it.
        held: [Vec<Offset>; 3],
        cut: Offset,
        end: Offset,
        /// What a disk knows to be settled.
        rows: Vec<(Offset, Offset)>,
    }

    impl World {
        fn one(&mut self, offset: Offset) -> &mut One {
            &mut self.ones[offset as usize]
        }

        fn member(number: usize) -> ClientId {
            ClientId::new(&number.to_string())
        }

        fn claimable(&self) -> Option<Offset> {
            let is = |one: One| (self.cut + 1..=self.end).find(|offset| self.ones[*offset as usize] == one);
            is(One::Free).or(is(One::New))
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Claim(member, offsets) => {
                    self.end = (self.end + 2).min(END);
                    for _ in 0..offsets {
                        assert_eq!(self.runs.claimable(self.end), self.claimable());
                        let Some(offset) = self.claimable() else { return };
                        self.runs.claim(&Self::member(member), offset);
                        *self.one(offset) = One::HeldBy(member);
                        self.held[member].push(offset);
                    }
                }
                Step::Settle(member, offsets) => {
                    self.rows.extend(self.runs.settle(&Self::member(member), offsets));
                    let settled = (offsets as usize).min(self.held[member].len());
                    for offset in self.held[member].drain(..settled).collect::<Vec<_>>() {
                        *self.one(offset) = One::Settled;
                    }
                }
                Step::GiveBack(member) => {
                    self.runs.give_back(&Self::member(member));
                    for offset in std::mem::take(&mut self.held[member]) {
                        *self.one(offset) = One::Free;
                    }
                }
                Step::Hold(until_ms) if self.end < END => {
                    self.end += 1;
                    let end = self.end;
                    self.runs.hold(end, until_ms);
                    for one in &mut self.ones[..end as usize] {
                        // It comes before all that is newer, in its place.
                        *one = if *one == One::New { One::Free } else { *one };
                    }
                    *self.one(end) = One::Until(until_ms);
                }
                Step::Hold(_) => {}
                Step::EndHold(offset, taken) => {
                    if self.runs.end_hold(offset, taken) {
                        self.rows.push((offset, offset));
                    }
                    if offset > self.cut && matches!(self.one(offset), One::Until(_)) {
                        *self.one(offset) = if taken { One::Settled } else { One::Free };
                    }
                }
                Step::EndHolds(now_ms) => {
                    self.runs.end_holds(now_ms);
                    for one in &mut self.ones {
                        let is_over = matches!(one, One::Until(until_ms) if *until_ms <= now_ms);
                        *one = if is_over { One::Free } else { *one };
                    }
                }
                Step::Cut(offsets) => {
                    self.cut = (self.cut + offsets).min(self.end);
                    self.runs.cut(self.cut);
                }
                Step::Restart => {
                    self.runs = Runs::new(self.cut);
                    self.rows.retain(|(_, last)| *last > self.cut);
                    self.rows.sort_unstable();
                    for (first, last) in &self.rows {
                        assert!(self.runs.restore_settled(*first, *last), "{:?}", self.rows);
                    }
                    self.held = Default::default();
                    for one in &mut self.ones {
                        let is_free = matches!(one, One::HeldBy(_) | One::Until(_));
                        *one = if is_free { One::Free } else { *one };
                    }
                }
            }
        }

        fn check(&self) {
            let is_unsettled = |one: &One| !matches!(one, One::Settled);
            let behind = &self.ones[self.cut as usize + 1..=self.end as usize];
            let settled = self.cut + behind.iter().take_while(|one| !is_unsettled(one)).count() as u64;
            assert_eq!(self.runs.settled().max(self.cut), settled);
            for (number, held) in self.held.iter().enumerate() {
                let member = Self::member(number);
                assert_eq!(self.runs.held_by(&member), held.len() as u64);
                for skipped in [0, 1, 3] {
                    let places = held.iter().copied().enumerate().skip(skipped);
                    let expected: Vec<_> = places.map(|(place, offset)| (place as u64, offset)).collect();
                    assert_eq!(self.runs.held_behind(&member, skipped as u64).collect::<Vec<_>>(), expected);
                }
            }
            let runs = &self.runs;
            let kinds = |holder: fn(&Holder) -> bool| {
                runs.unsettled.values().filter(|run| holder(&run.holder)).count()
            };
            assert_eq!(runs.free.len(), kinds(|holder| *holder == Holder::Nobody));
            assert_eq!(runs.holds.len(), kinds(|holder| matches!(holder, Holder::Until(_))));
            assert!(runs.unsettled.keys().all(|first| *first > self.cut));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn runs_know_what_each_offset_would_know_for_itself(steps in prop::collection::vec(step(), 1..80)) {
            let mut world = World {
                runs: Runs::new(0),
                ones: vec![One::New; END as usize + 1],
                held: Default::default(),
                cut: 0,
                end: 0,
                rows: Vec::new(),
            };
            for step in &steps {
                world.take(step);
                world.check();
            }
        }
    }

    #[test]
    fn members_that_hold_nothing_are_nowhere() {
        let mut runs = Runs::new(7);
        let member = ClientId::new("d");
        runs.claim(&member, 8);
        assert_eq!(runs.settle(&member, 5), [(8, 8)]);
        assert!(runs.held.is_empty() && runs.unsettled.is_empty());
        assert_eq!(runs.settled(), 8);
    }
}
