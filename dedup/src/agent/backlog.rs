//! How much there was to do about pages that have not changed since somebody began to wait for folding to settle.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::Agent;
use crate::LinearIndex;
use crate::page_range::PageRange;
use crate::page_set::PageSet;

/// What changed since the [mark](Agent::mark), and what there was to do about other pages.
pub(super) struct Backlog {
    /// Pages that have changed since the mark.
    pub(super) changed_since_mark: PageSet,
    /// Pages for which the mark is still to be set: what the change source names next of them changed
    /// before it.
    pub(super) unmarked: PageSet,
    /// Pages without such a change that there was something to do about, since last taken.
    pub(super) pages: u64,
    /// Passes since the mark that were to be followed by another because the VM was to give mappings back.
    pub(super) due_reclaims: u32,
}

impl Backlog {
    /// None, of a VM of so many pages, which all changed before the mark.
    pub(super) fn new(page_count: u32) -> Self {
        let none = PageSet::new(page_count);
        Self { changed_since_mark: none.clone(), unmarked: none, pages: 0, due_reclaims: 0 }
    }
}

impl Agent {
    /// Has pages that change from now on not count as backlog: what a guest goes on writing can
    /// never all be folded.
    pub(crate) fn mark(&mut self) {
        self.backlog.due_reclaims = 0;
        self.backlog.unmarked.insert_range(self.backlog.unmarked.whole());
    }

    /// How many pages there was something to do about, since last taken, that have not changed
    /// since the mark.
    pub(crate) fn take_backlog(&mut self) -> u64 {
        // Mappings that are about to be given back may pay for what was deferred.
        std::mem::take(&mut self.backlog.pages) + u64::from(self.stale.is_promising())
    }

    /// Counts pages that there was something to do about.
    pub(super) fn note_work(&mut self, pages: Range<LinearIndex>) {
        let page_count = pages.page_count();
        let unchanged = page_count - self.backlog.changed_since_mark.count_within(pages);
        self.backlog.pages += u64::from(unchanged);
    }
}
