//! Having the kernel refuse to make pages private.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use pagefold_dedup::{AnonymousMemory, GuestMemory, PAGE_SIZE};

/// Allows, or forbids, that anybody writes pages of a VM's memory.
pub(crate) fn set_writable(memory: &AnonymousMemory, pages: Range<usize>, is_writable: bool) {
    assert!(pages.end * PAGE_SIZE <= memory.len_bytes());
    let protection = libc::PROT_READ | if is_writable { libc::PROT_WRITE } else { 0 };
    let addr = (memory.regions()[0].host_addr + pages.start * PAGE_SIZE) as *mut libc::c_void;
    // SAFETY: the pages are mapped as long as the memory is borrowed; the test writes none of them meanwhile.
    let result = unsafe { libc::mprotect(addr, pages.len() * PAGE_SIZE, protection) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
