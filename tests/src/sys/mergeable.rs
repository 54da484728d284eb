//! Memory that ksmd may merge.

use std::io;

use pagefold_dedup::{AnonymousMemory, GuestMemory};

/// Allows ksmd to merge the pages of `memory`: `MADV_MERGEABLE`, see `madvise(2)`. It ends when the
/// memory is dropped.
///
/// # Errors
///
/// The kernel's: `EINVAL` when it is built without KSM. A part may be marked.
pub(crate) fn mark_mergeable(memory: &AnonymousMemory) -> io::Result<()> {
    for region in memory.regions() {
        let addr = region.host_addr as *mut libc::c_void;
        // SAFETY: the region is a mapping that `memory` owns and keeps while it is borrowed; merging
        // its pages changes none of their bytes, and a later write gets a copy.
        let result = unsafe { libc::madvise(addr, region.len_bytes(), libc::MADV_MERGEABLE) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
