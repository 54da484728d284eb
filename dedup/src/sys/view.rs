//! The whole store, mapped for reading.

use std::io;
use std::ptr::{self, NonNull};

use super::memfd::Memfd;
use crate::{PAGE_SIZE, Slot};

/// A shared, read-only mapping of a store: what a page is compared with.
#[derive(Debug)]
pub(crate) struct StoreView {
    base: NonNull<u8>,
    count_slots: u32,
}

impl StoreView {
    /// Maps all `count_slots` slots; costs address space only.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is mapped.
    pub(crate) fn new(store: &Memfd, count_slots: u32) -> io::Result<Self> {
        let len_bytes = count_slots as usize * PAGE_SIZE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let addr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                store.raw(),
                0,
            )
        };
        match NonNull::new(addr.cast::<u8>()) {
            Some(base) if addr != libc::MAP_FAILED => Ok(Self { base, count_slots }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address of the bytes of a slot.
    ///
    /// # Panics
    ///
    /// When the store has no such slot.
    fn slot_ptr(&self, slot: Slot) -> *const u8 {
        assert!(slot.0 < self.count_slots, "no slot {slot:?}");
        // SAFETY: inside the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(slot.0 as usize * PAGE_SIZE) }
    }

    /// Whether the slot holds exactly `page`.
    ///
    /// # Panics
    ///
    /// When the store has no such slot.
    pub(crate) fn equals(&self, slot: Slot, page: &[u8; PAGE_SIZE]) -> bool {
        let bytes = self.slot_ptr(slot);
        // SAFETY: both are readable for PAGE_SIZE bytes: the slot lies inside the file, so that
        // reading it cannot raise SIGBUS, and the comparison is the C library's, which makes no
        // claim that the bytes are immutable.
        unsafe { libc::memcmp(bytes.cast(), page.as_ptr().cast(), PAGE_SIZE) == 0 }
    }
}

// SAFETY: the mapping is never written through and lives until the value is dropped.
unsafe impl Send for StoreView {}
// SAFETY: as for `Send`.
unsafe impl Sync for StoreView {}

impl Drop for StoreView {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no borrow of it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.count_slots as usize * PAGE_SIZE) };
    }
}
