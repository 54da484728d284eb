//! Mappings that save nothing given back: those of extents of which no page shares its slot any more.
//!
//! A page that was written, or was made private, keeps the mapping of the store that it lies in. That
//! lets it return to its slot without a new mapping, but holds a part of the mapping budget. So extents
//! without a sharer, *stale* ones, become ordinary anonymous memory again when their pages are not to be
//! folded, and when the budget is short. So does memory that the kernel keeps apart from its neighbours
//! because it was first written between extents that are gone now.

pub(super) mod anonymous;
mod search;

use crate::LinearIndex;
use crate::agent::{Agent, AgentError};
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};

/// What moving a window costs, about 50 µs, in runs that are mapped.
const RUNS_PER_MOVE: u64 = 8;

/// Extents that are passed over for what looking at a page costs.
pub(super) const PASSED_PER_PAGE: u32 = 16;

/// Whether stale extents are being searched for.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::agent) struct StaleSearch {
    /// Whether a page has left its slot since the last search.
    may_find: bool,
    /// Whether one has that has not changed since the mark.
    is_work: bool,
    /// From where the search goes on, if there is one.
    next: Option<SearchAt>,
    /// Whether the last search was called off.
    failed: bool,
}

/// How far a search has come: it looks for extents first, and then for what keeps others apart.
#[derive(Debug, Clone, Copy)]
enum SearchAt {
    /// At the extents from a page on.
    Extents(LinearIndex),
    /// At the seams from a page on.
    Seams(LinearIndex),
}

impl SearchAt {
    const BEGIN: Self = Self::Extents(LinearIndex(0));
}

impl StaleSearch {
    /// Notes that pages have left their slots; whether one `is_work`, because it has not changed since
    /// the mark.
    pub(in crate::agent) fn note_left(&mut self, is_work: bool) {
        self.may_find = true;
        self.is_work |= is_work;
    }

    /// Begins a search, if there may be something to find.
    pub(in crate::agent) fn begin(&mut self) {
        if self.may_find {
            (self.may_find, self.next) = (false, Some(SearchAt::BEGIN));
        }
    }

    /// Whether there is more to search.
    pub(in crate::agent) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the last search was called off: what it was for may still lie over the store.
    pub(in crate::agent) fn was_called_off(&self) -> bool {
        self.failed && self.next.is_none()
    }

    /// Begins a search through all.
    pub(in crate::agent) fn search_all(&mut self) {
        (self.may_find, self.is_work, self.next) = (false, true, Some(SearchAt::BEGIN));
    }

    /// Whether a search is under way that may be expected to come to something, and not only for what a
    /// guest goes on writing.
    pub(in crate::agent) fn is_promising(&self) -> bool {
        self.next.is_some() && self.is_work && !self.failed
    }

    /// Ends the search: all have been looked at.
    fn end(&mut self) {
        // What was refused before is not stale any more.
        (self.next, self.failed) = (None, false);
        // What has left meanwhile is the next one's.
        self.is_work &= self.may_find;
    }

    /// Ends the search without having found all; the next one looks at everything again.
    fn call_off(&mut self) {
        *self = Self { may_find: true, is_work: self.is_work, next: None, failed: true };
    }
}

impl Agent {
    /// Whether mappings that save nothing could not be given back, and are tried again by later passes.
    pub(crate) fn owes_mappings(&self) -> bool {
        self.stale.was_called_off()
    }

    /// Goes on with the search for stale extents, if there is one, and makes those that it finds
    /// anonymous memory: `limit_pages` pages at most, or one window. Returns how much of the limit that
    /// took; 0 when the search is over. O(extents passed over · log extents + pages).
    ///
    /// # Errors
    ///
    /// When the broker fails, or the page map cannot be read. What is known of every page is right.
    pub(in crate::agent) fn release_stale(
        &mut self,
        broker: &mut dyn Broker,
        limit_pages: u32,
    ) -> Result<u32, AgentError> {
        let mut taken = 0;
        while let Some(from) = self.stale.next.filter(|_| taken < limit_pages) {
            let limit = (limit_pages - taken) * PASSED_PER_PAGE;
            let (window, passed) = match from {
                SearchAt::Extents(from) => self.next_stale_window(from, limit),
                SearchAt::Seams(from) => self.next_seam_window(from, limit),
            };
            taken += passed.div_ceil(PASSED_PER_PAGE);
            self.work.searched_pages += u64::from(passed);
            match window.next {
                Some(next) => self.stale.next = Some(next),
                None => self.stale.end(),
            }
            let Some(pages) = window.pages else {
                if self.work.is_enough() {
                    break;
                }
                continue;
            };
            taken += pages.page_count();
            self.work.mapped_runs += RUNS_PER_MOVE;
            self.work.mapped_pages += u64::from(pages.page_count());
            if !self.make_anonymous(&pages)? {
                // For want of memory, or because the kernel is too old: not now.
                self.stale.call_off();
                break;
            }
            self.stale.failed = false;
            self.report(broker, vec![Outcome::unbacked(&pages)])?;
            if self.work.is_enough() {
                break;
            }
        }
        Ok(taken.min(limit_pages))
    }
}

#[cfg(test)]
mod tests;
