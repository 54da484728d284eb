//! Mappings that save nothing given back: those of extents of which no page shares its slot any more.
//!
//! A page that was written, or was made private, keeps the mapping of the store that it lies in. That
//! lets it return to its slot without a new mapping, but holds a part of the mapping budget. So extents
//! without a sharer, *stale* ones, become ordinary anonymous memory again when their pages are not to be
//! folded, and when the budget is short. So does memory that the kernel keeps apart from its neighbours
//! because it was first written between extents that are gone now.

use std::ops::Range;
use std::sync::Arc;

use super::merge::runs::{Action, Run};
use super::positions::count;
use super::{Agent, AgentError};
use crate::LinearIndex;
use crate::extents::Extent;
use crate::protocol::{Broker, Outcome};
use crate::sys::{MAX_MOVE_PAGES, MakeAnonymousError, PageKind};

/// Anonymous pages between two extents, at most, that are moved with them, so that one move joins all.
pub(super) const MAX_GAP_PAGES: u32 = 8;

/// Pages of stale extents that are moved at once, at most: half as many as can be, in about a millisecond.
pub(super) const STALE_PAGES: u32 = MAX_MOVE_PAGES / 2;

/// What moving a window costs, about 50 µs, in runs that are mapped.
const RUNS_PER_MOVE: u64 = 8;

/// Extents that are replaced for what mapping a run costs.
const EXTENTS_PER_RUN: u64 = 2;

/// Extents that are passed over for what looking at a page costs.
pub(super) const PASSED_PER_PAGE: u32 = 16;

/// Whether stale extents are being searched for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StaleSearch {
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
    pub(super) fn note_left(&mut self, is_work: bool) {
        self.may_find = true;
        self.is_work |= is_work;
    }

    /// Begins a search, if there may be something to find.
    pub(super) fn begin(&mut self) {
        if self.may_find {
            (self.may_find, self.next) = (false, Some(SearchAt::BEGIN));
        }
    }

    /// Whether there is more to search.
    pub(super) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the last search was called off: what it was for may still lie over the store.
    pub(super) fn was_called_off(&self) -> bool {
        self.failed && self.next.is_none()
    }

    /// Begins a search through all.
    pub(super) fn search_all(&mut self) {
        (self.may_find, self.is_work, self.next) = (false, true, Some(SearchAt::BEGIN));
    }

    /// Whether a search is under way that may be expected to come to something, and not only for what a
    /// guest goes on writing.
    pub(super) fn is_promising(&self) -> bool {
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
    /// anonymous memory: `limit_pages` pages at most, or one window. Says how much of the limit that
    /// took; 0 when the search is over. O(extents passed over · log extents + pages).
    ///
    /// # Errors
    ///
    /// When the broker fails, or the page map cannot be read. What is known of every page is right.
    pub(super) fn release_stale(
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
            taken += pages.end - pages.start;
            self.work.mapped_runs += RUNS_PER_MOVE;
            self.work.mapped_pages += u64::from(pages.end - pages.start);
            if !self.make_anonymous(&pages)? {
                // For want of memory, or because the kernel is too old: not now.
                self.stale.call_off();
                break;
            }
            self.stale.failed = false;
            let (linear, page_count) = (LinearIndex(pages.start), pages.end - pages.start);
            self.say(broker, vec![Outcome::Unbacked { linear, page_count }])?;
            if self.work.is_enough() {
                break;
            }
        }
        Ok(taken.min(limit_pages))
    }

    /// The next stale extents from page `from` on that can be moved together, and how many extents were
    /// looked at, `limit` at most.
    fn next_stale_window(&self, from: LinearIndex, limit: u32) -> (Window, u32) {
        let mut found: Option<Range<u32>> = None;
        let mut passed = 0;
        let end = LinearIndex(self.space.page_count());
        for extent in self.extents.overlapping(from, end) {
            if passed >= limit && found.is_none() {
                return (
                    Window { pages: None, next: Some(SearchAt::Extents(extent.linear)) },
                    passed,
                );
            }
            passed += 1;
            let pages = extent.linear.0..extent.end();
            if !self.is_stale(extent) {
                if found.is_some() {
                    break;
                }
                continue;
            }
            let first = found.as_ref().map_or(pages.start, |found| found.start);
            let end = self.move_end(first).min(first + STALE_PAGES).min(pages.end);
            match &mut found {
                Some(found) if pages.start >= end || pages.start - found.end > MAX_GAP_PAGES => {
                    break;
                }
                Some(found) => found.end = end,
                None => found = Some(first..end),
            }
        }
        let next = match &found {
            Some(found) => SearchAt::Extents(LinearIndex(found.end)),
            None => SearchAt::Seams(LinearIndex(0)),
        };
        (Window { pages: found, next: Some(next) }, passed)
    }

    /// The shorter side of the next seam from page `from` on, which will be one mapping with the other once it
    /// is moved, if that can be done at once; and how many seams were looked at, `limit` at most.
    fn next_seam_window(&self, from: LinearIndex, limit: u32) -> (Window, u32) {
        let mut passed = 0;
        for &seam in self.seams.range(from..) {
            if passed >= limit {
                return (Window { pages: None, next: Some(SearchAt::Seams(seam)) }, passed);
            }
            passed += 1;
            if self.is_apart(seam) || self.extents.slot(seam).is_some() {
                continue;
            }
            let [before, after] = self.sides(seam);
            let side = if before.len() < after.len() { before } else { after };
            if side.len() <= MAX_MOVE_PAGES as usize {
                let next = Some(SearchAt::Seams(LinearIndex(seam.0 + 1)));
                return (Window { pages: Some(side), next }, passed);
            }
        }
        (Window { pages: None, next: None }, passed)
    }

    /// The anonymous pages before a seam and those after it that are one mapping, or of longer ones more than
    /// can be moved at once.
    fn sides(&self, seam: LinearIndex) -> [Range<u32>; 2] {
        let piece = self.space.piece(seam);
        let first = LinearIndex(seam.0.saturating_sub(MAX_MOVE_PAGES + 1).max(piece.linear.0));
        let end = LinearIndex(seam.0.saturating_add(MAX_MOVE_PAGES + 1).min(piece.end().0));
        let mut ends = self.policy_edges(first, end);
        ends.extend(self.seams.range(first..end));
        for extent in self.extents.overlapping(first, end) {
            ends.extend([extent.linear, LinearIndex(extent.end())]);
        }
        let before = ends.iter().filter(|&&page| page < seam).max();
        let after = ends.iter().filter(|&&page| page > seam).min();
        [before.map_or(first.0, |page| page.0)..seam.0, seam.0..after.map_or(end.0, |page| page.0)]
    }

    /// The end of the pages from `first` on that can be moved together: they lie side by side, and are to have
    /// one policy.
    pub(super) fn move_end(&self, first: u32) -> u32 {
        let piece_end = self.space.piece(LinearIndex(first)).end().0;
        piece_end.min(self.policy_end(first)).min(first + MAX_MOVE_PAGES)
    }

    /// Whether no page of an extent shares its slot. O(pages / 64).
    fn is_stale(&self, extent: Extent) -> bool {
        !self.is_any_shared(&(extent.linear.0..extent.end()))
    }

    /// Whether any page shares its slot. O(pages / 64).
    pub(super) fn is_any_shared(&self, pages: &Range<u32>) -> bool {
        let mut shared = self.shared.runs_within(pages.start as usize..pages.end as usize);
        shared.next().is_some()
    }

    /// Pages that lie side by side, in parts that can be [made anonymous](Self::make_anonymous) at once.
    pub(super) fn parts_to_move(pages: Range<u32>) -> Vec<Range<u32>> {
        let starts = pages.clone().step_by(MAX_MOVE_PAGES as usize);
        starts.map(|start| start..pages.end.min(start + MAX_MOVE_PAGES)).collect()
    }

    /// Has pages, of which none shares a slot, be anonymous memory, one mapping with what is around
    /// them; says whether they are.
    pub(super) fn make_anonymous(&mut self, pages: &Range<u32>) -> Result<bool, AgentError> {
        let process = Arc::clone(&self.process);
        let Some(mover) = process.page_mover() else { return Ok(false) };
        self.split_huge_pages(pages.start as usize..pages.end as usize);
        let present = self.present_in(pages)?;
        let extents = self.extents.overlapping(LinearIndex(pages.start), LinearIndex(pages.end));
        self.work.mapped_runs += extents.count() as u64 / EXTENTS_PER_RUN;
        let piece = self.space.piece(LinearIndex(pages.start));
        let is_anonymous = |page: u32| self.extents.slot(LinearIndex(page)).is_none();
        let first =
            pages.start - u32::from(pages.start > piece.linear.0 && is_anonymous(pages.start - 1));
        let after = pages.end + u32::from(pages.end < piece.end().0 && is_anonymous(pages.end));
        let around = self.space.span(LinearIndex(first), after - first);
        let window = pages.start - first..pages.end - first;
        // What is moved together is put in one place: where policies differ, anywhere.
        let has_one = self.policy_end(pages.start) >= pages.end;
        let policy = self.policy(LinearIndex(pages.start)).filter(|_| has_one);
        let (start, end) = (pages.start as usize, pages.end as usize);
        let locked = self.locked_among(start..end);
        let result = mover.make_anonymous(&process.uffd, around, window, &present, policy);
        self.move_delay.note(result.is_ok());
        if let Err(error) = &result {
            log::debug!("VM {}: {error}: {:?}", self.vm, std::error::Error::source(error));
            self.events.errors += 1;
        }
        let is_anonymous = !matches!(result, Err(MakeAnonymousError::Kept(_)));
        if is_anonymous {
            let (linear, page_count) = (LinearIndex(pages.start), pages.end - pages.start);
            self.place(&Run { linear, page_count, action: Action::Replace });
            let shift = |run: &Range<u32>| start + run.start as usize..start + run.end as usize;
            let present: Vec<Range<usize>> = present.iter().map(shift).collect();
            self.lock_again(&locked, &(start..end), &present);
        }
        let runs = [first..pages.start, pages.start..pages.end, pages.end..after];
        self.seal_runs(&runs.map(|run| LinearIndex(run.start)..LinearIndex(run.end)));
        // The next visit finds nothing new in it.
        self.recount_locked(&locked);
        Ok(is_anonymous)
    }

    /// The runs of pages in a window that hold something: all that lie over slots, and what is there of
    /// the others. Relative to its first page.
    fn present_in(&self, pages: &Range<u32>) -> Result<Vec<Range<u32>>, AgentError> {
        let span = self.space.span(LinearIndex(pages.start), pages.end - pages.start);
        let mut present = vec![false; span.page_count() as usize];
        let visit = |first: u32, page_count: u32, kind| {
            let is_there = matches!(kind, PageKind::Private | PageKind::Swapped);
            present[first as usize..][..page_count as usize].fill(is_there);
        };
        self.process.pagemap.scan(span, visit).map_err(AgentError::Pagemap)?;
        let (start, end) = (LinearIndex(pages.start), LinearIndex(pages.end));
        for extent in self.extents.overlapping(start, end) {
            let first = (extent.linear.0 - pages.start) as usize;
            present[first..][..extent.page_count as usize].fill(true);
        }
        let mut next = 0;
        let runs = present.chunk_by(|one, other| one == other).filter_map(|run| {
            let start = next;
            next += count(run.len());
            run[0].then_some(start..next)
        });
        Ok(runs.collect())
    }
}

/// Stale extents that are moved together, and from which page the search goes on.
struct Window {
    pages: Option<Range<u32>>,
    next: Option<SearchAt>,
}

#[cfg(test)]
mod tests;
