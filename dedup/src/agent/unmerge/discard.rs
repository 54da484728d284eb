//! Giving a range of guest memory up: what a balloon, a free-page report and unplugged memory ask
//! for.

use std::ops::Range;
use std::{io, iter};

use super::leave::LEFT_PAGES;
use crate::LinearIndex;
use crate::agent::budget::Ask;
use crate::agent::budget::mappings::more_vmas_with;
use crate::agent::merge::runs::{Action, Run};
use crate::agent::positions::{count, linear_index};
use crate::agent::{Agent, AgentError};
use crate::extents::Extent;
use crate::mode::DedupMode;
use crate::protocol::{Broker, Outcome};

/// Pages that are given up at a time, where they lie over slots: the kernel frees them, and nobody in the
/// process can fault meanwhile.
const PART_PAGES: usize = 2048;

/// Mappings that are replaced at a time, at most.
const PART_MAPPINGS: usize = 256;

/// Pages that are given up at a time, at most, if hardly any are there.
const PART_SPAN: usize = 1 << 18;

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
    pub(crate) fn discard_end(&self, pages: &Range<usize>) -> usize {
        let Range { start, end } = *pages;
        let first = linear_index(start);
        let shared_end = self.shared.stretch(start, LEFT_PAGES, PART_PAGES);
        let near = self.extents.overlapping(first, linear_index(end.min(shared_end)));
        // Where a slot ends, so that one mapping can take the place of all.
        if let Some(last) = near.take(PART_MAPPINGS).last() {
            return last.end() as usize;
        }
        // Where nothing is known of pages, few are there, unless they are not to be folded.
        let is_known = self.mode == DedupMode::On && self.excluded.is_none();
        let span = if is_known { PART_SPAN } else { PART_PAGES };
        let known =
            [(&self.dirty, PART_PAGES), (&self.waiting, LEFT_PAGES), (&self.deferred, LEFT_PAGES)];
        let ends = known.map(|(set, most)| set.stretch(start, most, span));
        let end = ends.into_iter().fold(end, usize::min);
        let mut extents = self.extents.overlapping(first, linear_index(end));
        extents.next().map_or(end, |extent| extent.linear.0 as usize)
    }

    /// Whether a page lies over a slot. O(log extents).
    pub(crate) fn is_over_slot(&self, page: usize) -> bool {
        self.extents.slot(linear_index(page)).is_some()
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
        pages: Range<usize>,
        anew: bool,
    ) -> Result<DiscardReport, AgentError> {
        // Those that go as a whole need not be split.
        if !pages.is_empty() {
            self.split_huge_pages(pages.start..pages.start + 1);
            self.split_huge_pages(pages.end - 1..pages.end);
        }
        let (mut discarded, mut next) = (Vec::new(), pages.start);
        let mut outcomes = Vec::new();
        while next < pages.end {
            let span = self.space.span(linear_index(next), count(pages.end - next));
            let end = next + span.page_count() as usize;
            let backed: Vec<Extent> =
                self.extents.overlapping(linear_index(next), linear_index(end)).collect();
            let first = discarded.len();
            self.discard_side_by_side(next..end, anew && next == pages.start, &mut discarded);
            for part in &discarded[first..] {
                outcomes.append(&mut self.lose(part.clone()));
            }
            // Other pages were never reported to lie over slots.
            outcomes.extend(backed.into_iter().flat_map(|extent| self.unbacked(extent)));
            next = end;
        }
        let discarded_pages = discarded.iter().map(|part| part.len() as u64).sum();
        self.report(broker, outcomes)?;
        Ok(DiscardReport { discarded_pages, kept_pages: pages.len() as u64 - discarded_pages })
    }

    /// What there is to report of what lay over slots: the kernel may have replaced a part of it only.
    fn unbacked(&self, extent: Extent) -> Vec<Outcome> {
        let pages: Vec<LinearIndex> = (extent.linear.0..extent.end())
            .map(LinearIndex)
            .filter(|&linear| self.extents.slot(linear).is_none())
            .collect();
        let runs = pages.chunk_by(|one, next| one.offset(1) == *next);
        let unbacked = |run: &[LinearIndex]| Outcome::Unbacked {
            linear: run[0],
            page_count: count(run.len()),
        };
        runs.map(unbacked).collect()
    }

    /// Gives up pages whose addresses are consecutive, and notes those for which it was done.
    fn discard_side_by_side(
        &mut self,
        pages: Range<usize>,
        anew: bool,
        done: &mut Vec<Range<usize>>,
    ) {
        let (start, end) = (linear_index(pages.start), linear_index(pages.end));
        let over_slots = self.extents.overlapping(start, end);
        let mut over_slots: Vec<Range<usize>> =
            over_slots.map(|extent| extent.linear.0 as usize..extent.end() as usize).collect();
        let seams = self.seams.range(start..=end).map(|page| page.0 as usize);
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
        page.0 >= self.space.page_count()
            || self.space.piece(page).linear == page
            || !self.extents.joins(page)
            || self.seams.contains(&page)
    }

    /// Maps fresh memory over pages, side by side, where other mappings begin and end, so that none
    /// of those between is left. Returns where it did: nowhere if that would part mappings when there are
    /// none to spare, nor where the kernel refuses.
    fn map_anew(&mut self, pages: Range<usize>) -> Vec<Range<usize>> {
        let (linear, page_count) = (linear_index(pages.start), count(pages.len()));
        let run = Run { linear, page_count, action: Action::Replace };
        let mut planned = self.extents.within([run.with_neighbours()]);
        let more = more_vmas_with(&self.space, &mut planned, &run);
        if !self.budget.allows_at_all(&Ask { more, ..Ask::default() }) {
            return Vec::new();
        }
        if self.extents.overlapping(run.linear, run.end()).next().is_none() {
            // Frees the pages without the lock of the mappings held for writing. What lies over slots
            // would show them if no mapping were to be had then.
            if let Err(error) = self.space.span(linear, page_count).discard() {
                self.note_refusal(&pages, &error);
            }
        }
        let locked = self.locked_among(pages.clone());
        let replaced = match self.space.span(linear, page_count).map_anonymous() {
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
            self.lock_again(&locked, &part.positions(), &[]);
        }
        // Also a refused mapping may have parted the one that it was to replace.
        self.register_runs(&[run.linear..run.end()]);
        self.recount_locked(&locked);
        if self.seams.range(run.linear..=run.end()).next().is_some() {
            // Nothing else may leave a slot any more that would have them be looked for.
            self.stale.note_left(true);
        }
        replaced.iter().map(Run::positions).collect()
    }

    /// Gives back pages, side by side, that lie over no slot.
    fn discard_anonymous(&mut self, pages: Range<usize>, done: &mut Vec<Range<usize>>) {
        match self.space.span(linear_index(pages.start), count(pages.len())).discard() {
            Ok(()) => done.push(pages),
            Err(error) => self.note_refusal(&pages, &error),
        }
    }

    fn note_refusal(&mut self, pages: &Range<usize>, error: &io::Error) {
        log::debug!("VM {}: cannot discard {} pages: {error}", self.vm, pages.len());
        self.events.errors += 1;
    }
}
