//! Asking the kernel for huge pages.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::{PAGE_SIZE, Region};

/// Has the kernel back what is written to a region from now on with huge pages, if it can.
pub(crate) fn want_huge_pages(region: &Region) -> io::Result<()> {
    let addr = region.host_addr as *mut libc::c_void;
    // SAFETY: the region is mapped for as long as its memory lives, which the caller's reference is
    // into; the advice changes no byte.
    let result = unsafe { libc::madvise(addr, region.len_bytes(), libc::MADV_HUGEPAGE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel map each `stride`-th page of a region by itself, by forbidding and allowing its use.
pub(crate) fn split_page_tables(region: &Region, stride: usize) {
    let len_bytes = region.len_bytes();
    for offset_bytes in (0..len_bytes).step_by(stride * PAGE_SIZE) {
        for access in [libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE] {
            let addr = (region.host_addr + offset_bytes) as *mut libc::c_void;
            // SAFETY: the region is mapped for as long as its memory lives, which the caller's reference
            // is into; nobody uses the page meanwhile, and no byte changes.
            assert_eq!(unsafe { libc::mprotect(addr, PAGE_SIZE, access) }, 0);
        }
    }
}
