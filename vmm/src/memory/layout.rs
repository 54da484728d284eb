//! Where a VM's memory lies in its guest-physical addresses.

use std::ops::Range;

use pagefold_dedup::PAGE_SIZE;

use super::addresses::{HOLE_END, HOLE_START, MAX_MEMORY_BYTES};
use super::error::GuestRamError;

/// Memory below the hole, and what does not fit there from 4 GiB on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLayout {
    memory_bytes: u64,
}

impl MemoryLayout {
    /// The layout of `memory_bytes`.
    ///
    /// # Errors
    ///
    /// When no VM can have that much.
    pub fn new(memory_bytes: u64) -> Result<Self, GuestRamError> {
        if memory_bytes == 0 || !memory_bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(GuestRamError::NotPages { memory_bytes });
        }
        if memory_bytes > MAX_MEMORY_BYTES {
            return Err(GuestRamError::TooLarge { memory_bytes });
        }
        Ok(Self { memory_bytes })
    }

    /// The layout of memory that there is.
    pub(super) fn of(memory_bytes: u64) -> Self {
        Self { memory_bytes }
    }

    /// Bytes of memory.
    pub fn memory_bytes(self) -> u64 {
        self.memory_bytes
    }

    /// The guest-physical addresses that are memory, ascending; one range, or two.
    pub fn ranges(self) -> impl Iterator<Item = Range<u64>> {
        let low = self.memory_bytes.min(HOLE_START);
        let high = self.memory_bytes - low;
        [0..low, HOLE_END..HOLE_END + high].into_iter().filter(|range| !range.is_empty())
    }

    /// The first address above all memory.
    pub fn end(self) -> u64 {
        self.ranges().last().map_or(0, |range| range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First address and first address above, of each range.
    fn ranges(memory_bytes: u64) -> Vec<(u64, u64)> {
        let layout = MemoryLayout::new(memory_bytes).unwrap();
        layout.ranges().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn memory_that_does_not_fit_below_the_hole_goes_on_above_it() {
        assert_eq!(ranges(4096), [(0, 4096)]);
        assert_eq!(ranges(HOLE_START), [(0, HOLE_START)]);
        let page_more = ranges(HOLE_START + 4096);
        assert_eq!(page_more, [(0, HOLE_START), (HOLE_END, HOLE_END + 4096)]);
        let most = MemoryLayout::new(MAX_MEMORY_BYTES).unwrap();
        assert_eq!(most.ranges().map(|range| range.end - range.start).sum::<u64>(), 1 << 40);
        assert_eq!(most.end(), (1 << 40) + (1 << 30));
    }
}
