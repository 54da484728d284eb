//! All `unsafe` of the benchmarks: a call that the standard library does not have.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::{AnonymousMemory, GuestMemory};

/// The kinds of advice that change neither bytes nor addresses.
const HARMLESS: [libc::c_int; 3] =
    [libc::MADV_HUGEPAGE, libc::MADV_MERGEABLE, libc::MADV_NOHUGEPAGE];

/// Gives the kernel `advice` on `memory`, see `madvise(2)`. It ends when the memory is dropped.
///
/// # Errors
///
/// The kernel's: `EINVAL` when it is built without what is asked for. A part may be marked.
///
/// # Panics
///
/// For advice other than to use huge pages, not to use them, and to let ksmd merge.
pub(crate) fn advise(memory: &AnonymousMemory, advice: libc::c_int) -> io::Result<()> {
    assert!(HARMLESS.contains(&advice), "advice {advice} may change what is in the memory");
    for region in memory.regions() {
        let addr = region.host_addr as *mut libc::c_void;
        // SAFETY: madvise wants a mapping of ours to which the advice does no harm. The region is
        // one that `memory` owns and keeps while it is borrowed; the advice, checked above, leaves
        // its bytes, and where they are, as they were.
        let result = unsafe { libc::madvise(addr, region.len_bytes(), advice) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Has the kernel back `memory` with pages of 4 KiB only.
///
/// # Errors
///
/// As for [`advise`], but a kernel without huge pages will do.
pub(crate) fn forbid_huge_pages(memory: &AnonymousMemory) -> io::Result<()> {
    match advise(memory, libc::MADV_NOHUGEPAGE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}
