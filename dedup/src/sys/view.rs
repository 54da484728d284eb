//! The whole store, mapped for reading.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use super::memfd::Memfd;
use crate::{PAGE_SIZE, Slot};

/// Slots that become readable at a time.
const READABLE_SLOTS: u32 = 1 << 12;

/// A shared, read-only mapping of a store: what a page is compared with.
///
/// Only the part that has been used can be read: the kernel does not populate what nobody may touch,
/// should the process lock all that it has (`mlockall`). A store is larger than the host's memory.
#[derive(Debug)]
pub(crate) struct StoreView {
    base: NonNull<u8>,
    count_slots: u32,
    /// Slots from the first on that can be read.
    readable_slots: AtomicU32,
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
                libc::PROT_NONE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                store.raw(),
                0,
            )
        };
        let base = match NonNull::new(addr.cast::<u8>()) {
            Some(base) if addr != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let view = Self { base, count_slots, readable_slots: AtomicU32::new(0) };
        view.unlock()?;
        view.refuse_huge_pages()?;
        Ok(view)
    }

    /// Has the kernel not join what is read in huge pages, which would take memory for slots that hold
    /// nothing.
    fn refuse_huge_pages(&self) -> io::Result<()> {
        let len_bytes = self.count_slots as usize * PAGE_SIZE;
        // SAFETY: just what `new` mapped; no byte and no access changes.
        let result =
            unsafe { libc::madvise(self.base.as_ptr().cast(), len_bytes, libc::MADV_NOHUGEPAGE) };
        match io::Error::last_os_error() {
            // A kernel without transparent huge pages does not know the advice.
            error if result != 0 && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        }
    }

    /// Has the kernel not keep the store in memory because the process locks its mappings.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        let len_bytes = self.count_slots as usize * PAGE_SIZE;
        // SAFETY: just what `new` mapped; no byte and no access changes.
        let result = unsafe { libc::munlock(self.base.as_ptr().cast(), len_bytes) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sees to it that a slot can be read. O(1).
    fn make_readable(&self, slot: Slot) -> io::Result<()> {
        if slot.0 < self.readable_slots.load(Ordering::Relaxed) {
            return Ok(());
        }
        let readable_slots = (slot.0 / READABLE_SLOTS + 1).saturating_mul(READABLE_SLOTS);
        let readable_slots = readable_slots.min(self.count_slots);
        let len_bytes = readable_slots as usize * PAGE_SIZE;
        // SAFETY: a part of what `new` mapped; reading is all that is ever done there.
        let result =
            unsafe { libc::mprotect(self.base.as_ptr().cast(), len_bytes, libc::PROT_READ) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.readable_slots.fetch_max(readable_slots, Ordering::Relaxed);
        Ok(())
    }

    /// The address of a slot's bytes, which are in memory for the moment, if they can be read.
    pub(crate) fn touch(&self, slot: Slot) -> Option<usize> {
        self.make_readable(slot).ok()?;
        let bytes = self.slot_ptr(slot);
        // SAFETY: readable, as was just seen to, and inside the file, so that reading cannot raise
        // SIGBUS.
        unsafe { bytes.read_volatile() };
        Some(bytes as usize)
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

    /// Whether the store has such a slot.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        slot.0 < self.count_slots
    }

    /// Whether the slot holds exactly `page`; not if the kernel does not let it be read.
    ///
    /// # Panics
    ///
    /// When the store has no such slot.
    pub(crate) fn equals(&self, slot: Slot, page: &[u8; PAGE_SIZE]) -> bool {
        let bytes = self.slot_ptr(slot);
        if let Err(error) = self.make_readable(slot) {
            log::warn!("cannot read the store: {error}");
            return false;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn just_the_used_part_of_a_store_can_be_read() {
        let count_slots = 2 * READABLE_SLOTS + 7;
        let store = Memfd::new(count_slots).unwrap();
        let view = StoreView::new(&store.read_only().unwrap(), count_slots).unwrap();
        assert!(view.equals(Slot(5), &[0; PAGE_SIZE]));
        assert_eq!(view.readable_slots.load(Ordering::Relaxed), READABLE_SLOTS);
        store.write(Slot(count_slots - 1), &[7; PAGE_SIZE]).unwrap();
        assert!(view.equals(Slot(count_slots - 1), &[7; PAGE_SIZE]));
    }
}
