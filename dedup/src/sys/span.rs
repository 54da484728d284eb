//! A VM's memory by linear index: addresses that cannot outlive their mapping.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use super::copy::racy_copy_page;
use super::memory::{GuestMemory, Region};
use crate::{LinearIndex, PAGE_SIZE};

/// Why memory cannot be folded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegionError {
    /// There is nothing to fold.
    #[error("the VM has no memory")]
    Empty,
    /// An address is not that of a page.
    #[error("region {0:?} does not begin on a page boundary")]
    Unaligned(Region),
    /// A linear index would be skipped or given twice.
    #[error("region {found:?} should begin at linear index {expected}")]
    NotContiguous {
        /// The region.
        found: Region,
        /// The index that follows the region before it.
        expected: u32,
    },
}

/// The memory of one VM, found by linear index.
pub(crate) struct Space {
    memory: Arc<dyn GuestMemory>,
    count_pages: u32,
}

impl Space {
    /// Takes memory whose regions lie in linear order without a gap.
    ///
    /// # Errors
    ///
    /// What is wrong with the regions; the memory is untouched.
    pub(crate) fn new(memory: Arc<dyn GuestMemory>) -> Result<Self, RegionError> {
        let mut expected = 0_u32;
        for region in memory.regions() {
            if !region.host_addr.is_multiple_of(PAGE_SIZE)
                || !region.guest_phys.is_multiple_of(PAGE_SIZE as u64)
            {
                return Err(RegionError::Unaligned(*region));
            }
            let end = expected.checked_add(region.count_pages);
            match end {
                Some(end) if region.linear.0 == expected => expected = end,
                _ => {
                    return Err(RegionError::NotContiguous { found: *region, expected });
                }
            }
        }
        if expected == 0 {
            return Err(RegionError::Empty);
        }
        Ok(Self { memory, count_pages: expected })
    }

    /// How many pages the VM has: one above its highest linear index.
    pub(crate) fn count_pages(&self) -> u32 {
        self.count_pages
    }

    /// The regions in linear order.
    pub(crate) fn regions(&self) -> &[Region] {
        self.memory.regions()
    }

    /// The region that a page lies in. O(log regions).
    ///
    /// # Panics
    ///
    /// When the VM has no such page.
    pub(crate) fn region(&self, linear: LinearIndex) -> &Region {
        let regions = self.regions();
        &regions[regions.partition_point(|region| region.linear <= linear) - 1]
    }

    /// The longest span from `linear` on that has at most `count_pages` pages and lies in one
    /// region, so that its addresses are consecutive.
    ///
    /// # Panics
    ///
    /// When the VM has no such page.
    pub(crate) fn span(&self, linear: LinearIndex, count_pages: u32) -> Span<'_> {
        let region = self.region(linear);
        let skip = linear.0 - region.linear.0;
        assert!(skip < region.count_pages && count_pages > 0, "no page {linear:?}");
        Span {
            host_addr: region.host_addr + skip as usize * PAGE_SIZE,
            count_pages: count_pages.min(region.count_pages - skip),
            space: PhantomData,
        }
    }

    /// The span of a whole region.
    pub(crate) fn whole(&self, region: &Region) -> Span<'_> {
        self.span(region.linear, region.count_pages)
    }
}

/// Consecutive pages of a VM at consecutive addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'space> {
    host_addr: usize,
    count_pages: u32,
    space: PhantomData<&'space Space>,
}

impl<'space> Span<'space> {
    pub(crate) fn count_pages(self) -> u32 {
        self.count_pages
    }

    pub(crate) fn len_bytes(self) -> usize {
        self.count_pages as usize * PAGE_SIZE
    }

    /// The address of the first byte.
    pub(crate) fn start(self) -> usize {
        self.host_addr
    }

    /// The `count_pages` pages from page `first` of this span on.
    ///
    /// # Panics
    ///
    /// When they are not all inside.
    pub(crate) fn part(self, first: u32, count_pages: u32) -> Span<'space> {
        assert!(first + count_pages <= self.count_pages, "part outside of its span");
        Span { host_addr: self.host_addr + first as usize * PAGE_SIZE, count_pages, ..self }
    }

    /// Copies page `index` while others may be writing it: old and new bytes may mix.
    pub(crate) fn copy_page(self, index: u32, destination: &mut [u8; PAGE_SIZE]) {
        let page = self.part(index, 1);
        // SAFETY: the page lies in a region of the `GuestMemory` that the span's space holds,
        // which is mapped readable for as long as that lives.
        unsafe { racy_copy_page(page.host_addr as *const u8, destination) }
    }

    /// Gives every page back to the kernel: anonymous memory reads as zeroes from now on, memory
    /// over a slot as the slot.
    pub(super) fn discard(self) -> io::Result<()> {
        self.advise(libc::MADV_DONTNEED)
    }

    /// Makes every page private to this process, as a write to each would: pages over a slot get
    /// their own copy of it.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM`); a part of the pages may have been copied.
    pub(crate) fn populate_write(self) -> io::Result<()> {
        self.advise(libc::MADV_POPULATE_WRITE)
    }

    /// Marks the mapping as guest memory: not for children, not for core dumps, no huge pages
    /// (folding works on pages of 4 KiB, and a huge page would be split at the first merge).
    ///
    /// # Errors
    ///
    /// The kernel's; the marks may be incomplete.
    pub(crate) fn advise_guest(self) -> io::Result<()> {
        self.advise(libc::MADV_DONTFORK)?;
        self.advise(libc::MADV_DONTDUMP)?;
        match self.advise(libc::MADV_NOHUGEPAGE) {
            // A kernel without transparent huge pages does not know the advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    fn advise(self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range belongs to a `GuestMemory`, whose contract lets this crate discard
        // and mark its pages; none of the advice used here unmaps anything.
        let result = unsafe { libc::madvise(self.as_ptr(), self.len_bytes(), advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps fresh anonymous memory, which reads as zeroes, over the pages.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` at the limit of mappings); the old mapping is then still there.
    pub(crate) fn map_anonymous(self) -> io::Result<()> {
        self.map(libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Maps the file's pages from `offset_bytes` on over these, private and writable.
    pub(super) fn map_file(self, fd: libc::c_int, offset_bytes: u64) -> io::Result<()> {
        self.map(0, fd, offset_bytes.cast_signed())
    }

    fn map(self, flags: libc::c_int, fd: libc::c_int, offset_bytes: i64) -> io::Result<()> {
        // SAFETY: MAP_FIXED replaces exactly pages of a `GuestMemory`, whose contract allows it;
        // the mapping stays readable and writable, and no reference into it exists.
        let addr = unsafe {
            libc::mmap(
                self.as_ptr(),
                self.len_bytes(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE | flags,
                fd,
                offset_bytes,
            )
        };
        if addr == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn as_ptr(self) -> *mut libc::c_void {
        self.host_addr as *mut libc::c_void
    }
}
