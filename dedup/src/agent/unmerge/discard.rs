//! Giving a range of guest memory up, for a balloon, a free-page report or unplugged memory.

use std::ops::Range;
use std::{io, iter};

use super::leave::LEFT_PAGES;
use crate::LinearIndex;
use crate::agent::budget::Demand;
use crate::agent::budget::mappings::more_vmas_with;
use crate::agent::merge::runs::Run;
use crate::agent::{Agent, AgentError};
use crate::extents::Extent;
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};
use crate::types::count;

/// Pages that are given up at a time, where they lie over slots: the kernel frees them, and nobody in the
/// process can fault meanwhile.
const PART_PAGES: u32 = 2048;

/// Mappings that are replaced at a time, at most.
const PART_MAPPINGS: usize = 256;

/// Pages that are given up at a time, at most, if hardly any are there.
const PART_SPAN: u32 = 1 << 18;

/// What became of pages that were to be given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscardReport {
    /// Pages that read as zeroes and take no memory now.
    pub discarded_pages: u64,
    /// Pages that are as they were, because it would have taken more mappings than the budget has,
    /// or because the kernel refused.
    pub kept_pages: u64,
}

impl Agent {
    /// The end of the part of `pages` that is given up at a time, so that neither others' page faults
    /// nor requests wait for all of it. O(pages that are searched / 64 + mappings).
    pub(crate) fn discard_end(&self, pages: &Range<LinearIndex>) -> LinearIndex {
        let Range { start, end } = *pages;
        let shared_end = self.shared.stretch(start, LEFT_PAGES, PART_PAGES);
        let near = self.extents.overlapping(start, end.min(shared_end));
        // Where a slot ends, so that one mapping can take the place of all.
        if let Some(last) = near.take(PART_MAPPINGS).last() {
            return last.end();
        }
        // Where nothing is known of pages, few are there, unless they are not to be folded.
        let is_known = self.mode == DedupMode::On && self.excluded.is_none();
        let span = if is_known { PART_SPAN } else { PART_PAGES };
        let known =
            [(&self.dirty, PART_PAGES), (&self.offered, LEFT_PAGES), (&self.deferred, LEFT_PAGES)];
        let ends = known.map(|(set, most)| set.stretch(start, most, span));
        let end = ends.into_iter().fold(end, LinearIndex::min);
        let mut extents = self.extents.overlapping(start, end);
        extents.next().map_or(end, |extent| extent.linear)
    }

    /// Whether a page lies over a slot. O(log extents).
    pub(crate) fn is_over_slot(&self, page: LinearIndex) -> bool {
        self.extents.slot(page).is_some()
    }

    /// Takes pages out of the trees and off their slots and gives their memory back; they read as
    /// zeroes until they are written. Their bytes are lost, and so is what is written to them
    /// meanwhile. Those before them are `anew` if they have just been given up, too, and got a new
    /// mapping. O(extents in the range + pages).
    ///
    /// # Errors
    ///
    /// When the broker fails; the pages are discarded all the same.
    pub(crate) fn discard(
        &mut self,
        broker: &mut dyn Broker,
        pages: Range<LinearIndex>,
        anew: bool,
    ) -> Result<DiscardReport, AgentError> {
        // Those that go as a whole need not be split.
        let mut ends = pages.clone().pages();
        for page in ends.next().into_iter().chain(ends.next_back()) {
            self.split_huge_pages(page.run(1));
        }
        let (mut discarded, mut rest) = (Vec::new(), pages.clone());
        let mut outcomes = Vec::new();
        while !rest.is_empty() {
            let span = self.space.span(rest.start, rest.page_count());
            let here = rest.first(span.page_count());
            let backed: Vec<Extent> = self.extents.overlapping(here.start, here.end).collect();
            let (first, anew) = (discarded.len(), anew && here.start == pages.start);
            rest.start = here.end;
            self.discard_side_by_side(here, anew, &mut discarded);
            for part in &discarded[first..] {
                outcomes.append(&mut self.lose(part.clone()));
            }
            // Other pages were never reported to lie over slots.
            outcomes.extend(backed.into_iter().flat_map(|extent| self.unbacked(extent)));
        }
        let discarded_pages = discarded.iter().map(|part| u64::from(part.page_count())).sum();
        self.report(broker, outcomes)?;
        let kept_pages = u64::from(pages.page_count()) - discarded_pages;
        Ok(DiscardReport { discarded_pages, kept_pages })
    }

    /// What there is to report of what lay over slots: the kernel may have replaced a part of it only.
    fn unbacked(&self, extent: Extent) -> Vec<Outcome> {
        let pages = extent.range().pages();
        let pages: Vec<LinearIndex> =
            pages.filter(|&linear| self.extents.slot(linear).is_none()).collect();
        let runs = pages.chunk_by(|one, next| one.offset(1) == *next);
        runs.map(|run| Outcome::unbacked(&run[0].run(count(run.len())))).collect()
    }

    /// Gives up pages whose addresses are consecutive, and notes those for which it was done.
    fn discard_side_by_side(
        &mut self,
        pages: Range<LinearIndex>,
        anew: bool,
        done: &mut Vec<Range<LinearIndex>>,
    ) {
        let Range { start, end } = pages;
        let over_slots = self.extents.overlapping(start, end);
        let mut over_slots: Vec<Range<LinearIndex>> =
            over_slots.map(|extent| extent.range()).collect();
        let seams = self.seams.range(start..=end).copied();
        let ends = over_slots.iter().flat_map(|part| [part.start, part.end]).chain(seams);
        let (first, last) = ends.fold((pages.end, pages.start), |(first, last), page| {
            (first.min(page), last.max(page))
        });
        let is_last = self.begins_mapping(end);
        let is_parted = first < last || anew && is_last && self.seams.contains(&start);
        // One with the mapping before, or all of the mappings at either end: what is left of memory that was
        // moved might not be joined with what is new.
        let first = if anew || self.begins_mapping(start) { pages.start } else { first };
        let last = if is_last { pages.end } else { last };
        if is_parted {
            let replaced = self.map_anew(first..last);
            if !replaced.is_empty() {
                done.extend(replaced);
                over_slots.clear();
                over_slots.push(first..last);
            }
        }
        // The others keep their mapping: a new one might not be joined with what is around it.
        let mut next = pages.start;
        for Range { start, end } in over_slots.into_iter().chain(iter::once(pages.end..pages.end)) {
            if next < start {
                self.discard_anonymous(next..start, done);
            }
            next = end;
        }
    }

    /// Whether the kernel begins a mapping at a page, or may not join it with the one before.
    fn begins_mapping(&self, page: LinearIndex) -> bool {
        page >= self.space.end()
            || self.space.piece(page).linear == page
            || !self.extents.joins(page)
            || self.seams.contains(&page)
    }

    /// Maps fresh memory over pages, side by side, where other mappings begin and end, so that none
    /// of those between is left. Returns where it did: nowhere if that would part mappings when there are
    /// none to spare, nor where the kernel refuses.
    fn map_anew(&mut self, pages: Range<LinearIndex>) -> Vec<Range<LinearIndex>> {
        let run = Run::replacing(&pages);
        let mut planned = self.extents.within([run.with_neighbours()]);
        let more = more_vmas_with(&self.space, &mut planned, &run);
        if !self.budget.allows_at_all(&Demand { more, ..Demand::default() }) {
            return Vec::new();
        }
        if self.extents.overlapping(run.linear, run.end()).next().is_none() {
            // Frees the pages without the lock of the mappings held for writing. What lies over slots
            // would show them if no mapping were to be had then.
            if let Err(error) = self.space.span(run.linear, run.page_count).discard() {
                self.note_refusal(&pages, &error);
            }
        }
        let locked = self.locked_among(pages.clone());
        let replaced = match self.space.span(run.linear, run.page_count).map_anonymous() {
            Ok(()) => vec![run],
            Err(error) => {
                self.note_refusal(&pages, &error.source);
                let parts = error.replaced.into_iter();
                parts.map(|part| run.part(part.start, part.end - part.start)).collect()
            }
        };
        for part in &replaced {
            self.place(part);
            // As `MADV_DONTNEED_LOCKED` leaves it: what is not there is locked when it is used.
            self.lock_again(&locked, &part.range(), &[]);
        }
        // Also a refused mapping may have parted the one that it was to replace.
        self.register_runs(&[run.range()]);
        self.recount_locked(&locked);
        if self.seams.range(run.linear..=run.end()).next().is_some() {
            // Nothing else may leave a slot any more that would have them be looked for.
            self.stale.note_left(true);
        }
        replaced.iter().map(Run::range).collect()
    }

    /// Gives back pages, side by side, that lie over no slot.
    fn discard_anonymous(&mut self, pages: Range<LinearIndex>, done: &mut Vec<Range<LinearIndex>>) {
        match self.space.span(pages.start, pages.page_count()).discard() {
            Ok(()) => done.push(pages),
            Err(error) => self.note_refusal(&pages, &error),
        }
    }

    fn note_refusal(&mut self, pages: &Range<LinearIndex>, error: &io::Error) {
        log::debug!("VM {}: cannot discard {} pages: {error}", self.vm, pages.page_count());
        self.events.errors += 1;
    }
}
