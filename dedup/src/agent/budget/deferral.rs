//! Pages that would be shared were there mappings to spare.
//!
//! They are tried again when what is in use has changed, and no more of them than there is room for: the
//! longest runs first. While nothing changes, they cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::mappings::BudgetShare;
use super::{BudgetState, Lack, VMAS_PER_PAIR};
use crate::LinearIndex;
use crate::agent::merge::runs::Run;
use crate::agent::stretch::WORD_PAGES;
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};
use crate::types::count;

/// Runs of pages that were put off, and pages, that a pass goes through at most, in one piece: a quarter of
/// what a step may do, which is what each has left that has not ended.
const MAX_RUNS: usize = 1 << 14;
const MAX_PAGES: u32 = 1 << 20;

/// Sets that are gone through for them: each word of theirs is counted as a step's work.
const SETS_TRIED: u32 = 4;

/// Where the search for pages to try again stands.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::agent) struct Deferral {
    /// What pages have been put off for, although others have more than their share.
    pub(super) lack: Lack,
    /// How often mappings had been given back for such VMs when it was last looked at.
    reclaims_seen: u64,
    /// What the budget was when they were last tried.
    tried_at: Option<BudgetState>,
    /// The most that was committed when some were put off since, be it set aside for others only.
    put_off_at: u64,
    /// Whether some were tried again since it was last looked at.
    has_tried: bool,
    /// The page from which the search goes on; the first one, if it is over.
    next: LinearIndex,
}

impl Agent {
    /// Puts a run off until it is affordable, which it is not with `planned` mappings more. Pages that share a
    /// slot, and were to share another, stay where they are.
    pub(in crate::agent) fn defer(&mut self, run: &Run, planned: i64) {
        let committed = self.budget.committed().saturating_add_signed(planned);
        self.deferral.put_off_at = self.deferral.put_off_at.max(committed);
        let mut has_put_off = false;
        for page in run.range().pages().filter(|&page| !self.shared.contains(page)) {
            self.deferred.insert(page);
            has_put_off = true;
        }
        self.events.budget_skips += u64::from(run.page_count);
        if has_put_off && self.deferral.lack == Lack::Nothing && self.lack() != Lack::Nothing {
            // The next pass has others know, which it does of pages that wait and not of those that stay.
            self.note_work(run.range());
        }
    }

    /// What the VM lacks of its share, if it puts off runs.
    fn lack(&self) -> Lack {
        self.budget.lack(self.vmas, self.share == BudgetShare::Counted)
    }

    /// Has the budget know whether runs have been put off although the VM has not got its share, while it
    /// `is_scanning`. O(pages / 64) where some are deferred.
    pub(in crate::agent) fn note_held_back(&mut self, is_scanning: bool) {
        let puts_off = is_scanning && self.mode == DedupMode::On && !self.deferred.is_empty();
        let lack = if puts_off { self.lack() } else { Lack::Nothing };
        let reclaims = self.budget.reclaims();
        let is_progress = reclaims != self.deferral.reclaims_seen || lack != self.deferral.lack;
        self.deferral.reclaims_seen = reclaims;
        if lack != Lack::Nothing
            && is_progress
            && !self.deferred.is_subset(&self.backlog.changed_since_mark)
        {
            // Others may give back what its pages are put off for.
            self.backlog.pages += 1;
        }
        self.set_lack(lack);
    }

    pub(in crate::agent) fn set_lack(&mut self, lack: Lack) {
        let before = std::mem::replace(&mut self.deferral.lack, lack);
        if before != lack {
            self.budget.count_lack(self.vm, before, lack);
            self.count_mappings(self.vmas);
        }
    }

    /// Has this pass look at pages again that had been put off, as many as there is room for.
    /// O(1) while nothing has changed.
    ///
    /// # Errors
    ///
    /// When the broker fails. The pages are looked at all the same.
    pub(in crate::agent) fn requeue_deferred(
        &mut self,
        broker: &mut dyn Broker,
    ) -> Result<(), AgentError> {
        let state = self.budget.state(self.vmas);
        let is_as_before = self.deferral.tried_at.replace(state) == Some(state);
        let put_off_at = std::mem::take(&mut self.deferral.put_off_at);
        let has_grown = self.budget.committed() < put_off_at;
        // None of those that were tried was put off: their twins were not there, and others may have theirs.
        let is_room_left = std::mem::take(&mut self.deferral.has_tried) && put_off_at == 0;
        if self.deferral.next == LinearIndex(0) && is_as_before && !has_grown && !is_room_left {
            return Ok(());
        }
        // By the runs that they form, which are the longest that they can be merged in.
        let mut longest = BinaryHeap::new();
        let room = usize::try_from(self.budget.room(self.vmas, u32::MAX) / VMAS_PER_PAIR);
        let limit = room.unwrap_or(usize::MAX).min(MAX_RUNS);
        if limit == 0 {
            self.deferral.next = LinearIndex(0);
            return Ok(());
        }
        let within = (self.deferral.next..self.deferred.end()).first(MAX_PAGES);
        self.work.words += u64::from(SETS_TRIED * within.page_count() / WORD_PAGES);
        let mut runs = self.deferred.runs_within(within.clone());
        let mut next = within.end;
        for run in runs.by_ref().take(MAX_RUNS) {
            self.work.tried_runs += 1;
            next = run.end;
            longest.push(Reverse((run.page_count(), run.start)));
            if longest.len() > limit {
                longest.pop();
            }
        }
        if runs.next().is_none() {
            next = within.end;
        }
        drop(runs);
        self.deferral.next = if next < self.deferred.end() { next } else { LinearIndex(0) };
        let (mut tried, mut outcomes) = (0, Vec::new());
        // The rest of a run is tried by later passes. Little more than is mapped at once: what follows would be a run
        // of its own to whoever pays for it.
        let most = self.work.room_to_note();
        for Reverse((page_count, start)) in longest.into_sorted_vec() {
            let room = self.budget.room(self.vmas, page_count);
            let left = most.saturating_sub(count(outcomes.len()));
            if tried >= room || left == 0 {
                break;
            }
            tried += VMAS_PER_PAIR;
            self.deferral.has_tried = true;
            let pages = start.run(page_count.min(left));
            self.deferred.remove_range(pages.clone());
            self.dirty.insert_range(pages.clone());
            self.note_work(pages.clone());
            // Some may be in the trees, for another to fill a slot for them.
            outcomes.extend(pages.pages().map(|linear| Outcome::Left { linear }));
        }
        self.work.noted_pages += outcomes.len() as u64;
        self.report(broker, outcomes)
    }
}
