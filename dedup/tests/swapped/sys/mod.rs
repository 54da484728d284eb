//! Having memory written out.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::{AnonymousMemory, GuestMemory, PAGE_SIZE};

/// Asks the kernel to write all of a VM's pages out to swap.
pub(crate) fn page_out(memory: &AnonymousMemory) {
    advise(memory, 0, memory.len_bytes(), libc::MADV_PAGEOUT);
}

/// Reads a page in again, as somebody's reading would.
pub(crate) fn read_in(memory: &AnonymousMemory, page: usize) {
    advise(memory, page * PAGE_SIZE, PAGE_SIZE, libc::MADV_POPULATE_READ);
}

fn advise(memory: &AnonymousMemory, offset_bytes: usize, len_bytes: usize, advice: libc::c_int) {
    let addr = memory.regions()[0].host_addr + offset_bytes;
    // SAFETY: the memory is mapped as long as it is borrowed, and neither advice changes a byte of it.
    let result = unsafe { libc::madvise(addr as *mut libc::c_void, len_bytes, advice) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
