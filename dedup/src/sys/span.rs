//! Consecutive pages of guest memory: addresses that cannot outlive their mapping.

use std::io;
use std::marker::PhantomData;

use super::copy::{racy_copy, racy_copy_page};
use super::memory::GuestMemory;
use crate::PAGE_SIZE;

/// Consecutive pages of a VM at consecutive addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'memory> {
    host_addr: usize,
    page_count: u32,
    memory: PhantomData<&'memory dyn GuestMemory>,
}

impl<'memory> Span<'memory> {
    /// `page_count` pages from an address on.
    ///
    /// # Safety
    ///
    /// They must be pages of a [`GuestMemory`] that lives for `'memory`.
    pub(super) unsafe fn new(host_addr: usize, page_count: u32) -> Self {
        Self { host_addr, page_count, memory: PhantomData }
    }

    pub(crate) fn page_count(self) -> u32 {
        self.page_count
    }

    pub(crate) fn len_bytes(self) -> usize {
        self.page_count as usize * PAGE_SIZE
    }

    /// The address of the first byte.
    pub(crate) fn start(self) -> usize {
        self.host_addr
    }

    /// The `page_count` pages from page `first` of this span on.
    ///
    /// # Panics
    ///
    /// When they are not all inside.
    pub(crate) fn part(self, first: u32, page_count: u32) -> Span<'memory> {
        let end = first.checked_add(page_count);
        assert!(end.is_some_and(|end| end <= self.page_count), "part outside of its span");
        Span { host_addr: self.host_addr + first as usize * PAGE_SIZE, page_count, ..self }
    }

    /// Copies page `index` while others may be writing it: old and new bytes may mix.
    pub(crate) fn copy_page(self, index: u32, destination: &mut [u8; PAGE_SIZE]) {
        let page = self.part(index, 1);
        // SAFETY: the page belongs to a `GuestMemory`, which is mapped readable for as long as
        // it lives, and it outlives the span.
        unsafe { racy_copy_page(page.host_addr as *const u8, destination) }
    }

    /// Fills the first page, as a store by the guest would.
    pub(crate) fn write_page(self, source: &[u8; PAGE_SIZE]) {
        let destination = self.part(0, 1).as_ptr();
        // SAFETY: the destination is a page of the `GuestMemory` that the span's space holds, which
        // is mapped writable and to which no reference exists; the source is as long.
        unsafe { racy_copy(source.as_ptr(), destination.cast(), PAGE_SIZE) }
    }

    /// Gives every page back to the kernel: anonymous memory reads as zeroes from now on, memory
    /// over a slot as the slot.
    ///
    /// # Errors
    ///
    /// The kernel's: `EINVAL` for memory that is locked. A part may have been given back.
    pub(crate) fn discard(self) -> io::Result<()> {
        match self.advise(libc::MADV_DONTNEED) {
            // Memory that is locked takes another advice: Linux 5.18.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.advise(libc::MADV_DONTNEED_LOCKED)
            }
            other => other,
        }
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

    /// Marks the mapping as guest memory: not for children, not for core dumps, no huge pages from
    /// now on (folding works on pages of 4 KiB).
    ///
    /// # Errors
    ///
    /// The kernel's; the marks may be incomplete.
    pub(crate) fn advise_guest(self) -> io::Result<()> {
        self.advise(libc::MADV_DONTFORK)?;
        self.advise(libc::MADV_DONTDUMP)?;
        match self.advise(libc::MADV_NOHUGEPAGE) {
            // A kernel without transparent huge pages has no such advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Splits the huge pages that lie in the span in part. Without that the kernel keeps all 2 MiB of
    /// one, until it runs short of memory, when a part of it goes.
    ///
    /// # Errors
    ///
    /// The kernel's: `EINVAL` for memory that is locked. Some may have been split.
    pub(crate) fn split_huge_pages(self) -> io::Result<()> {
        // Advice about a part of a huge page makes the kernel split it: Linux 5.4,
        // `madvise_cold_or_pageout_pte_range`.
        self.advise(libc::MADV_COLD)
    }

    /// Gives the kernel advice that folding would not.
    #[cfg(test)]
    pub(crate) fn advise_otherwise(self, advice: libc::c_int) {
        self.advise(advice).unwrap();
    }

    fn advise(self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range belongs to a `GuestMemory`, whose contract lets this crate discard
        // and mark its pages; none of the advice used here unmaps anything.
        let result = unsafe { libc::madvise(self.as_ptr(), self.len_bytes(), advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn as_ptr(self) -> *mut libc::c_void {
        self.host_addr as *mut libc::c_void
    }
}
