//! Random numbers that follow from a seed, so that a finding can be had again.

/// A source of numbers (SplitMix64). Never for keys.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end` - 1; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let drawn = self.next_u64() as usize;
        drawn.checked_rem(end).unwrap_or(0)
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// An octet.
    pub fn octet(&mut self) -> u8 {
        self.next_u64().to_be_bytes()[0]
    }

    /// So many octets.
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.octet()).collect()
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        let index = self.below(among.len());
        among.get(index).copied()
    }

    /// Another, independent sequence.
    pub fn fork(&mut self) -> Self {
        Dice(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3).iter().any(|number| *number > 900));
    }
}
