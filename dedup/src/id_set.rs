//! Sets of slots and of other numbers that the broker gives out.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// A set of numbers that no guest and no agent chooses, so that nobody can make them collide on purpose. It
/// costs a third of what the standard library's costs, which guards against that.
pub(crate) type IdSet<T> = HashSet<T, BuildHasherDefault<IdHasher>>;

/// 2^64 divided by the golden ratio: consecutive numbers are spread evenly over the high bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn add(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(SPREAD);
        // The table takes its place from the low bits, in which nothing is mixed yet.
        self.0 = product ^ product >> u32::BITS;
    }
}

impl Hasher for IdHasher {
    fn write_u32(&mut self, number: u32) {
        self.add(number.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.add(byte.into());
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    #[test]
    fn numbers_that_lie_a_power_of_two_apart_do_not_have_the_same_places() {
        for stride in (0..22).map(|bits| 1 << bits) {
            let hash = |number: u32| {
                let mut hasher = IdHasher::default();
                hasher.write_u32(number * stride);
                hasher.finish()
            };
            let places: HashSet<u64> = (0..512).map(|number| hash(number) % 1024).collect();
            assert!(places.len() > 256, "{} places for numbers {stride} apart", places.len());
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let slots = || (0..1000).map(|number| Slot(number * 4096));
        let set: IdSet<Slot> = slots().collect();
        assert_eq!(set.len(), 1000);
        assert!(slots().all(|slot| set.contains(&slot) && !set.contains(&slot.offset(1))));
    }
}
