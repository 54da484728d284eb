//! Memory that is made a copy of a VM's, part by part, before it is another VM's.

use std::ops::Range;

use crate::agent::{Agent, AgentSetupError, Prepared};
use crate::page_range::PageRange;
use crate::page_set::PageSet;
use crate::sys::Space;
use crate::{LinearIndex, PAGE_SIZE};

/// Pages that are looked at before it is known how many of them are to be copied.
const CHUNK_PAGES: u32 = 256;

/// Pages that a part copies, at least, and looks at, at most: one to two milliseconds.
const COPIED_PAGES: u32 = 256;
const SEARCHED_PAGES: u32 = 1 << 16;

/// Memory that is being made a copy of a VM's.
pub(crate) struct Copying {
    space: Space,
    /// The first page that is not a copy yet.
    next: LinearIndex,
}

impl Copying {
    /// Begins to make memory, which is no VM's and could be one's, a copy.
    pub(crate) fn new(Prepared { space, .. }: Prepared) -> Self {
        Self { space, next: LinearIndex(0) }
    }

    /// The first page that is not a copy yet.
    pub(crate) fn next(&self) -> LinearIndex {
        self.next
    }

    /// Has the next part have the bytes of `parent`, which is as large. Returns whether it was the last. What
    /// `parent` does not have is given back, whatever it was. O(pages that either has in the part).
    ///
    /// # Errors
    ///
    /// When the page map cannot be read, or the kernel discards nothing; a part may have been copied.
    pub(crate) fn step(&mut self, parent: &Agent) -> Result<bool, AgentSetupError> {
        let end = self.space.end();
        let (mut copied, stop) = (0, (self.next..end).first(SEARCHED_PAGES).end);
        while self.next < stop && copied < COPIED_PAGES {
            let chunk = (self.next..stop).first(CHUNK_PAGES);
            copied += self.copy_chunk(parent, &chunk)?;
            self.next = chunk.end;
        }
        Ok(self.next == end)
    }

    /// Copies a few pages. Returns how many are there.
    fn copy_chunk(
        &self,
        parent: &Agent,
        chunk: &Range<LinearIndex>,
    ) -> Result<u32, AgentSetupError> {
        let mut present = parent.presence(&parent.space, chunk)?;
        // A page over a slot that is not mapped at the moment is its parent's all the same.
        for pages in parent.shared.runs_within(chunk.clone()) {
            present[chunk.offsets_of(&pages)].fill(true);
        }
        let own = parent.presence(&self.space, chunk)?;
        let mut copied = 0;
        let mut bytes = [0; PAGE_SIZE];
        for ((page, is_present), is_own) in chunk.clone().pages().zip(present).zip(own) {
            if is_present {
                parent.space.span(page, 1).copy_page(0, &mut bytes);
                self.space.span(page, 1).write_page(&bytes);
                copied += 1;
            } else if is_own {
                self.give_back(page)?;
                copied += 1;
            }
        }
        Ok(copied)
    }

    /// Has a page read as zeroes and take no memory.
    fn give_back(&self, page: LinearIndex) -> Result<(), AgentSetupError> {
        let span = self.space.span(page, 1);
        if let Err(error) = span.split_huge_pages() {
            log::debug!("a huge page cannot be split: {error}");
        }
        span.discard().map_err(AgentSetupError::Prepare)
    }
}

impl Agent {
    /// Opts out of folding what another VM does, which is as large.
    pub(crate) fn set_excluded(&mut self, excluded: Option<PageSet>) {
        self.excluded = excluded;
    }

    /// The pages that are opted out of folding, if there are any.
    pub(crate) fn excluded(&self) -> Option<&PageSet> {
        self.excluded.as_ref()
    }

    /// Whether each page of `within` is there in a space, in memory or swapped out.
    fn presence(
        &self,
        space: &Space,
        within: &Range<LinearIndex>,
    ) -> Result<Vec<bool>, AgentSetupError> {
        let mut present = vec![false; within.page_count() as usize];
        for (linear, span) in space.spans(within.clone()) {
            let visit = |skip, page_count, _| {
                let found = linear.offset(skip).run(page_count);
                present[within.offsets_of(&found)].fill(true);
            };
            self.process.pagemap.scan(span, visit).map_err(AgentSetupError::Pagemap)?;
        }
        Ok(present)
    }
}
