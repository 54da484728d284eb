//! Where things lie in guest-physical memory.
//!
//! ```text
//! 0x00_1000  parameter page            written by the VMM
//! 0x01_0000  page tables               written by the VMM (see `page_tables`)
//! 0x02_0000  stack, growing down from 0x09_0000
//! 0x10_0000  image, at most 256 KiB    loaded by the VMM from the ELF
//! 0x14_0000  page table of the workload: a tag and a version (4 bytes each) for each heap page
//!            heap: every page from there to the end of memory
//! ```
//!
//! Memory is one flat range from address 0.

use core::error::Error;
use core::fmt;

use crate::PAGE_BYTES;

/// Guest-physical address of the parameter page.
pub const PARAMS_GPA: u64 = 0x1000;
/// First address of the page tables; they end before [`STACK_BOTTOM_GPA`].
pub const PAGE_TABLES_GPA: u64 = 0x1_0000;
/// Lowest address of the stack.
pub const STACK_BOTTOM_GPA: u64 = 0x2_0000;
/// First address above the stack.
pub const STACK_TOP_GPA: u64 = 0x9_0000;
/// `rsp` on entry: as after a call, so that `rsp % 16 == 8`.
pub const ENTRY_RSP: u64 = STACK_TOP_GPA - 8;
/// First address of the image.
pub const IMAGE_GPA: u64 = 0x10_0000;
/// First address above the room for the image and its zero-filled data.
pub const IMAGE_END_GPA: u64 = 0x14_0000;
/// First address of the workload's table.
pub const TABLE_GPA: u64 = IMAGE_END_GPA;
/// Bytes the workload's table needs for one heap page.
pub const TABLE_ENTRY_BYTES: u64 = 8;

/// The least memory the guest runs in.
pub const MIN_MEMORY_BYTES: u64 = 4 << 20;
/// The most memory the guest runs in: what lies below the hole for devices.
pub const MAX_MEMORY_BYTES: u64 = 3 << 30;

/// The pages the workload has, for a memory size that [`heap`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Guest-physical address of heap page 0.
    pub base_gpa: u64,
    /// How many pages there are.
    pub pages: u32,
}

impl Heap {
    /// Guest-physical address of heap page `index`, which may lie past the end of the heap.
    pub fn gpa_of(&self, index: u32) -> u64 {
        self.base_gpa + u64::from(index) * PAGE_BYTES
    }

    /// The heap page at `gpa`, `None` where no heap page is.
    pub fn page_at(&self, gpa: u64) -> Option<u32> {
        let index = gpa.checked_sub(self.base_gpa)? / PAGE_BYTES;
        u32::try_from(index).ok().filter(|index| *index < self.pages)
    }
}

/// The heap of a guest with `memory_bytes` of memory.
///
/// # Errors
/// [`MemorySizeError`] if the guest cannot run in that much memory.
pub fn heap(memory_bytes: u64) -> Result<Heap, MemorySizeError> {
    if !memory_bytes.is_multiple_of(PAGE_BYTES) {
        return Err(MemorySizeError::NotWholePages { memory_bytes });
    }
    if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&memory_bytes) {
        return Err(MemorySizeError::OutOfRange { memory_bytes });
    }
    let pages = (memory_bytes - TABLE_GPA) / PAGE_BYTES;
    let table_pages = (pages * TABLE_ENTRY_BYTES).div_ceil(PAGE_BYTES);
    let pages = u32::try_from(pages - table_pages)
        .map_err(|_| MemorySizeError::OutOfRange { memory_bytes })?;
    Ok(Heap { base_gpa: TABLE_GPA + table_pages * PAGE_BYTES, pages })
}

/// How many heap pages a guest with `memory_bytes` of memory has.
///
/// # Errors
/// [`MemorySizeError`] if the guest cannot run in that much memory.
pub fn heap_pages(memory_bytes: u64) -> Result<u32, MemorySizeError> {
    heap(memory_bytes).map(|heap| heap.pages)
}

/// A memory size the built-in guest cannot run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySizeError {
    /// Not a multiple of the page size.
    NotWholePages {
        /// The size asked for.
        memory_bytes: u64,
    },
    /// Below [`MIN_MEMORY_BYTES`] or above [`MAX_MEMORY_BYTES`].
    OutOfRange {
        /// The size asked for.
        memory_bytes: u64,
    },
}

impl fmt::Display for MemorySizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWholePages { memory_bytes } => write!(
                f,
                "the built-in guest needs whole pages of memory: {memory_bytes} bytes is not a \
                 multiple of {PAGE_BYTES}"
            ),
            Self::OutOfRange { memory_bytes } => write!(
                f,
                "the built-in guest runs in {} MiB to {} MiB of memory, not in {memory_bytes} bytes",
                MIN_MEMORY_BYTES >> 20,
                MAX_MEMORY_BYTES >> 20,
            ),
        }
    }
}

impl Error for MemorySizeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_with_the_range() {
        for bytes in [0, MIN_MEMORY_BYTES - PAGE_BYTES, MAX_MEMORY_BYTES + PAGE_BYTES] {
            let error = heap(bytes).unwrap_err();
            assert_eq!(error, MemorySizeError::OutOfRange { memory_bytes: bytes });
            assert!(std::format!("{error}").contains("4 MiB to 3072 MiB"));
        }
        assert!(heap(u64::MAX).is_err());
        assert!(heap(MIN_MEMORY_BYTES).is_ok());
        assert!(heap(MAX_MEMORY_BYTES).is_ok());
    }

    proptest! {
        #[test]
        fn table_and_heap_fill_memory_without_overlap(pages in 1024u64..=786_432) {
            let memory_bytes = pages * PAGE_BYTES;
            let heap = heap(memory_bytes).unwrap();
            let table_end = TABLE_GPA + u64::from(heap.pages) * TABLE_ENTRY_BYTES;
            prop_assert!(table_end <= heap.base_gpa);
            prop_assert_eq!(heap.gpa_of(heap.pages), memory_bytes);
            prop_assert_eq!(heap.page_at(heap.base_gpa), Some(0));
            prop_assert_eq!(heap.page_at(memory_bytes - 1), Some(heap.pages - 1));
            prop_assert_eq!(heap.page_at(memory_bytes), None);
            prop_assert_eq!(heap.page_at(heap.base_gpa - 1), None);
        }
    }
}
