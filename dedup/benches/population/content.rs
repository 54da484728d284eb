//! What is in the pages.

use pagefold_dedup::PAGE_SIZE;

/// The bytes of a content.
pub(crate) fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0xa5; PAGE_SIZE];
    page[..4].copy_from_slice(&content.to_le_bytes());
    page
}

/// A splitmix64 sequence: the same numbers in every run, none of them twice.
#[derive(Debug, Default)]
pub(crate) struct Random(u64);

impl Random {
    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
