//! Guest RAM: private anonymous memory that folding can replace page by page.

use std::ops::Range;

use pagefold_dedup::{LinearIndex, PAGE_SIZE};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::error::GuestRamError;
use super::layout::MemoryLayout;
use crate::sys::madvise::{Advice, advise};

/// Guest memory that records which pages the VMM itself wrote: KVM's dirty log has only what
/// the guest wrote.
pub type GuestMemory = GuestMemoryMmap<AtomicBitmap>;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// An interval of linear indexes, with where the guest and the host see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// Linear index of the first page: the pages of all regions below it in guest-physical order.
    pub first: LinearIndex,
    /// How many pages there are.
    pub page_count: u32,
    /// Guest-physical address of the first page.
    pub gpa: GuestAddress,
    /// Host virtual address of the first page. Nothing but volatile access may be made there.
    pub host_addr: usize,
}

impl RamRegion {
    /// Its pages.
    pub fn range(&self) -> Range<LinearIndex> {
        self.first.run(self.page_count)
    }

    /// Bytes in the region.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.page_count) * PAGE_BYTES
    }
}

/// The RAM of one VM.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemory,
    regions: Vec<RamRegion>,
}

impl GuestRam {
    /// RAM of `memory_bytes`, all zeroes, where [`MemoryLayout`] puts it.
    ///
    /// The memory is reserved and not populated: a page takes host memory when it is first written.
    ///
    /// # Errors
    ///
    /// When the size is not one a VM can have, or the host refuses the mapping; nothing is left
    /// behind.
    pub fn new(memory_bytes: u64) -> Result<Self, GuestRamError> {
        let to_range = |range: Range<u64>| {
            let len = usize::try_from(range.end - range.start)
                .map_err(|_| GuestRamError::TooLarge { memory_bytes })?;
            Ok((GuestAddress(range.start), len))
        };
        let ranges: Result<Vec<_>, GuestRamError> =
            MemoryLayout::new(memory_bytes)?.ranges().map(to_range).collect();
        Self::from_ranges(&ranges?)
    }

    /// RAM in `ranges` of page-aligned guest-physical address and length in bytes, ascending.
    fn from_ranges(ranges: &[(GuestAddress, usize)]) -> Result<Self, GuestRamError> {
        // Private, anonymous, MAP_NORESERVE.
        let memory = GuestMemory::from_ranges(ranges).map_err(|source| GuestRamError::Map {
            memory_bytes: ranges.iter().map(|&(_, len)| len as u64).sum(),
            source,
        })?;
        let mut regions = Vec::with_capacity(ranges.len());
        let mut first = LinearIndex(0);
        for region in memory.iter() {
            // A forked child that kept the mapping would hold every page of the guest alive, and
            // make each write of the guest copy a page. Core dumps must not contain tenants. And
            // folding replaces 4 KiB mappings: a huge page would be split at the first merge, and
            // khugepaged would undo merges by collapsing what is left.
            for (advice, name) in [
                (Advice::DontFork, "MADV_DONTFORK"),
                (Advice::DontDump, "MADV_DONTDUMP"),
                (Advice::NoHugePage, "MADV_NOHUGEPAGE"),
            ] {
                let result = advise(region, advice);
                if let Err(error) = &result
                    && matches!(advice, Advice::NoHugePage)
                    && error.raw_os_error() == Some(libc::EINVAL)
                {
                    // A kernel without transparent huge pages has no such advice.
                    continue;
                }
                result.map_err(|source| GuestRamError::Advise { advice: name, source })?;
            }
            let host_addr = region.as_ptr().addr();
            let page_count = u32::try_from(region.len() / PAGE_BYTES)
                .map_err(|_| GuestRamError::TooLarge { memory_bytes: region.len() })?;
            let gpa = region.start_addr();
            regions.push(RamRegion { first, page_count, gpa, host_addr });
            first = first.offset(page_count);
        }
        Ok(Self { memory, regions })
    }

    /// The memory, for reading and for writing that is tracked.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The regions in guest-physical order, which is also linear order.
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// Where it lies.
    pub fn layout(&self) -> MemoryLayout {
        MemoryLayout::of(self.len_bytes())
    }

    /// How many pages there are: one more than the last linear index.
    pub fn page_count(&self) -> u32 {
        self.regions.iter().map(|region| region.page_count).sum()
    }

    /// How many bytes there are.
    pub fn len_bytes(&self) -> u64 {
        self.regions.iter().map(RamRegion::len_bytes).sum()
    }

    /// Takes what the VMM itself has written to the region at `position` since the last call: one
    /// bit a page, and bits that are set meanwhile stay for the next call.
    pub(crate) fn take_written(&self, position: usize) -> Vec<u64> {
        self.memory
            .iter()
            .nth(position)
            .map_or_else(Vec::new, |region| (**region).bitmap().get_and_reset())
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;
    use crate::memory::{HOLE_END, HOLE_START, MAX_MEMORY_BYTES};

    #[test]
    fn sizes_that_are_not_pages_are_refused_with_the_size() {
        for bytes in [0, 1, 4095, 4097, (64 << 20) + 512] {
            let error = GuestRam::new(bytes).unwrap_err();
            assert!(
                matches!(error, GuestRamError::NotPages { memory_bytes } if memory_bytes == bytes)
            );
        }
    }

    #[test]
    fn more_than_a_vm_can_have_is_refused_with_both_sizes() {
        let error = GuestRam::new(MAX_MEMORY_BYTES + 4096).unwrap_err();
        assert!(error.to_string().contains("at most 1048576 MiB"), "{error}");
        assert!(GuestRam::new(!4095).is_err());
    }

    #[test]
    fn what_fits_below_the_hole_is_one_region_and_more_is_two() {
        let ram = GuestRam::new(HOLE_START).unwrap();
        assert_eq!((ram.regions().len(), ram.page_count()), (1, 786_432));
        let ram = GuestRam::new(HOLE_START + 4096).unwrap();
        let [low, high] = ram.regions() else { panic!("{:?}", ram.regions()) };
        assert_eq!((low.page_count, high.page_count), (786_432, 1));
        assert_eq!((high.first, high.gpa.0), (LinearIndex(786_432), HOLE_END));
    }

    #[test]
    fn linear_indexes_run_on_over_the_hole() {
        let above = GuestAddress(4 << 30);
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 5 << 12), (above, 3 << 12)]).unwrap();
        let [low, high] = ram.regions() else { panic!("{:?}", ram.regions()) };
        assert_eq!((low.first, low.page_count, low.gpa), (LinearIndex(0), 5, GuestAddress(0)));
        assert_eq!((high.first, high.page_count, high.gpa), (LinearIndex(5), 3, above));
        assert_eq!((ram.page_count(), ram.len_bytes()), (8, 8 << 12));
    }

    #[test]
    fn own_writes_are_taken_once() {
        let ram = GuestRam::new(100 << 12).unwrap();
        ram.memory().write_obj(7_u64, GuestAddress(70 * 4096 - 4)).unwrap();
        assert_eq!(ram.take_written(0), [0, 0b11 << 5]);
        assert_eq!(ram.take_written(0), [0, 0]);
    }

    #[test]
    fn the_mapping_is_neither_inherited_nor_dumped_nor_huge() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let start = format!("{:x}-", ram.regions()[0].host_addr);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = maps
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap();
        for flag in ["dc", "dd", "nh", "nr"] {
            assert!(flags.split(' ').any(|word| word == flag), "{flag} is not in {flags}");
        }
    }
}
