//! Memory of other kinds than guests have, and locking it.
#![allow(unsafe_code)]

use std::io;
use std::ptr;

use pagefold_dedup::{GuestMemory, LinearIndex, PAGE_SIZE, Region};

/// A mapping of some kind, which a VM is said to have as its memory.
pub(crate) struct MappedMemory([Region; 1]);

impl MappedMemory {
    /// Maps `page_count` pages with these flags of mmap(2).
    pub(crate) fn new(page_count: u32, access: i32, flags: i32) -> io::Result<Self> {
        let len_bytes = page_count as usize * PAGE_SIZE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let addr = unsafe {
            libc::mmap(ptr::null_mut(), len_bytes, access, flags | libc::MAP_NORESERVE, -1, 0)
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let host_addr = addr as usize;
        let linear = LinearIndex(0);
        Ok(Self([Region { linear, page_count, gpa: 0, host_addr }]))
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        let [region] = self.0;
        // SAFETY: exactly what `new` mapped; nothing uses it any more.
        unsafe { libc::munmap(region.host_addr as *mut libc::c_void, region.len_bytes()) };
    }
}

// SAFETY: the memory is nobody else's and no reference into it exists. It is not what the contract asks for,
// which is what is tested: it is refused before it is touched.
unsafe impl GuestMemory for MappedMemory {
    fn regions(&self) -> &[Region] {
        &self.0
    }
}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Locks a region's memory.
pub(crate) fn lock(region: &Region) -> io::Result<()> {
    // SAFETY: no byte changes.
    done(unsafe { libc::mlock(region.host_addr as *const libc::c_void, region.len_bytes()) })
}

/// Locks what is there of a region's memory, and what comes to be there when it comes.
pub(crate) fn lock_on_fault(region: &Region) -> io::Result<()> {
    let addr = region.host_addr as *const libc::c_void;
    // SAFETY: no byte changes.
    done(unsafe { libc::mlock2(addr, region.len_bytes(), libc::MLOCK_ONFAULT) })
}

/// Unlocks a region's memory.
pub(crate) fn unlock(region: &Region) -> io::Result<()> {
    // SAFETY: no byte changes.
    done(unsafe { libc::munlock(region.host_addr as *const libc::c_void, region.len_bytes()) })
}

/// Locks all memory of the process, as mlockall(2) does with `flags`.
pub(crate) fn lock_all(flags: i32) -> io::Result<()> {
    // SAFETY: no byte changes.
    done(unsafe { libc::mlockall(flags) })
}

/// Unlocks all memory of the process.
pub(crate) fn unlock_all() -> io::Result<()> {
    // SAFETY: no byte changes.
    done(unsafe { libc::munlockall() })
}
