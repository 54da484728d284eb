//! Checks that pages which show their slots are mapped to the slots' page frames.

use std::io;

use crate::LinearIndex;
use crate::agent::Agent;
use crate::page_range::PageRange;
use crate::sys::PageEntry;

/// How often two frames are read again that differ: the kernel may move a page between both readings.
const READINGS: u32 = 8;

impl Agent {
    /// The first shared page that is a file's and for which the kernel uses another page frame than for
    /// its slot. None without `CAP_SYS_ADMIN`, which it takes to see frames. O(shared pages).
    ///
    /// # Errors
    ///
    /// When the page map cannot be read.
    pub(super) fn find_other_frame(&self) -> io::Result<Option<LinearIndex>> {
        let pagemap = &self.process.pagemap;
        for run in self.shared.runs() {
            for (linear, span) in self.space.spans(run) {
                let pages = linear.run(span.page_count()).pages();
                for (entry, page) in pagemap.entries(span)?.into_iter().zip(pages) {
                    // What is not there is read from the slot when it is touched.
                    if !self.is_of_slot(page, entry)? {
                        return Ok(Some(page));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether a page, whose entry in the page map was `entry`, shows the page frame of its slot, or none.
    fn is_of_slot(&self, page: LinearIndex, mut entry: PageEntry) -> io::Result<bool> {
        let pagemap = &self.process.pagemap;
        let slot = self.extents.slot(page);
        for _ in 0..READINGS {
            let Some(found) = entry.frame().filter(|_| entry.is_file()) else { return Ok(true) };
            let addr = slot.and_then(|slot| self.store.view.touch(slot));
            let expected = addr.map(|addr| pagemap.entry(addr)).transpose()?;
            if expected.and_then(PageEntry::frame) == Some(found) {
                return Ok(true);
            }
            entry = pagemap.entry(self.space.span(page, 1).start())?;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::agent::ProcessMemory;
    use crate::agent::tests::World;
    use crate::sys::Protected;
    use crate::{PAGE_SIZE, VmId};

    // As a page would be that the kernel holds privately, and that counts as saved all the same.
    #[test]
    fn a_page_that_shows_another_frame_than_its_slots_is_found() {
        let process = Arc::new(ProcessMemory::open(true).unwrap());
        let mut world = World::new(&process, 256, 0..0);
        world.live();
        world.settle();
        let agent = &world.vms[&VmId(0)].agent;
        assert_eq!(agent.find_other_frame().unwrap(), None);
        let slot_of = |page| agent.extents.slot(page);
        let mut shared = agent.shared.iter();
        let (page, other) = (shared.next().unwrap(), shared.last().unwrap());
        assert_ne!(slot_of(page), slot_of(other));
        let span = agent.space.span(page, 1);
        let mut protected = Protected::new(&agent.process.uffd, span).unwrap();
        protected.map_slots(0, 1, &agent.store.memfd, slot_of(other).unwrap()).unwrap();
        drop(protected);
        let mut bytes = [0; PAGE_SIZE];
        // It is there once it has been read.
        span.copy_page(0, &mut bytes);
        assert_eq!(agent.find_other_frame().unwrap(), Some(page));
    }
}
