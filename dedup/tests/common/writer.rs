//! A writer that races folding and checks its own memory.

use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};

use pagefold_dedup::PAGE_SIZE;

use super::{Random, TestVm};

/// The words that a page goes through: equal in all VMs most of the time, and zero now and then.
const WORDS: [u64; 5] = [1, 2, 0, 3, 0];

/// The first words of pages of several VMs, from one page on: the same in all of them, but while one is
/// being written.
pub struct RacedPages {
    first: usize,
    words: Vec<u64>,
}

impl RacedPages {
    /// Pages whose first words are zero.
    pub fn new(first: usize, page_count: usize) -> Self {
        Self { first, words: vec![0; page_count] }
    }

    /// Writes pages until it is to stop, and checks with every write that the one before is there: a lost
    /// or a foreign one shows at once.
    pub fn race(&mut self, vms: &[TestVm], stop: &AtomicBool) {
        let mut random = Random::new(self.first as u64);
        while !stop.load(Ordering::Relaxed) {
            let index = random.number() as usize % self.words.len();
            let (page, word) = (self.first + index, random.choice(&WORDS));
            for vm in vms {
                assert_eq!(vm.swap(page, word), self.words[index], "page {page} of VM {}", vm.id);
            }
            self.words[index] = word;
            // Most pages are unchanged from one pass to the next, or none would ever be merged.
            (0..random.within(0..1 << 13)).for_each(|_| hint::spin_loop());
        }
    }

    /// That each page has what was written to it last, and what `rest` says behind that.
    pub fn check(&self, vms: &[TestVm], rest: impl Fn(usize, &mut [u8])) {
        for (page, word) in (self.first..).zip(&self.words) {
            let mut expected = [0; PAGE_SIZE];
            let (first, behind) = expected.split_at_mut(8);
            first.copy_from_slice(&word.to_le_bytes());
            rest(page, behind);
            for vm in vms {
                assert!(vm.read(page) == expected, "page {page} of VM {}", vm.id);
            }
        }
    }
}
