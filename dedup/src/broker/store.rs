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
    /// Slots that nobody shares any more and whose memory the kernel does not have back yet.
    freed: Vec<Slot>,
}

impl Store {
    /// Makes an empty store for `count_slots` pages at most.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is left behind.
    pub(super) fn new(count_slots: u32) -> io::Result<Self> {
        Ok(Self {
            memfd: Memfd::new(count_slots)?,
            slots: Slots::new(count_slots),
            freed: Vec::new(),
        })
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

    /// Lets go of a slot that nobody shares any more; mappings may still lie over it. Its memory
    /// and its number are given back by the next [`flush`](Self::flush).
    pub(super) fn free(&mut self, slot: Slot) {
        self.freed.push(slot);
    }

    /// Gives the memory of freed slots back to the kernel, run by run, and then their numbers.
    /// O(n log n) in slots freed since the last time.
    pub(super) fn flush(&mut self) {
        let mut freed = std::mem::take(&mut self.freed);
        freed.sort_unstable();
        for run in freed.chunk_by(|one, next| one.offset(1) == *next) {
            if let Err(error) = self.memfd.punch(run[0], run.len()) {
                // The bytes stay until the numbers are used again; nobody can see them.
                log::warn!("cannot give {} slots back to the kernel: {error}", run.len());
            }
        }
        for slot in freed {
            self.slots.release(slot);
        }
    }
}
