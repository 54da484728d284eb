//! How often pages were broken lately: what the smart scan damps pages by that are merged and written
//! again and again.
//!
//! It is kept apart from the items, because an item that shares a slot has no room for an age, and nothing
//! can be mistaken for one that way. What was never broken takes no memory, and what has not changed for long
//! none any more.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use crate::LinearIndex;

/// Breaks of a page that are counted, at most: further ones would have no effect.
const MOST_BREAKS: u64 = 6;

/// Passes in which the count of each page is decremented once.
const DECAY_PASSES: u32 = 64;

/// A count takes so many bits, and a word and a stretch hold so many counts.
const COUNT_BITS: u32 = 4;
const WORD_PAGES: u32 = u64::BITS / COUNT_BITS;
const STRETCH_PAGES: u32 = 4096;
const STRETCH_WORDS: usize = (STRETCH_PAGES / WORD_PAGES) as usize;

const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The lowest bit of each count.
const ONES: u64 = u64::MAX / COUNT_MASK;

const _: () = assert!(MOST_BREAKS <= COUNT_MASK);

/// The counts of one VM's pages: half a byte each, in stretches of 4096 pages that have any.
#[derive(Debug, Default)]
pub(in crate::broker) struct Breaks {
    stretches: BTreeMap<u32, Box<[u64; STRETCH_WORDS]>>,
}

impl Breaks {
    /// Counts a break of a page; returns how many are counted now. O(log pages).
    pub(in crate::broker) fn count(&mut self, linear: LinearIndex) -> u8 {
        let words = self.stretches.entry(linear.0 / STRETCH_PAGES);
        let words = words.or_insert_with(|| Box::new([0; STRETCH_WORDS]));
        let offset = linear.0 % STRETCH_PAGES;
        let word = &mut words[(offset / WORD_PAGES) as usize];
        let shift = offset % WORD_PAGES * COUNT_BITS;
        let mut count = *word >> shift & COUNT_MASK;
        if count < MOST_BREAKS {
            *word += 1 << shift;
            count += 1;
        }
        count.to_le_bytes()[0]
    }

    /// Decrements the count of each page of those stretches that pass number `pass` decrements: of every
    /// page once in 64 passes. O(stretches that have counts + pages of those / 16).
    pub(in crate::broker) fn decay(&mut self, pass: u32) {
        self.stretches.retain(|number, words| {
            if number % DECAY_PASSES != pass % DECAY_PASSES {
                return true;
            }
            let mut any = 0;
            for word in words.iter_mut() {
                let counted = (*word | *word >> 1 | *word >> 2 | *word >> 3) & ONES;
                *word -= counted;
                any |= *word;
            }
            any != 0
        });
    }

    /// Drops all counts of the stretches that have pages of `pages` only. O(stretches).
    pub(in crate::broker) fn forget(&mut self, pages: &Range<u32>) {
        let stretches = pages.start.div_ceil(STRETCH_PAGES)..pages.end / STRETCH_PAGES;
        self.stretches.retain(|number, _| !stretches.contains(number));
    }

    /// Bytes on the heap.
    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        let entry = size_of::<(u32, Box<[u64; STRETCH_WORDS]>)>() * 3 / 2;
        self.stretches.len() * (size_of::<[u64; STRETCH_WORDS]>() + entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_are_counted_for_each_page_up_to_the_most() {
        let mut breaks = Breaks::default();
        let pages = [0, 1, 15, 16, 4095, 4096, u32::MAX].map(LinearIndex);
        for expected in [1, 2, 3, 4, 5, 6, 6, 6] {
            for page in pages {
                assert_eq!(breaks.count(page), expected, "page {}", page.0);
            }
        }
        assert_eq!(breaks.count(LinearIndex(2)), 1);
    }

    #[test]
    fn each_count_is_decremented_once_in_64_passes_and_its_memory_freed_at_zero() {
        let mut breaks = Breaks::default();
        let [often, once, far] = [7, 8, 65 * 4096].map(LinearIndex);
        (0..3).for_each(|_| _ = breaks.count(often));
        _ = (breaks.count(once), breaks.count(far));
        (0..64).for_each(|pass| breaks.decay(pass));
        assert_eq!((breaks.stretches.len(), breaks.heap_bytes() > 2048), (1, true));
        assert_eq!((breaks.count(often), breaks.count(once)), (3, 1));
        (64..64 + 3 * 64).for_each(|pass| breaks.decay(pass));
        assert_eq!(breaks.heap_bytes(), 0);
    }

    #[test]
    fn the_breaks_of_a_range_are_forgotten_and_no_others() {
        let mut breaks = Breaks::default();
        let pages = [0, 4096, 8192, 12288].map(LinearIndex);
        assert_eq!(pages.map(|page| breaks.count(page)), [1; 4]);
        breaks.forget(&(4096..16383));
        assert_eq!(pages.map(|page| breaks.count(page)), [2, 1, 1, 2]);
    }
}
