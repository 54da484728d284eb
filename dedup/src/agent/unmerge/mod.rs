//! Giving pages their own memory again, a batch at a time.
//!
//! Nothing is remembered between batches but where to go on: what is still to be done can be seen
//! from the sets of pages, so the work can be interrupted, and called off, at any time.

pub(super) mod discard;
pub(super) mod leave;

use std::io;
use std::ops::Range;

use super::stretch::WORD_PAGES;
use super::{Agent, AgentError};
use crate::LinearIndex;
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::page_set::PageSet;
use crate::protocol::{Broker, Outcome};

/// Pages that are searched at a time, so that no set is searched to its end for every run of another.
const STRETCH_PAGES: u32 = 1 << 16;

/// Sets that are searched.
const SETS_UNMERGED: u32 = 4;

/// Pages of a run that are refused memory of their own one by one before the others are not tried: it is short.
const MAX_REFUSALS: usize = 8;

/// Pages that are given their own memory at a time, at most, when all leave the store.
const LEAVE_PAGES: u32 = 2048;

/// How far a VM is on its way off the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Pages may still share, or wait to.
    Pages,
    /// None does, and mappings of the store may be left.
    Mappings,
    /// Nothing of it lies over the store, unless the kernel does not let it.
    Over,
}

impl Agent {
    /// Whether pages are folded, or may be, that should not be, or mappings are to be given back. O(1).
    pub(crate) fn has_unwanted(&self) -> bool {
        self.has_unwanted || self.stale.is_under_way() || self.reclaim.is_under_way()
    }

    /// Pages that are to be given their own memory: all that share or are zero if `all`, and
    /// otherwise those that should not be folded. O(pages / 64).
    pub(crate) fn unwanted_count(&self, all: bool) -> u64 {
        let excluded =
            |set: &PageSet| self.excluded.as_ref().map_or(0, |excluded| set.count_common(excluded));
        let of = |set: &PageSet, whole| if whole { set.count() } else { excluded(set) };
        let all = all || self.mode == DedupMode::Off;
        u64::from(of(&self.shared, all || self.mode == DedupMode::Zero) + of(&self.zero, all))
    }

    /// Takes `limit` pages at most that are not to be folded, which is all of them if `all`,
    /// out of the trees, and gives each its own memory, as many as the step has room for; when there are none left, gives their mappings
    /// back, and those that are due to others. Returns how much of the limit that took: 0 when all is done.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory, or the broker fails. The pages that are left stay shared.
    pub(crate) fn unmerge(
        &mut self,
        broker: &mut dyn Broker,
        limit: u32,
        all: bool,
    ) -> Result<u32, AgentError> {
        let mut left = limit;
        while left > 0 && (all || self.has_unwanted) {
            let run = self.next_unwanted(left.min(self.work.room_to_copy()), all);
            let Some(run) = run else {
                if std::mem::take(&mut self.unmerge_cursor) == LinearIndex(0) {
                    self.has_unwanted = false;
                    self.stale.begin();
                    break;
                }
                continue;
            };
            left -= run.page_count();
            self.work.mapped_runs += 1;
            self.work.mapped_pages += u64::from(run.page_count());
            self.unmerge_cursor = run.end;
            self.unmerge_run(broker, run, |linear| Outcome::Left { linear })?;
            if self.work.is_enough() {
                return Ok(limit - left);
            }
        }
        left -= self.release_stale(broker, left)?;
        if all {
            self.reclaim.end();
        } else if !self.work.is_enough() {
            left -= self.reclaim(broker, left)?;
        }
        Ok(limit - left)
    }

    /// Begins to have every page lie in memory of its own, with the bytes that it has, and no mapping of the
    /// store be left: nothing of it is folded any more. O(pages / 64).
    pub(crate) fn begin_leaving_store(&mut self) {
        // What was given back because it is zero needs no memory to stay so.
        self.dirty.union_with(&self.zero);
        self.own_copies.forget(self.zero.whole());
        self.zero.clear();
        self.set_mode(DedupMode::Off);
    }

    /// Does the next part of that; the guest may run meanwhile. Returns how far it is then.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory, or the broker fails. The pages that are left stay shared.
    pub(crate) fn leave_store(
        &mut self,
        broker: &mut dyn Broker,
        at: Leaving,
    ) -> Result<Leaving, AgentError> {
        if self.is_in_trees() {
            self.unmerge(broker, LEAVE_PAGES, true)?;
            return Ok(Leaving::Pages);
        }
        if at == Leaving::Pages {
            self.stale.search_all();
        }
        if self.release_stale(broker, LEAVE_PAGES)? > 0 {
            return Ok(Leaving::Mappings);
        }
        Ok(Leaving::Over)
    }

    /// Ends the protection of memory that lies over no slot any more. Returns whether none of it does.
    /// O(mappings).
    pub(crate) fn end_protection(&mut self) -> bool {
        if !self.extents.is_empty() {
            return false;
        }
        for piece in self.space.pieces() {
            if let Err(error) = self.process.uffd.unregister(self.space.whole(piece)) {
                // Nothing of it is protected, so nobody can come to wait.
                log::debug!("VM {}: its memory stays registered: {error}", self.vm);
            }
        }
        true
    }

    /// The next run of pages, `limit` at most, that are folded, or wait to be, and should not be.
    fn next_unwanted(&mut self, limit: u32, all: bool) -> Option<Range<LinearIndex>> {
        let mut rest = self.unmerge_cursor..self.shared.end();
        while !rest.is_empty() {
            let stretch = rest.first(STRETCH_PAGES);
            let (run, passed) = self.unwanted_within(&stretch, all);
            self.work.tried_runs += passed;
            let searched = stretch.start..run.as_ref().map_or(stretch.end, |run| run.start);
            self.work.words += u64::from(SETS_UNMERGED * searched.page_count() / WORD_PAGES);
            if let Some(run) = run {
                return Some(run.first(limit));
            }
            rest.start = stretch.end;
        }
        None
    }

    /// The first run of such pages, all in the same state, within a stretch, and how many ranges that are
    /// opted out were passed over. O(ranges before it + pages before it / 64).
    fn unwanted_within(
        &self,
        stretch: &Range<LinearIndex>,
        all: bool,
    ) -> (Option<Range<LinearIndex>>, u64) {
        let (all, zero_only) = (all || self.mode == DedupMode::Off, self.mode == DedupMode::Zero);
        let sets = [
            (&self.shared, all || zero_only),
            (&self.offered, all || zero_only),
            (&self.deferred, all || zero_only),
            (&self.zero, all),
        ];
        let first_of = |within: &Range<LinearIndex>, is_whole: bool| {
            let sets = sets.iter().filter(|(_, whole)| *whole == is_whole);
            let runs = sets.filter_map(|(set, _)| set.runs_within(within.clone()).next());
            runs.min_by_key(|run| run.start)
        };
        let first = first_of(stretch, true);
        let end = first.as_ref().map_or(stretch.end, |run| run.start);
        let mut passed = 0;
        if sets.iter().all(|&(_, is_whole)| is_whole) {
            return (first, passed);
        }
        // Those that are opted out ascend: the first that has any has the first.
        let excluded = self.excluded.iter().flat_map(|set| set.runs_within(stretch.start..end));
        let of_excluded = excluded.inspect(|_| passed += 1).find_map(|run| first_of(&run, false));
        (of_excluded.or(first), passed)
    }

    /// Gives a run of pages, which are all in the same state, their own memory, and reports `outcome` of each.
    pub(super) fn unmerge_run(
        &mut self,
        broker: &mut dyn Broker,
        run: Range<LinearIndex>,
        outcome: impl Fn(LinearIndex) -> Outcome,
    ) -> Result<(), AgentError> {
        let (mut parts, mut failed) = (vec![run.clone()], None);
        if !self.offered.contains(run.start) && !self.deferred.contains(run.start) {
            if let Err(error) = self.make_private(&run) {
                failed = Some(error);
                // For one page whose memory has failed no other stays where it is.
                parts =
                    if run.page_count() > 1 { self.make_private_apart(&run) } else { Vec::new() };
                // Others may be private by now: the next pass finds out which from the page map.
                self.undrained_dirty.insert_range(run);
                self.events.errors += 1;
            }
            self.stale.note_left(true);
            self.events.unmerges +=
                parts.iter().map(|part| u64::from(part.page_count())).sum::<u64>();
        }
        for part in &parts {
            self.own_copies.forget(part.clone());
            self.shared.remove_range(part.clone());
            self.zero.remove_range(part.clone());
            self.offered.remove_range(part.clone());
            self.deferred.remove_range(part.clone());
            // What may be folded again one day is looked at then.
            self.dirty.insert_range(part.clone());
            self.note_work(part.clone());
        }
        let left = parts.into_iter().flat_map(PageRange::pages);
        self.report(broker, left.map(outcome).collect())?;
        failed.map_or(Ok(()), |error| Err(AgentError::Unmerge(error)))
    }

    /// Has every page of a run be private to the process.
    fn make_private(&self, run: &Range<LinearIndex>) -> io::Result<()> {
        self.space.spans(run.clone()).try_for_each(|(_, span)| span.populate_write())
    }

    /// Has the pages of a run be private one by one, as far as that goes; returns those that are.
    fn make_private_apart(&self, run: &Range<LinearIndex>) -> Vec<Range<LinearIndex>> {
        let (mut private, mut refusals) = (Vec::new(), 0);
        for page in run.clone().pages().map(|page| page.run(1)) {
            if self.make_private(&page).is_ok() {
                private.push(page);
                continue;
            }
            refusals += 1;
            if refusals == MAX_REFUSALS {
                break;
            }
        }
        private
    }
}
