//! Collection of dirty pages from the change source, and their withdrawal from the broker, stretch by stretch.
//!
//! A page can leave its slot, or stop being zero, only by being written, so pages that the change
//! source names are looked at, and of the others a few each pass (`sweep`).

use std::ops::Range;

use crate::LinearIndex;
use crate::agent::stretch::{STRETCH_PAGES, WORD_PAGES};
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::page_set::PageSet;
use crate::protocol::{Broker, Outcome};
use crate::sys::PageKind;
use crate::types::count;

/// Runs that lie closer together than this are looked up in one system call.
const NEAR_PAGES: u32 = 64;

/// Changed pages that are taken in before it can be time to sleep, in as many steps as that takes: or else
/// `pages_to_scan` might make a pass slower than the guest.
const TAKEN_PAGES: u32 = 6 << 10;

/// Passing by so many pages that have not changed counts as looking at one.
const PASSED_PER_PAGE: u32 = 4096;

/// Taking in so many changed pages counts as looking at one.
const TAKEN_PER_PAGE: u32 = 4;

/// Sets that are gone through where a stretch is collected, and where one is taken in.
const SETS_COLLECTED: u32 = 4;
const SETS_TAKEN_IN: u32 = 8;

impl Agent {
    /// Finds out which pages changed since it last did. O(pages / 64).
    ///
    /// # Errors
    ///
    /// When the source fails; what it has named is kept.
    pub(crate) fn collect(&mut self) -> Result<(), AgentError> {
        self.visit.collected = LinearIndex(0);
        while self.visit.collected < self.dirty.end() && self.changes.is_on {
            self.collect_next()?;
        }
        Ok(())
    }

    /// Finds out which pages of the next stretch changed since it last did.
    fn collect_next(&mut self) -> Result<(), AgentError> {
        let rest = self.visit.collected..self.dirty.end();
        let within = rest.first(STRETCH_PAGES);
        let answered = self.changes.source.collect_part(within, &mut self.undrained_dirty);
        self.believe_own_pages_only();
        let end = answered.map_err(AgentError::Changes)?;
        let collected = rest.start..end.clamp(rest.start.offset(1), rest.end);
        self.visit.collected = collected.end;
        self.work.words += u64::from(SETS_COLLECTED * collected.page_count() / WORD_PAGES);
        // What is named for the first time since the mark changed before it.
        self.backlog.changed_since_mark.union_within(&self.undrained_dirty, collected.clone());
        self.backlog.changed_since_mark.subtract_within(&self.backlog.unmarked, collected.clone());
        self.backlog.unmarked.remove_range(collected.clone());
        if self.visit.is_sweeping && collected.contains(&self.swept) {
            self.visit.is_sweeping = false;
            self.sweep(collected.end)?;
        }
        Ok(())
    }

    /// Has the visit read the change source no further.
    pub(crate) fn leave_changes(&mut self) {
        self.visit.taken_in = self.dirty.end();
    }

    /// Has changes be tracked, or not: while the VM is off, and nothing of it is folded any more, they
    /// have no effect. What is written meanwhile is dirty when the VM is switched on.
    ///
    /// # Errors
    ///
    /// When the source cannot be switched on. Off, it may stay on.
    pub(in crate::agent) fn watch_as_needed(&mut self) -> Result<(), AgentError> {
        let is_needed = self.mode != DedupMode::Off || self.has_unwanted || self.is_folded();
        if is_needed == self.changes.is_on {
            return Ok(());
        }
        match self.changes.source.watch(is_needed) {
            Ok(()) => {
                self.changes.is_on = is_needed;
                // What was written before was not noticed, so nothing is known to be unchanged.
                self.visit.is_scanning = false;
            }
            Err(error) if is_needed => return Err(AgentError::Changes(error)),
            Err(error) => {
                log::warn!("VM {}: cannot stop looking for changes: {error}", self.vm);
                self.events.errors += 1;
            }
        }
        Ok(())
    }

    /// Drops what a change source names of pages that the VM does not have.
    fn believe_own_pages_only(&mut self) {
        if self.undrained_dirty.page_count() != self.dirty.page_count() {
            log::error!("VM {}: its change source replaced the set of changed pages", self.vm);
            self.events.errors += 1;
            // Whatever it has named is lost: any page may have changed.
            self.undrained_dirty = PageSet::full(self.dirty.page_count());
        } else if self.undrained_dirty.clear_beyond_end() {
            log::error!("VM {}: its change source names pages beyond the VM's end", self.vm);
            self.events.errors += 1;
        }
    }

    /// Takes back what was deferred and is to be looked at again, part by part; then takes in what changed in the next
    /// stretch, for which the change source is read: withdraws
    /// it from the trees, and adds what changed before and not since to the scan set. Returns how
    /// many pages' worth of looking it took, or `None` when there is none left.
    /// O(pages of the stretch / 64 + changed pages).
    ///
    /// # Errors
    ///
    /// When the source fails, the kernel does not report whose the pages are now, or the
    /// broker fails; the next pass takes in what this one has not.
    pub(crate) fn take_in(&mut self, broker: &mut dyn Broker) -> Result<Option<u32>, AgentError> {
        if self.retry_deferred(broker)? {
            return Ok(Some(0));
        }
        let start = self.visit.taken_in;
        if start >= self.undrained_dirty.end() {
            return Ok(None);
        }
        if start >= self.visit.collected {
            self.visit.collected = start;
            self.collect_next()?;
        }
        let most = self.work.room_to_note().min(TAKEN_PAGES);
        let span = STRETCH_PAGES.min((start..self.visit.collected).page_count());
        let within = start..self.undrained_dirty.stretch(start, most, span);
        let runs = self.undrained_dirty.runs_within(within.clone());
        let drained: Vec<LinearIndex> = runs.flat_map(PageRange::pages).collect();
        self.work.noted_pages += drained.len() as u64;
        self.work.words += u64::from(SETS_TAKEN_IN * within.page_count() / WORD_PAGES);
        let left = self.find_private(&drained)?;
        // Nothing can fail any more before the stretch has been taken in.
        self.visit.taken_in = within.end;
        let mut outcomes = Vec::new();
        let mut left = left.into_iter().peekable();
        for &linear in &drained {
            if self.shared.contains(linear) || self.zero.contains(linear) {
                if left.next_if_eq(&linear).is_none() {
                    continue;
                }
                self.own_copies.forget(linear.run(1));
                // A page of zeroes has no item to take back.
                self.zero.remove(linear);
                if self.shared.remove(linear) {
                    self.events.breaks += 1;
                    outcomes.push(Outcome::Broken { linear });
                }
            } else if self.offered.remove(linear) || self.deferred.remove(linear) {
                outcomes.push(Outcome::Left { linear });
            }
            self.dirty.insert(linear);
        }
        if !outcomes.is_empty() {
            self.stale.note_left(
                drained.iter().any(|&page| !self.backlog.changed_since_mark.contains(page)),
            );
        }
        if self.visit.is_scanning {
            self.scan_unchanged(within.clone());
        }
        self.undrained_dirty.remove_range(within.clone());
        self.report(broker, outcomes)?;
        self.visit.taken_since += count(drained.len());
        let taken = if self.visit.taken_since < TAKEN_PAGES {
            0
        } else {
            std::mem::take(&mut self.visit.taken_since)
        };
        Ok(Some(taken / TAKEN_PER_PAGE + within.page_count() / PASSED_PER_PAGE))
    }

    /// Adds those pages of a stretch to the scan set that changed before the last pass, and not since.
    fn scan_unchanged(&mut self, within: Range<LinearIndex>) {
        self.visit.scan_set.union_within(&self.dirty, within.clone());
        for other in
            [&self.undrained_dirty, &self.shared, &self.zero].into_iter().chain(&self.excluded)
        {
            self.visit.scan_set.subtract_within(other, within.clone());
        }
        for run in self.locked.runs() {
            self.visit.scan_set.remove_range(run.intersection(&within));
        }
    }

    /// The pages among those named, ascending, that were shared or zero and are the VM's own now, by
    /// the kernel's account.
    fn find_private(&self, drained: &[LinearIndex]) -> Result<Vec<LinearIndex>, AgentError> {
        let is_suspect =
            |&page: &LinearIndex| self.shared.contains(page) || self.zero.contains(page);
        let suspects = || drained.iter().copied().filter(is_suspect);
        let mut expected = suspects().peekable();
        let mut private = Vec::new();
        self.scan_runs(suspects().map(|page| page.run(1)), |pages, kind| {
            while expected.next_if(|&page| page < pages.start).is_some() {}
            while let Some(page) = expected.next_if(|&page| page < pages.end) {
                if matches!(kind, PageKind::Private | PageKind::Swapped) {
                    private.push(page);
                }
            }
        })?;
        Ok(private)
    }

    /// Calls `visit` with each page of `pages` in `within` that is there, and what stands behind it.
    pub(in crate::agent) fn scan_near(
        &self,
        pages: &PageSet,
        within: Range<LinearIndex>,
        mut visit: impl FnMut(LinearIndex, PageKind),
    ) -> Result<(), AgentError> {
        self.scan_runs(pages.runs_within(within), |found, kind| {
            found.pages().filter(|&page| pages.contains(page)).for_each(|page| visit(page, kind));
        })
    }

    /// Calls `visit` with the pages that are there, run by run, ascending, and what stands behind them:
    /// all of `runs`, which ascend, and perhaps some that lie between two that are near each other.
    pub(super) fn scan_runs(
        &self,
        runs: impl Iterator<Item = Range<LinearIndex>>,
        mut visit: impl FnMut(Range<LinearIndex>, PageKind),
    ) -> Result<(), AgentError> {
        for range in join_near(runs) {
            for (linear, span) in self.space.spans(range) {
                self.process
                    .pagemap
                    .scan(span, |first, page_count, kind| {
                        visit(linear.offset(first).run(page_count), kind);
                    })
                    .map_err(AgentError::Pagemap)?;
            }
        }
        Ok(())
    }
}

/// Runs, ascending, of which those that lie near each other are joined across the gap.
fn join_near(
    runs: impl Iterator<Item = Range<LinearIndex>>,
) -> impl Iterator<Item = Range<LinearIndex>> {
    let mut runs = runs.peekable();
    std::iter::from_fn(move || {
        let mut range = runs.next()?;
        while let Some(next) =
            runs.next_if(|next| (range.end..next.start).page_count() < NEAR_PAGES)
        {
            range.end = next.end;
        }
        Some(range)
    })
}
