//! Pages over slots that become ordinary anonymous memory, one mapping with what is around them.

use std::ops::Range;
use std::sync::Arc;

use crate::LinearIndex;
use crate::agent::merge::runs::Run;
use crate::agent::{Agent, AgentError};
use crate::page_range::PageRange;
use crate::sys::{MAX_MOVE_PAGES, MakeAnonymousError, PageKind};
use crate::types::count;

/// Anonymous pages between two extents, at most, that are moved with them, so that one move joins all.
pub(in crate::agent) const MAX_GAP_PAGES: u32 = 8;

/// Pages of stale extents that are moved at once, at most: half as many as can be, in about a millisecond.
pub(in crate::agent) const STALE_PAGES: u32 = MAX_MOVE_PAGES / 2;

/// Extents that are replaced for what mapping a run costs.
const EXTENTS_PER_RUN: u64 = 2;

impl Agent {
    /// The end of the pages from `first` on that can be moved together: they lie side by side, and are to have
    /// one policy.
    pub(in crate::agent) fn move_end(&self, first: LinearIndex) -> LinearIndex {
        let piece_end = self.space.piece(first).end();
        piece_end.min(self.policy_end(first)).min(first.offset(MAX_MOVE_PAGES))
    }

    /// Whether any page shares its slot. O(pages / 64).
    pub(in crate::agent) fn is_any_shared(&self, pages: &Range<LinearIndex>) -> bool {
        self.shared.runs_within(pages.clone()).next().is_some()
    }

    /// Pages that lie side by side, in parts that can be [made anonymous](Self::make_anonymous) at once.
    pub(in crate::agent) fn parts_to_move(pages: &Range<LinearIndex>) -> Vec<Range<LinearIndex>> {
        let starts = pages.clone().pages().step_by(MAX_MOVE_PAGES as usize);
        starts.map(|start| (start..pages.end).first(MAX_MOVE_PAGES)).collect()
    }

    /// Has pages, of which none shares a slot, be anonymous memory, one mapping with what is around
    /// them. Returns whether they are.
    pub(in crate::agent) fn make_anonymous(
        &mut self,
        pages: &Range<LinearIndex>,
    ) -> Result<bool, AgentError> {
        let process = Arc::clone(&self.process);
        let Some(mover) = process.page_mover() else { return Ok(false) };
        self.split_huge_pages(pages.clone());
        let present = self.present_in(pages)?;
        let extents = self.extents.overlapping(pages.start, pages.end);
        self.work.mapped_runs += extents.count() as u64 / EXTENTS_PER_RUN;
        let piece = self.space.piece(pages.start);
        let is_anonymous = |page: &LinearIndex| self.extents.slot(*page).is_none();
        let before = (piece.linear..pages.start).pages().next_back().filter(is_anonymous);
        let first = before.unwrap_or(pages.start);
        let next = Some(pages.end).filter(|&page| page < piece.end() && is_anonymous(&page));
        let after = next.map_or(pages.end, |page| page.offset(1));
        let around = self.space.span(first, (first..after).page_count());
        let window = pages.start.0 - first.0..pages.end.0 - first.0;
        // What is moved together is put in one place: where policies differ, anywhere.
        let has_one = self.policy_end(pages.start) >= pages.end;
        let policy = self.policy(pages.start).filter(|_| has_one);
        let locked = self.locked_among(pages.clone());
        let result = mover.make_anonymous(&process.uffd, around, window, &present, policy);
        self.move_delay.note(result.is_ok());
        if let Err(error) = &result {
            log::debug!("VM {}: {error}: {:?}", self.vm, std::error::Error::source(error));
            self.events.errors += 1;
        }
        let is_anonymous = !matches!(result, Err(MakeAnonymousError::Kept(_)));
        if is_anonymous {
            self.place(&Run::replacing(pages));
            let shift =
                |run: &Range<u32>| pages.start.offset(run.start)..pages.start.offset(run.end);
            let present: Vec<Range<LinearIndex>> = present.iter().map(shift).collect();
            self.lock_again(&locked, pages, &present);
        }
        self.register_runs(&[first..pages.start, pages.clone(), pages.end..after]);
        // The next visit finds nothing new in it.
        self.recount_locked(&locked);
        Ok(is_anonymous)
    }

    /// The runs of pages in a window that hold something: all that lie over slots, and what is there of
    /// the others. Relative to its first page.
    fn present_in(&self, pages: &Range<LinearIndex>) -> Result<Vec<Range<u32>>, AgentError> {
        let span = self.space.span(pages.start, pages.page_count());
        let mut present = vec![false; span.page_count() as usize];
        let visit = |first: u32, page_count: u32, kind| {
            let is_there = matches!(kind, PageKind::Private | PageKind::Swapped);
            let found = pages.start.offset(first).run(page_count);
            present[pages.offsets_of(&found)].fill(is_there);
        };
        self.process.pagemap.scan(span, visit).map_err(AgentError::Pagemap)?;
        for extent in self.extents.overlapping(pages.start, pages.end) {
            present[pages.offsets_of(&extent.range())].fill(true);
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
