//! What of a VM's memory is to be folded, as that changes while the VM runs.

use std::ops::Range;

use crate::LinearIndex;
use crate::agent::Agent;
use crate::agent::budget::Lack;
use crate::mode::DedupMode;
use crate::page_set::PageSet;

impl Agent {
    pub(crate) fn mode(&self) -> DedupMode {
        self.mode
    }

    pub(crate) fn page_count(&self) -> u32 {
        self.space.page_count()
    }

    /// All pages of the VM.
    pub(crate) fn range(&self) -> Range<LinearIndex> {
        LinearIndex(0)..self.space.end()
    }

    /// Whether any page shares, waits for a twin, or was deferred when it had one.
    pub(crate) fn is_in_trees(&self) -> bool {
        [&self.shared, &self.offered, &self.deferred].iter().any(|set| !set.is_empty())
    }

    /// Whether any page [is in the trees](Self::is_in_trees), or was given back because it is zero.
    pub(crate) fn is_folded(&self) -> bool {
        self.is_in_trees() || !self.zero.is_empty()
    }

    /// Folds more or less of the VM from now on. What is not to be folded any more is given its own
    /// memory by the next passes, batch by batch. O(pages / 64).
    pub(crate) fn set_mode(&mut self, mode: DedupMode) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        (self.unmerge_cursor, self.has_unwanted) = (LinearIndex(0), true);
        // Nor by the pass that is under way; what it has not looked at is still dirty.
        self.visit.scan_set.clear();
        self.visit.is_scanning = false;
        self.look_again(self.dirty.whole());
        if mode != DedupMode::On {
            self.set_lack(Lack::Nothing);
        }
    }

    /// Has pages be folded, or not. What is not to be folded any more is given its own memory by
    /// the next passes. O(pages / 64).
    ///
    /// # Panics
    ///
    /// When the VM has not that many pages.
    pub(crate) fn set_mergeable(&mut self, pages: Range<LinearIndex>, mergeable: bool) {
        let page_count = self.dirty.page_count();
        if mergeable {
            if let Some(excluded) = &mut self.excluded {
                excluded.remove_range(pages.clone());
            }
            self.excluded = self.excluded.take().filter(|excluded| !excluded.is_empty());
            self.look_again(pages);
        } else {
            self.excluded
                .get_or_insert_with(|| PageSet::new(page_count))
                .insert_range(pages.clone());
            self.visit.scan_set.remove_range(pages);
            (self.unmerge_cursor, self.has_unwanted) = (LinearIndex(0), true);
        }
    }

    /// Whether the VM, or a range of it, is not to be folded. O(1).
    pub(crate) fn has_unfolded(&self) -> bool {
        self.mode == DedupMode::Off || self.excluded.is_some()
    }

    /// The runs of `pages` that are not to be folded. O(pages / 64).
    pub(crate) fn unfolded(&self, pages: Range<LinearIndex>) -> Vec<Range<LinearIndex>> {
        if self.mode == DedupMode::Off {
            return vec![pages];
        }
        self.excluded.iter().flat_map(|excluded| excluded.runs_within(pages.clone())).collect()
    }

    /// Whether a page is never folded because its range was opted out.
    pub(crate) fn is_excluded(&self, page: LinearIndex) -> bool {
        self.excluded.as_ref().is_some_and(|excluded| excluded.contains(page))
    }

    /// Has pages that were looked at, or were not because of the mode, be looked at by the next
    /// pass, unless they may be in a tree.
    fn look_again(&mut self, pages: Range<LinearIndex>) {
        self.dirty.insert_range(pages.clone());
        for placed in [&self.shared, &self.zero, &self.offered, &self.deferred] {
            self.dirty.subtract_within(placed, pages.clone());
        }
    }
}
