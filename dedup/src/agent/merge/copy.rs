//! Memory that is made a copy of a VM's, part by part, before it is another VM's.

use std::ops::Range;

use crate::PAGE_SIZE;
use crate::agent::positions::{count, linear_index};
use crate::agent::{Agent, AgentSetupError, Prepared};
use crate::bitmap::Bitmap;
use crate::sys::Space;

/// Pages that are looked at before it is known how many of them are to be copied.
const CHUNK_PAGES: usize = 256;

/// Pages that a part copies, at least, and looks at, at most: one to two milliseconds.
const COPIED_PAGES: usize = 256;
const SEARCHED_PAGES: usize = 1 << 16;

/// Memory that is being made a copy of a VM's.
pub(crate) struct Copying {
    space: Space,
    /// The first page that is not a copy yet.
    next: usize,
}

impl Copying {
    /// Begins to make memory, which is no VM's and could be one's, a copy.
    pub(crate) fn new(Prepared { space, .. }: Prepared) -> Self {
        Self { space, next: 0 }
    }

    /// The first page that is not a copy yet.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// Has the next part have the bytes of `parent`, which is as large. Returns whether it was the last. What
    /// `parent` does not have is given back, whatever it was. O(pages that either has in the part).
    ///
    /// # Errors
    ///
    /// When the page map cannot be read, or the kernel discards nothing; a part may have been copied.
    pub(crate) fn step(&mut self, parent: &Agent) -> Result<bool, AgentSetupError> {
        let len = self.space.page_count() as usize;
        let (mut copied, stop) = (0, len.min(self.next + SEARCHED_PAGES));
        while self.next < stop && copied < COPIED_PAGES {
            let chunk = self.next..stop.min(self.next + CHUNK_PAGES);
            copied += self.copy_chunk(parent, chunk.clone())?;
            self.next = chunk.end;
        }
        Ok(self.next == len)
    }

    /// Copies a few pages. Returns how many are there.
    fn copy_chunk(&self, parent: &Agent, chunk: Range<usize>) -> Result<usize, AgentSetupError> {
        let mut present = parent.presence(&parent.space, chunk.clone())?;
        // A page over a slot that is not mapped at the moment is its parent's all the same.
        for pages in parent.shared.runs_within(chunk.clone()) {
            present[pages.start - chunk.start..pages.end - chunk.start].fill(true);
        }
        let own = parent.presence(&self.space, chunk.clone())?;
        let mut copied = 0;
        let mut bytes = [0; PAGE_SIZE];
        for ((page, is_present), is_own) in chunk.zip(present).zip(own) {
            if is_present {
                parent.space.span(linear_index(page), 1).copy_page(0, &mut bytes);
                self.space.span(linear_index(page), 1).write_page(&bytes);
                copied += 1;
            } else if is_own {
                self.give_back(page)?;
                copied += 1;
            }
        }
        Ok(copied)
    }

    /// Has a page read as zeroes and take no memory.
    fn give_back(&self, page: usize) -> Result<(), AgentSetupError> {
        let span = self.space.span(linear_index(page), 1);
        if let Err(error) = span.split_huge_pages() {
            log::debug!("a huge page cannot be split: {error}");
        }
        span.discard().map_err(AgentSetupError::Prepare)
    }
}

impl Agent {
    /// Opts out of folding what another VM does, which is as large.
    pub(crate) fn set_excluded(&mut self, excluded: Option<Bitmap>) {
        self.excluded = excluded;
    }

    /// The pages that are opted out of folding, if there are any.
    pub(crate) fn excluded(&self) -> Option<&Bitmap> {
        self.excluded.as_ref()
    }

    /// Whether each page of `within` is there in a space, in memory or swapped out.
    fn presence(&self, space: &Space, within: Range<usize>) -> Result<Vec<bool>, AgentSetupError> {
        let mut present = vec![false; within.len()];
        let mut next = within.start;
        while next < within.end {
            let span = space.span(linear_index(next), count(within.end - next));
            let visit = |skip: u32, page_count: u32, _| {
                let first = next - within.start + skip as usize;
                present[first..first + page_count as usize].fill(true);
            };
            self.process.pagemap.scan(span, visit).map_err(AgentSetupError::Pagemap)?;
            next += span.page_count() as usize;
        }
        Ok(present)
    }
}
