//! Numbers that look random and are the same for the same seed.

use std::ops::Range;

/// A linear congruential generator, whose lower bits are not used.
pub struct Random(u64);

impl Random {
    /// Seeds that differ a little begin far apart.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// The next number of 31 bits.
    pub fn number(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as u32
    }

    /// One of `range`, which is not empty.
    pub fn within(&mut self, range: Range<u32>) -> u32 {
        range.start + self.number() % (range.end - range.start)
    }

    /// True once in `parts` times.
    pub fn once_in(&mut self, parts: u32) -> bool {
        self.within(0..parts) == 0
    }

    /// One of `choices`, which are not none.
    pub fn choice<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.number() as usize % choices.len()]
    }
}
