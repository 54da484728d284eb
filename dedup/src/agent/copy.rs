//! Making one VM a copy of another.

use std::ops::Range;

use super::changes::{count, linear_index};
use super::{Agent, AgentSetupError};
use crate::bitmap::Bitmap;
use crate::sys::Protected;

/// Pages that are given back at a time.
const PART_PAGES: usize = 4096;

impl Agent {
    /// Has this VM, none of whose pages is folded yet, have the bytes of `parent`, which is as
    /// large, and opt out of folding what `parent` does. What `parent` does not have is given back,
    /// whatever it was. O(pages that either has).
    ///
    /// # Errors
    ///
    /// When the kernel does not say what is there, or takes nothing back; a part may have been
    /// copied.
    pub(crate) fn copy_from(&mut self, parent: &Self) -> Result<(), AgentSetupError> {
        let mut present = parent.present()?;
        // A page over a slot that is not mapped at the moment is its parent's all the same.
        present.union_with(&parent.shared);
        let mut stale = self.present()?;
        stale.subtract(&present);
        for pages in stale.runs() {
            self.give_back(pages)?;
        }
        for page in present.iter() {
            let bytes = parent.copy(linear_index(page));
            self.space.span(linear_index(page), 1).write_page(&bytes);
        }
        self.excluded.clone_from(&parent.excluded);
        Ok(())
    }

    /// The pages that are there, in memory or swapped out.
    fn present(&self) -> Result<Bitmap, AgentSetupError> {
        let mut present = Bitmap::new(self.space.count_pages() as usize);
        for piece in self.space.pieces() {
            let visit = |skip, count_pages: u32, _| {
                let start = piece.linear.offset(skip).0 as usize;
                present.insert_range(start..start + count_pages as usize);
            };
            let scanned = self.process.pagemap.scan(self.space.whole(piece), visit);
            scanned.map_err(AgentSetupError::Pagemap)?;
        }
        Ok(present)
    }

    /// Has pages that lie over no slot read as zeroes and take no memory.
    fn give_back(&mut self, pages: Range<usize>) -> Result<(), AgentSetupError> {
        // Those that go as a whole need not be split.
        self.split_huge_pages(pages.start..pages.start + 1);
        self.split_huge_pages(pages.end - 1..pages.end);
        let mut next = pages.start;
        while next < pages.end {
            // Nobody who faults waits for all of it.
            let most = count((pages.end - next).min(PART_PAGES));
            let span = self.space.span(linear_index(next), most);
            let discarded = Protected::new(&self.process.uffd, span)
                .and_then(|mut protected| protected.discard(0, span.count_pages()));
            discarded.map_err(AgentSetupError::Prepare)?;
            next += span.count_pages() as usize;
        }
        Ok(())
    }
}
