//! A store: the memory that holds every shared page once.

use std::io;

use super::slots::Slots;
use crate::sys::Memfd;
use crate::{PAGE_SIZE, Slot};

/// The memfd and its slots. Only the broker writes it, and each slot once, before it is mapped.
#[derive(Debug)]
pub(super) struct Store {
    memfd: Memfd,
    pub(super) slots: Slots,
}

impl Store {
    /// Makes an empty store for `count_slots` pages at most.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is left behind.
    pub(super) fn new(count_slots: u32) -> io::Result<Self> {
        Ok(Self { memfd: Memfd::new(count_slots)?, slots: Slots::new(count_slots) })
    }

    pub(super) fn memfd(&self) -> &Memfd {
        &self.memfd
    }

    /// Writes one slot's bytes.
    ///
    /// # Errors
    ///
    /// The kernel's; the slot holds nothing that may be used.
    pub(super) fn fill(&mut self, slot: Slot, page: &[u8]) -> io::Result<()> {
        debug_assert_eq!(page.len(), PAGE_SIZE);
        self.memfd.write(slot, page)
    }

    /// Gives a slot's memory back. Nobody may share it any more; mappings may still lie over it.
    pub(super) fn free(&mut self, slot: Slot) {
        if let Err(error) = self.memfd.punch(slot) {
            // The bytes stay until the number is used again; nobody can see them.
            log::warn!("cannot give slot {} back to the kernel: {error}", slot.0);
        }
        self.slots.release(slot);
    }
}
