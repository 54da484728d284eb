//! The state of each page in the kernel's page map: there, swapped, its own or a file's.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/pagemap.rst`, `PAGEMAP_SCAN` (Linux 6.7).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::span::Span;
use crate::PAGE_SIZE;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// Runs that one system call returns, at most.
const RUNS_PER_CALL: usize = 256;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

ioctl_iowr_nr!(PAGEMAP_SCAN, b'f'.into(), 16, ScanArg);

/// What stands behind a page of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// The process's own memory: nobody else sees what is written there.
    Private,
    /// The process's own memory, written out to swap.
    Swapped,
    /// A page of the store.
    Slot,
    /// The kernel's page of zeroes.
    ZeroPage,
}

/// `/proc/self/pagemap`.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    /// Opens the calling process's page map.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Calls `visit(first, page_count, kind)` for each run of pages of one kind, in ascending
    /// order, with page numbers relative to `span`. Pages that are not there are not visited.
    /// About 0.03 µs a page.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOTTY` before Linux 6.7); a part may have been visited.
    pub(crate) fn scan(
        &self,
        span: Span<'_>,
        mut visit: impl FnMut(u32, u32, PageKind),
    ) -> io::Result<()> {
        let wanted = ScanArg {
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO,
            ..ScanArg::default()
        };
        self.scan_for(span, &wanted, |first, page_count, categories| {
            visit(first, page_count, kind(categories));
        })
    }

    /// Calls `visit(first, page_count)` for each run of pages that are parts of huge ones.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    pub(crate) fn scan_huge(
        &self,
        span: Span<'_>,
        mut visit: impl FnMut(u32, u32),
    ) -> io::Result<()> {
        let wanted = ScanArg {
            category_mask: PAGE_IS_HUGE,
            return_mask: PAGE_IS_HUGE,
            ..ScanArg::default()
        };
        self.scan_for(span, &wanted, |first, page_count, _| visit(first, page_count))
    }

    /// The page map's entry of each page of `span`. O(pages).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn entries(&self, span: Span<'_>) -> io::Result<Vec<PageEntry>> {
        let mut bytes = vec![0; span.page_count() as usize * PageEntry::LEN_BYTES];
        self.0.read_exact_at(&mut bytes, PageEntry::offset_of(span.start()))?;
        Ok(bytes.as_chunks().0.iter().map(|&word| PageEntry(u64::from_ne_bytes(word))).collect())
    }

    /// The page map's entry of the page at an address.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn entry(&self, addr: usize) -> io::Result<PageEntry> {
        let mut word = [0; PageEntry::LEN_BYTES];
        self.0.read_exact_at(&mut word, PageEntry::offset_of(addr))?;
        Ok(PageEntry(u64::from_ne_bytes(word)))
    }

    /// Calls `visit(first, page_count, categories)` for each run of pages that are `wanted`.
    fn scan_for(
        &self,
        span: Span<'_>,
        wanted: &ScanArg,
        mut visit: impl FnMut(u32, u32, u64),
    ) -> io::Result<()> {
        let mut runs = [PageRegion::default(); RUNS_PER_CALL];
        let end = (span.start() + span.len_bytes()) as u64;
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start: span.start() as u64,
            end,
            vec: runs.as_mut_ptr() as u64,
            vec_len: RUNS_PER_CALL as u64,
            ..*wanted
        };
        while arg.start < end {
            // SAFETY: the kernel reads and writes one `ScanArg` and writes at most `vec_len`
            // regions to `runs`, which outlives the call. No flag has it change a mapping.
            let found = unsafe { ioctl_with_mut_ref(&self.0, PAGEMAP_SCAN(), &mut arg) };
            let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
            for run in &runs[..found] {
                let page = |addr: u64| (addr - span.start() as u64) / PAGE_SIZE as u64;
                let (first, after) = (page(run.start), page(run.end));
                #[expect(clippy::cast_possible_truncation, reason = "bounded by the span's u32")]
                visit(first as u32, (after - first) as u32, run.categories);
            }
            arg.start = arg.walk_end;
        }
        Ok(())
    }
}

/// A page's entry of the page map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageEntry(u64);

impl PageEntry {
    const LEN_BYTES: usize = size_of::<u64>();
    const FRAME: u64 = (1 << 55) - 1;
    const IS_FILE: u64 = 1 << 61;
    const IS_PRESENT: u64 = 1 << 63;

    fn offset_of(addr: usize) -> u64 {
        (addr / PAGE_SIZE * Self::LEN_BYTES) as u64
    }

    /// Whether the page is in memory.
    pub(crate) fn is_present(self) -> bool {
        self.0 & Self::IS_PRESENT != 0
    }

    /// Whether it is a page of a file.
    pub(crate) fn is_file(self) -> bool {
        self.0 & Self::IS_FILE != 0
    }

    /// The number of its page frame, if it is in memory and the process may read it (`CAP_SYS_ADMIN`).
    pub(crate) fn frame(self) -> Option<u64> {
        let frame = self.0 & Self::FRAME;
        (self.is_present() && frame != 0).then_some(frame)
    }
}

fn kind(categories: u64) -> PageKind {
    // First, whatever else it is: a page of the store that the kernel is moving to another frame, or
    // that the hardware has lost, counts as swapped, and is the store's all the same.
    if categories & PAGE_IS_FILE != 0 {
        PageKind::Slot
    } else if categories & PAGE_IS_SWAPPED != 0 {
        PageKind::Swapped
    } else if categories & PAGE_IS_PFNZERO != 0 {
        PageKind::ZeroPage
    } else {
        PageKind::Private
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_the_kernel_is_moving_is_a_slot() {
        let migrating = PAGE_IS_SWAPPED | PAGE_IS_FILE;
        assert_eq!(kind(migrating), PageKind::Slot);
        assert_eq!(kind(PAGE_IS_SWAPPED), PageKind::Swapped);
        assert_eq!(kind(PAGE_IS_PRESENT | PAGE_IS_PFNZERO), PageKind::ZeroPage);
        assert_eq!(kind(PAGE_IS_PRESENT), PageKind::Private);
    }
}
