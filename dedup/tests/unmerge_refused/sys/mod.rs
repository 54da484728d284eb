//! Having the kernel refuse to make pages private.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::{AnonymousMemory, GuestMemory};

/// Allows, or forbids, that anybody writes a VM's memory.
pub(crate) fn set_writable(memory: &AnonymousMemory, is_writable: bool) {
    let protection = libc::PROT_READ | if is_writable { libc::PROT_WRITE } else { 0 };
    let addr = memory.regions()[0].host_addr as *mut libc::c_void;
    // SAFETY: the memory is mapped as long as it is borrowed; the test writes none of it meanwhile.
    let result = unsafe { libc::mprotect(addr, memory.len_bytes(), protection) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
