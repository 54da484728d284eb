//! A store, mapped for reading as far as it is used.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::memfd::Memfd;
use crate::{PAGE_SIZE, Slot};

/// Slots that become readable at a time, and those of the first part.
const READABLE_SLOTS: u32 = 1 << 12;

/// Parts of the largest store: each is as large as all before it.
const PARTS: usize = (u32::BITS - READABLE_SLOTS.ilog2()) as usize + 1;

/// A shared, read-only view of a store: what a page is compared with.
///
/// It is in parts that are mapped when one of their slots is first looked at, because a store is larger than
/// the host's memory, and there may be thousands. Only what has been used of a part can be read: the kernel
/// does not populate what nobody may touch, should the process lock all that it has (`mlockall`).
#[derive(Debug)]
pub(crate) struct StoreView {
    store: Memfd,
    slot_count: u32,
    parts: [OnceLock<Part>; PARTS],
}

impl StoreView {
    /// Begins to map a store of `slot_count` slots, with its first part: 16 MiB of address space.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is mapped.
    pub(crate) fn new(store: &Memfd, slot_count: u32) -> io::Result<Self> {
        let parts = [const { OnceLock::new() }; PARTS];
        let view = Self { store: store.clone(), slot_count, parts };
        if slot_count > 0 {
            view.part(Slot(0))?;
        }
        Ok(view)
    }

    /// Has the kernel not keep the store in memory because the process locks its mappings.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        self.parts.iter().filter_map(OnceLock::get).try_for_each(Part::unlock)
    }

    /// The address of a slot's bytes, which are in memory for the moment, if they can be read.
    pub(crate) fn touch(&self, slot: Slot) -> Option<usize> {
        let bytes = self.readable(slot).ok()?;
        // SAFETY: readable, as was just seen to, and inside the file, so that reading cannot raise
        // SIGBUS.
        unsafe { bytes.read_volatile() };
        Some(bytes as usize)
    }

    /// Whether the store has such a slot.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        slot.0 < self.slot_count
    }

    /// Sees to it that consecutive slots can be read, before anybody waits for them to be compared. O(slots).
    ///
    /// # Errors
    ///
    /// The kernel's, at its limits: some of them cannot.
    ///
    /// # Panics
    ///
    /// When the store has no such slots.
    pub(crate) fn prepare(&self, first: Slot, slot_count: u32) -> io::Result<()> {
        (0..slot_count).try_for_each(|offset| self.readable(first.offset(offset)).map(drop))
    }

    /// Whether the slot holds exactly `page`; not if the kernel does not let it be read.
    ///
    /// # Panics
    ///
    /// When the store has no such slot.
    pub(crate) fn equals(&self, slot: Slot, page: &[u8; PAGE_SIZE]) -> bool {
        let bytes = match self.readable(slot) {
            Ok(bytes) => bytes,
            Err(error) => {
                log::warn!("cannot read the store: {error}");
                return false;
            }
        };
        // SAFETY: both are readable for PAGE_SIZE bytes: the slot lies inside the file, so that
        // reading it cannot raise SIGBUS, and the comparison is the C library's, which makes no
        // claim that the bytes are immutable.
        unsafe { libc::memcmp(bytes.cast(), page.as_ptr().cast(), PAGE_SIZE) == 0 }
    }

    /// The address of a slot's bytes, once they can be read. O(1).
    fn readable(&self, slot: Slot) -> io::Result<*const u8> {
        assert!(self.has(slot), "no slot {slot:?}");
        let part = self.part(slot)?;
        let number = slot.0 - part.first_slot;
        part.make_readable(number)?;
        // SAFETY: inside the mapping, as the part is that of the slot.
        Ok(unsafe { part.base.as_ptr().add(number as usize * PAGE_SIZE) })
    }

    /// The part that a slot of the store is in, mapped if it is not yet.
    fn part(&self, slot: Slot) -> io::Result<&Part> {
        let number = (slot.0 / READABLE_SLOTS).checked_ilog2().map_or(0, |bits| bits + 1);
        let cell = &self.parts[number as usize];
        if let Some(part) = cell.get() {
            return Ok(part);
        }
        let first_slot = if number == 0 { 0 } else { READABLE_SLOTS << (number - 1) };
        let most = first_slot.max(READABLE_SLOTS);
        let slot_count = most.min(self.slot_count - first_slot);
        let part = Part::map(&self.store, first_slot, slot_count)?;
        // Another thread may have been faster: then that of this one goes.
        Ok(cell.get_or_init(|| part))
    }
}

/// Consecutive slots, mapped.
#[derive(Debug)]
struct Part {
    base: NonNull<u8>,
    first_slot: u32,
    slot_count: u32,
    /// Slots from its first on that can be read.
    readable_slots: AtomicU32,
}

impl Part {
    /// Maps slots, none of which can be read yet: costs address space only.
    fn map(store: &Memfd, first_slot: u32, slot_count: u32) -> io::Result<Self> {
        let len_bytes = slot_count as usize * PAGE_SIZE;
        let offset_bytes = libc::off_t::try_from(u64::from(first_slot) * PAGE_SIZE as u64)
            .map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let addr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_NONE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                store.raw(),
                offset_bytes,
            )
        };
        let base = match NonNull::new(addr.cast::<u8>()) {
            Some(base) if addr != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let part = Self { base, first_slot, slot_count, readable_slots: AtomicU32::new(0) };
        part.unlock()?;
        part.refuse_huge_pages()?;
        Ok(part)
    }

    fn len_bytes(&self) -> usize {
        self.slot_count as usize * PAGE_SIZE
    }

    /// Has the kernel not join what is read in huge pages, which would take memory for slots that hold
    /// nothing.
    fn refuse_huge_pages(&self) -> io::Result<()> {
        // SAFETY: just what `map` mapped; no byte and no access changes.
        let result = unsafe {
            libc::madvise(self.base.as_ptr().cast(), self.len_bytes(), libc::MADV_NOHUGEPAGE)
        };
        match io::Error::last_os_error() {
            // A kernel without transparent huge pages has no such advice.
            error if result != 0 && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        // SAFETY: just what `map` mapped; no byte and no access changes.
        let result = unsafe { libc::munlock(self.base.as_ptr().cast(), self.len_bytes()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sees to it that the slot of this number of the part's can be read. O(1).
    fn make_readable(&self, number: u32) -> io::Result<()> {
        if number < self.readable_slots.load(Ordering::Relaxed) {
            return Ok(());
        }
        let readable_slots = (number / READABLE_SLOTS + 1) * READABLE_SLOTS;
        let readable_slots = readable_slots.min(self.slot_count);
        let len_bytes = readable_slots as usize * PAGE_SIZE;
        // SAFETY: a part of what `map` mapped; reading is all that is ever done there.
        let result =
            unsafe { libc::mprotect(self.base.as_ptr().cast(), len_bytes, libc::PROT_READ) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.readable_slots.fetch_max(readable_slots, Ordering::Relaxed);
        Ok(())
    }
}

// SAFETY: the mapping is never written through and lives until the value is dropped.
unsafe impl Send for Part {}
// SAFETY: as for `Send`.
unsafe impl Sync for Part {}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; no borrow of it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(slot_count: u32) -> (Memfd, StoreView) {
        let store = Memfd::new(slot_count).unwrap();
        let view = StoreView::new(&store.read_only().unwrap(), slot_count).unwrap();
        (store, view)
    }

    fn readable(view: &StoreView) -> Vec<Option<u32>> {
        let readable = |part: &Part| part.readable_slots.load(Ordering::Relaxed);
        view.parts.iter().map(|part| part.get().map(readable)).collect()
    }

    #[test]
    fn just_the_used_part_of_a_store_is_mapped_and_can_be_read() {
        let (store, view) = view(5 * READABLE_SLOTS + 7);
        assert!(view.equals(Slot(5), &[0; PAGE_SIZE]));
        assert_eq!(readable(&view)[..4], [Some(READABLE_SLOTS), None, None, None]);
        let last = Slot(5 * READABLE_SLOTS + 6);
        store.write(last, &[7; PAGE_SIZE]).unwrap();
        assert!(view.equals(last, &[7; PAGE_SIZE]));
        assert_eq!(
            readable(&view)[..4],
            [Some(READABLE_SLOTS), None, None, Some(READABLE_SLOTS + 7)]
        );
    }

    #[test]
    fn each_slot_is_seen_where_it_is() {
        let (store, view) = view(9 * READABLE_SLOTS);
        let edges = (0..10).map(|part| part * READABLE_SLOTS);
        let slots: Vec<u32> = edges
            .flat_map(|edge| edge.saturating_sub(1)..edge + 1)
            .filter(|&slot| view.has(Slot(slot)))
            .collect();
        let page = |slot: u32| {
            let mut page = [1; PAGE_SIZE];
            page[..4].copy_from_slice(&slot.to_ne_bytes());
            page
        };
        for &slot in &slots {
            store.write(Slot(slot), &page(slot)).unwrap();
        }
        for &slot in &slots {
            assert!(view.equals(Slot(slot), &page(slot)), "{slot}");
            assert!(view.touch(Slot(slot)).is_some());
        }
    }

    #[test]
    fn the_largest_store_has_its_last_slot() {
        let (_store, view) = view(u32::MAX - 1);
        assert!(view.equals(Slot(u32::MAX - 2), &[0; PAGE_SIZE]));
        assert!(!view.has(Slot(u32::MAX - 1)));
    }
}
