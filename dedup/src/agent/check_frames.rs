//! Pages that show their slots, held against the page frames that the kernel uses.

use std::io;

use super::Agent;
use super::changes::{count, linear_index};
use crate::LinearIndex;
use crate::sys::PageEntry;

impl Agent {
    /// The first shared page that is a file's and for which the kernel uses another page frame than for
    /// its slot. None without `CAP_SYS_ADMIN`, which it takes to see frames. O(shared pages).
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(super) fn find_other_frame(&self) -> io::Result<Option<LinearIndex>> {
        let pagemap = &self.process.pagemap;
        for run in self.shared.runs() {
            let mut next = run.start;
            while next < run.end {
                let span = self.space.span(linear_index(next), count(run.end - next));
                for (entry, page) in pagemap.entries(span)?.into_iter().zip(next..) {
                    // What is not there is read from the slot when it is wanted.
                    let Some(found) = entry.frame().filter(|_| entry.is_file()) else { continue };
                    let slot = self.extents.slot(linear_index(page));
                    let addr = slot.and_then(|slot| self.store.view.touch(slot));
                    let expected = addr.map(|addr| pagemap.entry(addr)).transpose()?;
                    if expected.and_then(PageEntry::frame) != Some(found) {
                        return Ok(Some(linear_index(page)));
                    }
                }
                next += span.count_pages() as usize;
            }
        }
        Ok(None)
    }
}
