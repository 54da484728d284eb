//! Pages that were deferred and are tried again: no more than there is room for, the longest runs first.
//!
//! How many pages that is depends on how they lie in the VMs that they have their twins in, which only trying shows:
//! each may need mappings, or a million of them none. So as many are tried at first as there is room for if each needs
//! one, and twice as many by each pass after one that has deferred none of them; and twice as many runs, if nothing at
//! all came of it, as it does where the twins' VMs have no mappings left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::VMAS_PER_PAIR;
use crate::LinearIndex;
use crate::agent::stretch::WORD_PAGES;
use crate::agent::{Agent, AgentError};
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};
use crate::types::count;

/// Runs of pages that were deferred, and pages, that a pass goes through at most, in one piece: a quarter of
/// what a step may do, which is what each has left that has not ended.
const MAX_RUNS: usize = 1 << 14;
const MAX_PAGES: u32 = 1 << 20;

/// Pages that a pass tries at least, if there are so many in the runs.
const LEAST_PAGES: u32 = 1 << 11;

/// Sets that are gone through for them: each word of theirs is counted as a step's work.
const SETS_TRIED: u32 = 4;

/// What a visit tries again.
#[derive(Debug)]
pub(super) struct Retry {
    /// Runs that have not been tried, the longest last.
    runs: Vec<Range<LinearIndex>>,
    /// What is left of the one that is being tried, or about to be.
    rest: Option<Range<LinearIndex>>,
    /// Mappings that those which were tried may take.
    tried: u64,
    /// How many times as many may be tried as there are mappings for.
    factor: u32,
    /// How many pages may still be tried.
    left_pages: u32,
}

impl Agent {
    /// Begins to [look again](Self::retry_deferred) at pages that had been deferred, if anything has changed since they
    /// were. O(1) while nothing has.
    pub(in crate::agent) fn begin_retry(&mut self) {
        self.deferral.retry = None;
        let state = self.budget.state(self.vmas);
        let is_as_before = self.deferral.tried_at.replace(state) == Some(state);
        let deferred_at = std::mem::take(&mut self.deferral.deferred_at);
        let has_grown = self.budget.committed() < deferred_at;
        // None of those that were tried was deferred: their twins were not there, and others may have theirs.
        let is_room_left = std::mem::take(&mut self.deferral.has_tried) && deferred_at == 0;
        if self.deferral.next == LinearIndex(0) && is_as_before && !has_grown && !is_room_left {
            return;
        }
        let is_in_vain = is_room_left && is_as_before;
        let factor = if is_in_vain { self.deferral.factor.saturating_mul(2) } else { 1 };
        self.deferral.factor = factor;
        let room = self.budget.room(self.vmas, u32::MAX);
        let most_runs = (room / VMAS_PER_PAIR).saturating_mul(factor.into());
        let most_runs = usize::try_from(most_runs).unwrap_or(usize::MAX).min(MAX_RUNS);
        if most_runs == 0 {
            self.deferral.next = LinearIndex(0);
            return;
        }
        let before = if is_room_left { self.deferral.most_pages } else { 0 };
        let least = u32::try_from(room).unwrap_or(u32::MAX).max(LEAST_PAGES);
        let left_pages = before.saturating_mul(2).max(least);
        self.deferral.most_pages = left_pages;
        let runs = self.longest_deferred(most_runs);
        if !runs.is_empty() {
            let retry = Retry { runs, rest: None, tried: 0, factor, left_pages };
            self.deferral.retry = Some(Box::new(retry));
        }
    }

    /// Leaves those where they are that were deferred and that this visit was to look at again; a later one tries
    /// them, though nothing may have changed by then. O(1).
    pub(crate) fn end_retry(&mut self) {
        if self.deferral.retry.take().is_some() {
            self.deferral.tried_at = None;
        }
    }

    /// The longest runs of those that were deferred, which are the longest that they can be merged in, in a part of the
    /// memory; the longest last.
    fn longest_deferred(&mut self, most_runs: usize) -> Vec<Range<LinearIndex>> {
        let mut longest = BinaryHeap::new();
        let within = (self.deferral.next..self.deferred.end()).first(MAX_PAGES);
        self.work.words += u64::from(SETS_TRIED * within.page_count() / WORD_PAGES);
        let mut runs = self.deferred.runs_within(within.clone());
        let mut next = within.end;
        for run in runs.by_ref().take(MAX_RUNS) {
            self.work.tried_runs += 1;
            next = run.end;
            longest.push(Reverse((run.page_count(), run.start)));
            if longest.len() > most_runs {
                longest.pop();
            }
        }
        if runs.next().is_none() {
            next = within.end;
        }
        self.deferral.next = if next < self.deferred.end() { next } else { LinearIndex(0) };
        let runs = longest.into_sorted_vec().into_iter().rev();
        runs.map(|Reverse((page_count, start))| start.run(page_count)).collect()
    }

    /// Has this pass look at the next part of the pages again that had been deferred, as many as there is room for;
    /// returns whether there were any. O(pages).
    ///
    /// # Errors
    ///
    /// When the broker fails. The pages are looked at all the same.
    pub(in crate::agent) fn retry_deferred(
        &mut self,
        broker: &mut dyn Broker,
    ) -> Result<bool, AgentError> {
        let Some(mut retry) = self.deferral.retry.take() else { return Ok(false) };
        let mut outcomes = Vec::new();
        let most = self.work.room_to_note();
        let mut run = retry.rest.take();
        while let Some(pages) = run.take().or_else(|| self.next_retried(&mut retry)) {
            let left = most.saturating_sub(count(outcomes.len()));
            if left == 0 {
                retry.rest = Some(pages);
                break;
            }
            let some = pages.first(left.min(retry.left_pages));
            retry.left_pages -= some.page_count();
            run = Some(some.end..pages.end).filter(|rest| !rest.is_empty() && retry.left_pages > 0);
            // But for those that were taken in, or given up, since the visit began.
            let deferred: Vec<_> = self.deferred.runs_within(some).collect();
            for pages in deferred {
                self.deferral.has_tried = true;
                self.deferred.remove_range(pages.clone());
                self.dirty.insert_range(pages.clone());
                self.note_work(pages.clone());
                // Some may be in the trees, for another to fill a slot for them.
                outcomes.extend(pages.pages().map(|linear| Outcome::Retried { linear }));
            }
        }
        self.work.noted_pages += outcomes.len() as u64;
        self.deferral.retry = Some(retry).filter(|retry| retry.rest.is_some());
        self.report(broker, outcomes)?;
        Ok(true)
    }

    /// The next run that is to be tried, if there is room for it.
    fn next_retried(&self, retry: &mut Retry) -> Option<Range<LinearIndex>> {
        let run = retry.runs.pop()?;
        let room = self.budget.room(self.vmas, run.page_count());
        if retry.left_pages == 0 || retry.tried >= room.saturating_mul(retry.factor.into()) {
            retry.runs.clear();
            return None;
        }
        retry.tried += VMAS_PER_PAIR;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use crate::agent::ProcessMemory;
    use crate::agent::tests::World;
    use crate::{LinearIndex, VmId};

    // Two pages were tried in each pass, while the mappings that there were could be of use to neither.
    #[test]
    fn twice_as_many_runs_are_tried_after_a_pass_in_which_nothing_came_of_those_that_were() {
        let process = Arc::new(ProcessMemory::open(true).unwrap());
        let mut world = World::new(&process, 256, 0..0);
        let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
        agent.budget.pool.limit.store(8, Ordering::Relaxed);
        for page in (0..24).step_by(2) {
            agent.deferred.insert(LinearIndex(page));
        }
        let tried = [0; 4].map(|_| {
            let before = agent.deferred.count();
            agent.begin_retry();
            while agent.retry_deferred(&mut world.broker).unwrap() {}
            before - agent.deferred.count()
        });
        assert_eq!(tried, [1, 2, 4, 5]);
    }

    #[test]
    fn what_a_visit_was_to_try_and_did_not_is_tried_by_a_later_one_though_nothing_has_changed() {
        let process = Arc::new(ProcessMemory::open(true).unwrap());
        let mut world = World::new(&process, 256, 0..0);
        let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
        agent.deferred.insert(LinearIndex(0));
        agent.begin_retry();
        agent.end_retry();
        assert!(!agent.retry_deferred(&mut world.broker).unwrap(), "not by this one");
        agent.begin_retry();
        assert!(agent.retry_deferred(&mut world.broker).unwrap());
        assert!(agent.deferred.is_empty());
    }
}
