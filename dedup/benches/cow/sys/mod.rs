//! All `unsafe` of this benchmark: a call that the standard library does not have.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::{AnonymousMemory, GuestMemory};

/// Has the kernel back `memory` with pages of 4 KiB only: `MADV_NOHUGEPAGE`, see `madvise(2)`.
///
/// # Errors
///
/// The kernel's; a part may be marked.
pub(crate) fn forbid_huge_pages(memory: &AnonymousMemory) -> io::Result<()> {
    match advise(memory, libc::MADV_NOHUGEPAGE) {
        // A kernel without transparent huge pages does not know the advice.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

/// Lets ksmd merge the pages of `memory`: `MADV_MERGEABLE`, see `madvise(2)`. It ends when the
/// memory is dropped.
///
/// # Errors
///
/// The kernel's: `EINVAL` when it is built without KSM. A part may be marked.
pub(crate) fn mark_mergeable(memory: &AnonymousMemory) -> io::Result<()> {
    advise(memory, libc::MADV_MERGEABLE)
}

/// `advice` is one of the above, which change neither bytes nor addresses.
fn advise(memory: &AnonymousMemory, advice: libc::c_int) -> io::Result<()> {
    for region in memory.regions() {
        let addr = region.host_addr as *mut libc::c_void;
        // SAFETY: madvise wants a mapping of ours to which the advice does no harm. The region is
        // one that `memory` owns and keeps while it is borrowed; both kinds of advice used here
        // leave its bytes, and where they are, as they were.
        let result = unsafe { libc::madvise(addr, region.len_bytes(), advice) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
