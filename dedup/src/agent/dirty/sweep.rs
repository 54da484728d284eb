//! A slow look, a few pages each pass, for what no change source has named: pages that were populated
//! from outside, that a kernel wrote without logging it, or that have returned from swap.

use std::ops::Range;

use crate::LinearIndex;
use crate::agent::stretch::sweep_part;
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::sys::PageKind;

/// Pages that are looked at in a pass, at most: about 0.25 ms. A larger VM is looked at in more passes.
const MOST_PAGES: u32 = 1 << 13;

impl Agent {
    /// Looks at the next few pages of the VM, all below `end`, and has those count as named by its change source that
    /// have memory of their own and are thought to be shared, or zero, or not there.
    ///
    /// # Errors
    ///
    /// When the page map cannot be read.
    pub(super) fn sweep(&mut self, end: LinearIndex) -> Result<(), AgentError> {
        let some = sweep_part(self.undrained_dirty.page_count()).min(MOST_PAGES);
        let within = (self.swept..end).first(some);
        self.work.searched_pages += u64::from(within.page_count());
        let next = within.end;
        let mut own: Vec<Range<LinearIndex>> = Vec::new();
        self.scan_runs(std::iter::once(within), |pages, kind| {
            if matches!(kind, PageKind::Private | PageKind::Swapped) {
                own.push(pages);
            }
        })?;
        self.swept = if next == self.undrained_dirty.end() { LinearIndex(0) } else { next };
        self.sweeps = self.sweeps.wrapping_add(u32::from(self.swept == LinearIndex(0)));
        for page in own.into_iter().flat_map(PageRange::pages) {
            let is_broken = self.shared.contains(page) || self.zero.contains(page);
            if is_broken || self.is_stray(page) {
                self.undrained_dirty.insert(page);
            }
        }
        Ok(())
    }

    /// Whether nothing is known of a page that should be looked at when it is there.
    fn is_stray(&self, page: LinearIndex) -> bool {
        // In any other mode that is how pages are left that are not to be shared.
        let is_wanted = self.mode == DedupMode::On && !self.is_excluded(page);
        is_wanted && !self.is_known(page)
    }

    /// Whether any set has a state of the page, or that it is to be looked at. O(1).
    pub(in crate::agent) fn is_known(&self, page: LinearIndex) -> bool {
        let known = [&self.shared, &self.zero, &self.offered, &self.dirty, &self.deferred];
        known.iter().any(|set| set.contains(page))
    }
}
