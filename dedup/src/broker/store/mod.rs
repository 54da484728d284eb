//! A store: the memory that holds every shared page once.

mod late_faults;
mod slot_table;
mod slots;

use std::io;

use slots::Slots;

use crate::sys::Memfd;
use crate::{PAGE_SIZE, Slot};

/// The memfd and its slots. Only the broker writes it, and each slot once, before it is mapped.
#[derive(Debug)]
pub(in crate::broker) struct Store {
    memfd: Memfd,
    pub(in crate::broker) slots: Slots,
    /// Slots to be freed by the next `flush`.
    freed: Vec<Slot>,
}

impl Store {
    /// Makes an empty store for `slot_count` pages at most.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is left behind.
    pub(in crate::broker) fn new(slot_count: u32) -> io::Result<Self> {
        Ok(Self {
            memfd: Memfd::new(slot_count)?,
            slots: Slots::new(slot_count),
            freed: Vec::new(),
        })
    }

    pub(in crate::broker) fn memfd(&self) -> &Memfd {
        &self.memfd
    }

    /// Writes the bytes of slots from `first` on; returns how many were written, and the error
    /// that ended it. What the others hold may not be used.
    pub(in crate::broker) fn fill(
        &mut self,
        first: Slot,
        pages: &[[u8; PAGE_SIZE]],
    ) -> (usize, io::Result<()>) {
        if self.memfd.write(first, pages.as_flattened()).is_ok() {
            return (pages.len(), Ok(()));
        }
        // A part may be written. Nobody reads any of it, so the first ones can be written once more.
        for ((number, page), slot) in pages.iter().enumerate().zip(first.0..) {
            if let Err(error) = self.memfd.write(Slot(slot), page) {
                return (number, Err(error));
            }
        }
        (pages.len(), Ok(()))
    }

    /// Queues a slot that nobody shares any more, and that pages may still cover, to be freed by the next
    /// [`flush`](Self::flush): until then it keeps its memory and its number, and [`Slots::node`] still returns the node
    /// that had it, which may be removed.
    pub(in crate::broker) fn queue_free(&mut self, slot: Slot) {
        self.freed.push(slot);
    }

    /// Gives the memory of freed slots back to the kernel, run by run, and then their numbers.
    /// O(n log n) in slots freed since the last time.
    pub(in crate::broker) fn flush(&mut self) {
        let mut freed = std::mem::take(&mut self.freed);
        freed.sort_unstable();
        for run in freed.chunk_by(|one, next| one.offset(1) == *next) {
            if let Err(error) = self.memfd.punch(run[0], run.len()) {
                // The bytes stay until the numbers are used again; no page shares them.
                log::warn!("cannot give {} slots back to the kernel: {error}", run.len());
            }
        }
        for slot in freed {
            self.slots.release(slot);
        }
    }
}
