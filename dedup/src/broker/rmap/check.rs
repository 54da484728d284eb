//! Which chunks of items are whose, and which are free.

use super::{CHUNK_ITEMS, ItemRange, Rmap};
use crate::VmId;
use crate::broker::ids::check_numbers_of;

impl Rmap {
    /// Verifies that every chunk is the one VM's whose pages it stands for, or free. `ranges` are the items
    /// of all VMs. O(pages / 4096).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check<'a>(
        &self,
        ranges: impl Iterator<Item = (VmId, &'a ItemRange)>,
    ) -> Result<(), String> {
        let mut used = Vec::new();
        for (vm, range) in ranges {
            for (position, &number) in range.chunks.iter().enumerate() {
                let first = position * CHUNK_ITEMS;
                let len = CHUNK_ITEMS.min((range.page_count as usize).saturating_sub(first));
                let chunk = self.chunks.get(number as usize).and_then(Option::as_ref);
                let fits = chunk.is_some_and(|chunk| {
                    let made = chunk.items.as_ref().map_or(len, |items| items.len());
                    chunk.vm == vm
                        && chunk.first.0 as usize == first
                        && (chunk.len, made) == (len, len)
                });
                if !fits {
                    return Err(format!("chunk {number} is not that of page {first} of VM {vm}"));
                }
                used.push(number as usize);
            }
        }
        let free = self.free.iter().map(|&number| number as usize);
        check_numbers_of("chunk", self.chunks.len(), used.into_iter(), free)?;
        match self.free.iter().find(|&&number| self.chunks[number as usize].is_some()) {
            Some(number) => Err(format!("chunk {number} is free, and has items")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl Rmap {
    /// Has a chunk that is in use be free, too.
    pub(in crate::broker) fn free_twice(&mut self, number: u32) {
        self.free.push(number);
    }
}
