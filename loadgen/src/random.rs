//! A small deterministic source of randomness (SplitMix64): a seed gives the same fleet each time. Not for secrets.

/// The state: one number.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Independent of its siblings with other indices.
    pub(crate) fn child(seed: u64, index: u64) -> Self {
        let mut random = Self(seed ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly in 0..1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(bound) * (self.next() >> 32)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_children_differ() {
        let take = |mut random: Random| [random.next(), random.next()];
        assert_eq!(take(Random::new(5)), take(Random::new(5)));
        assert_ne!(take(Random::child(5, 1)), take(Random::child(5, 2)));
    }

    #[test]
    fn values_stay_in_their_bounds() {
        let mut random = Random::new(9);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&random.fraction()));
            assert!(random.below(3) < 3);
        }
    }
}
