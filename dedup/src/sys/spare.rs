//! A mapping kept for when there are too many.
//!
//! A process can have one mapping more than `vm.max_map_count`, and is then refused any other, even
//! one that would replace thousands. With one mapping less it is not.

use std::ptr;
use std::sync::{Mutex, PoisonError};

use crate::PAGE_SIZE;

/// A mapping that can be done without for a moment.
#[derive(Debug)]
pub(crate) struct SpareMapping(Mutex<Option<usize>>);

impl SpareMapping {
    /// Maps a page, if the kernel lets it.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(map()))
    }

    /// Does `work` with a mapping less than there were.
    pub(crate) fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addr) = spare.take() {
            unmap(addr);
        }
        let result = work();
        *spare = map();
        result
    }
}

impl Drop for SpareMapping {
    fn drop(&mut self) {
        let spare = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(addr) = spare.take() {
            unmap(addr);
        }
    }
}

/// Maps a page that nobody may touch. It is shared, because the kernel joins no such mapping with its
/// neighbours.
fn map() -> Option<usize> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let addr = unsafe { libc::mmap(ptr::null_mut(), PAGE_SIZE, libc::PROT_NONE, flags, -1, 0) };
    (addr != libc::MAP_FAILED).then_some(addr as usize)
}

fn unmap(addr: usize) {
    // SAFETY: just what `map` mapped, to which nothing else refers.
    unsafe { libc::munmap(addr as *mut libc::c_void, PAGE_SIZE) };
}
