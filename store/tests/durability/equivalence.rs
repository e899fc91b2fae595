//! The same random requests to both stores, one of them opened again at random moments: they answer alike.

use proptest::prelude::*;

use crate::random_steps::{Side, Step, step};
use crate::world::Bench;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_embedded_answer_alike(steps in prop::collection::vec(step(), 1..150)) {
        let mut memory = Side::new(Bench::memory());
        let mut embedded = Side::new(Bench::embedded());
        for (number, step) in steps.iter().enumerate() {
            let mut step = step.clone();
            match &mut step {
                // A will that was answered to someone who dies with the process is given out by the next one at once.
                Step::Open { publishes, .. } => *publishes = true,
                // Who had asked dies with it too.
                Step::TakeExpired => continue,
                _ => {}
            }
            prop_assert_eq!(memory.take(&step), embedded.take(&step), "step {}: {:?}", number, step);
        }
    }
}
