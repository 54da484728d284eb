//! Using up the mappings of the process.
#![allow(unsafe_code)]

use std::{io, ptr};

use pagefold_dedup::PAGE_SIZE;

/// All mappings that the process could still have.
pub(crate) struct AllMappings(Vec<*mut libc::c_void>);

impl AllMappings {
    /// Maps pages that cannot be joined until the kernel refuses; `count` at most.
    pub(crate) fn take(count: usize) -> Self {
        // No memory is to be had by mapping it after this.
        let mut pages = Vec::with_capacity(count);
        while pages.len() < count {
            let protection =
                if pages.len().is_multiple_of(2) { libc::PROT_NONE } else { libc::PROT_READ };
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
            let page = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    PAGE_SIZE,
                    protection,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if page == libc::MAP_FAILED {
                assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
                break;
            }
            pages.push(page);
        }
        Self(pages)
    }
}

impl Drop for AllMappings {
    fn drop(&mut self) {
        for &page in &self.0 {
            // SAFETY: `take` mapped just this page, and nobody else knows of it.
            unsafe { libc::munmap(page, PAGE_SIZE) };
        }
    }
}

/// Does something while the kernel refuses every mapping.
pub(crate) fn without_mappings<T>(work: impl FnOnce() -> T) -> T {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one limit to where there is place for it.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut before) };
    assert_eq!(result, 0);
    let set = |limit: libc::rlimit| {
        // SAFETY: reads one limit; what is mapped stays so.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(result, 0);
    };
    set(libc::rlimit { rlim_cur: 0, ..before });
    let result = work();
    set(before);
    result
}
