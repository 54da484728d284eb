//! Asking the kernel for huge pages.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::Region;

/// Has the kernel back what is written to a region from now on with huge pages, if it can.
pub(crate) fn want_huge_pages(region: &Region) -> io::Result<()> {
    let addr = region.host_addr as *mut libc::c_void;
    // SAFETY: the region is mapped for as long as its memory lives, which the caller's reference is
    // into; the advice changes no byte.
    let result = unsafe { libc::madvise(addr, region.len_bytes(), libc::MADV_HUGEPAGE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
