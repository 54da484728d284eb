//! Pages over slots that become ordinary anonymous memory, one mapping with what is around them.

use std::ops::Range;
use std::sync::Arc;

use crate::LinearIndex;
use crate::agent::merge::runs::{Action, Run};
use crate::agent::positions::count;
use crate::agent::{Agent, AgentError};
use crate::sys::{MAX_MOVE_PAGES, MakeAnonymousError, PageKind};

/// Anonymous pages between two extents, at most, that are moved with them, so that one move joins all.
pub(in crate::agent) const MAX_GAP_PAGES: u32 = 8;

/// Pages of stale extents that are moved at once, at most: half as many as can be, in about a millisecond.
pub(in crate::agent) const STALE_PAGES: u32 = MAX_MOVE_PAGES / 2;

/// Extents that are replaced for what mapping a run costs.
const EXTENTS_PER_RUN: u64 = 2;

impl Agent {
    /// The end of the pages from `first` on that can be moved together: they lie side by side, and are to have
    /// one policy.
    pub(in crate::agent) fn move_end(&self, first: u32) -> u32 {
        let piece_end = self.space.piece(LinearIndex(first)).end().0;
        piece_end.min(self.policy_end(first)).min(first + MAX_MOVE_PAGES)
    }

    /// Whether any page shares its slot. O(pages / 64).
    pub(in crate::agent) fn is_any_shared(&self, pages: &Range<u32>) -> bool {
        let mut shared = self.shared.runs_within(pages.start as usize..pages.end as usize);
        shared.next().is_some()
    }

    /// Pages that lie side by side, in parts that can be [made anonymous](Self::make_anonymous) at once.
    pub(in crate::agent) fn parts_to_move(pages: Range<u32>) -> Vec<Range<u32>> {
        let starts = pages.clone().step_by(MAX_MOVE_PAGES as usize);
        starts.map(|start| start..pages.end.min(start + MAX_MOVE_PAGES)).collect()
    }

    /// Has pages, of which none shares a slot, be anonymous memory, one mapping with what is around
    /// them. Returns whether they are.
    pub(in crate::agent) fn make_anonymous(
        &mut self,
        pages: &Range<u32>,
    ) -> Result<bool, AgentError> {
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
        self.register_runs(&runs.map(|run| LinearIndex(run.start)..LinearIndex(run.end)));
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
