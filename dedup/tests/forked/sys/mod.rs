//! Processes that are forked and do nothing.
#![allow(unsafe_code)]

use std::io;

use pagefold_dedup::Region;

/// A copy of this process that keeps what it has inherited.
pub(crate) struct Child(libc::pid_t);

impl Child {
    pub(crate) fn fork() -> io::Result<Self> {
        // SAFETY: the child makes no call but pause(2), which is safe after a fork with other threads.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: no preconditions.
                unsafe { libc::pause() };
            },
            child if child > 0 => Ok(Self(child)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ends it.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the process is this one's child, and its number is its own until it is waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as before; the kernel writes no status.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// Has children inherit a region's memory from now on, or not.
pub(crate) fn inherit(region: &Region, is_inherited: bool) {
    let advice = if is_inherited { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
    let addr = region.host_addr as *mut libc::c_void;
    // SAFETY: the region is mapped for as long as its memory lives, which the caller's reference is
    // into; the advice changes no byte.
    let result = unsafe { libc::madvise(addr, region.len_bytes(), advice) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
