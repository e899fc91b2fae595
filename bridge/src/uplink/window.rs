//! The ledger of one link's settled uplinks: completions come in any order and leave as few, long runs.
//!
//! Pure. It holds what was settled since the last [`Window::take`], never more than the link's unsettled uplinks.

use holdfast_wire::link::Settled;

/// What was settled and not yet told.
#[derive(Debug, Default)]
pub(crate) struct Window {
    runs: Vec<Settled>,
}

impl Window {
    /// An uplink is settled.
    pub(crate) fn settle(&mut self, sequence: u64, reason_code: u8) {
        match self.runs.last_mut() {
            // The common case: batches are settled front to back.
            Some(run) if run.reason_code == reason_code && run.last.checked_add(1) == Some(sequence) => {
                run.last = sequence;
            }
            _ => self.runs.push(Settled { first: sequence, last: sequence, reason_code }),
        }
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Gives out everything as runs that are as long as can be, ascending.
    pub(crate) fn take(&mut self, mut tell: impl FnMut(Settled)) {
        self.runs.sort_unstable_by_key(|run| run.first);
        let mut held: Option<Settled> = None;
        for run in self.runs.drain(..) {
            match &mut held {
                Some(before)
                    if before.reason_code == run.reason_code
                        && before.last.checked_add(1) == Some(run.first) =>
                {
                    before.last = run.last;
                }
                _ => {
                    held.replace(run).into_iter().for_each(&mut tell);
                }
            }
        }
        held.into_iter().for_each(tell);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(window: &mut Window) -> Vec<Settled> {
        let mut runs = Vec::new();
        window.take(|run| runs.push(run));
        runs
    }

    #[test]
    fn completions_out_of_order_become_one_run() {
        let mut window = Window::default();
        for sequence in [3, 1, 2, 5] {
            window.settle(sequence, 0);
        }
        window.settle(4, 0x97);
        let run = |first, last, reason_code| Settled { first, last, reason_code };
        assert_eq!(taken(&mut window), [run(1, 3, 0), run(4, 4, 0x97), run(5, 5, 0)]);
        assert!(window.is_empty());
    }

    proptest! {
        #[test]
        fn every_completion_is_told_once_with_its_code_and_runs_are_as_long_as_can_be(
            codes in proptest::collection::vec(prop_oneof![4 => Just(0_u8), 1 => Just(0x97)], 1..80),
            order in any::<u64>(),
            takes in 1_usize..6,
        ) {
            let mut sequences: Vec<u64> = (1..=codes.len() as u64).collect();
            let mut state = order | 1;
            for at in (1..sequences.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                sequences.swap(at, (state >> 33) as usize % (at + 1));
            }
            let mut window = Window::default();
            let mut told = vec![None; codes.len()];
            for part in sequences.chunks(sequences.len().div_ceil(takes)) {
                for &sequence in part {
                    window.settle(sequence, codes[sequence as usize - 1]);
                }
                let runs = taken(&mut window);
                for pair in runs.windows(2) {
                    let joined = pair[0].last + 1 == pair[1].first && pair[0].reason_code == pair[1].reason_code;
                    prop_assert!(pair[0].last < pair[1].first && !joined);
                }
                for run in runs {
                    for sequence in run.first..=run.last {
                        prop_assert_eq!(told[sequence as usize - 1].replace(run.reason_code), None);
                    }
                }
            }
            prop_assert_eq!(told, codes.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
