//! Pages that would be shared were there mappings to spare.
//!
//! They are tried again when what is in use has changed, and no more of them than there is room for:
//! the longest runs first. While nothing changes, they cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Agent;
use super::runs::Run;

/// Mappings that a run takes on both sides, at most.
const VMAS_PER_PAIR: u64 = 4;

/// Runs of pages that were put off, and pages, that a pass goes through at most.
const MAX_RUNS: usize = 1 << 14;
const MAX_PAGES: usize = 1 << 20;

/// Where the search for pages to try again stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deferral {
    /// What was in use when they were last tried.
    tried_at: Option<u64>,
    /// The page from which the search goes on; the first one, if it is over.
    next: usize,
}

impl Agent {
    /// Puts a run off until it is affordable. Pages that share a slot, and were to share another, stay
    /// where they are.
    pub(super) fn defer(&mut self, run: &Run) {
        for page in run.positions().filter(|&page| !self.shared.contains(page)) {
            self.deferred.insert(page);
        }
        self.events.budget_skips += u64::from(run.count_pages);
    }

    /// Has this pass look at pages again that had been put off, as many as there is room for.
    /// O(1) while nothing has changed.
    pub(super) fn requeue_deferred(&mut self) {
        let in_use = self.budget.committed();
        if self.deferral.next == 0 && self.deferral.tried_at == Some(in_use) {
            return;
        }
        self.deferral.tried_at = Some(in_use);
        // By the runs that they form, which are the longest that they can be merged in.
        let mut longest = BinaryHeap::new();
        let room = usize::try_from(self.budget.room(self.vmas, u32::MAX) / VMAS_PER_PAIR);
        let limit = room.unwrap_or(usize::MAX).min(MAX_RUNS);
        let (from, len) = (self.deferral.next, self.deferred.len());
        let end = len.min(from.saturating_add(MAX_PAGES));
        if limit == 0 {
            self.deferral.next = 0;
            return;
        }
        let mut runs = self.deferred.runs_within(from..end);
        let mut next = end;
        for run in runs.by_ref().take(MAX_RUNS) {
            next = run.end;
            longest.push(Reverse((run.len(), run.start)));
            if longest.len() > limit {
                longest.pop();
            }
        }
        if runs.next().is_none() {
            next = end;
        }
        drop(runs);
        self.deferral.next = if next < len { next } else { 0 };
        let mut tried = 0;
        for Reverse((len, start)) in longest.into_sorted_vec() {
            let pages = u32::try_from(len).unwrap_or(u32::MAX);
            let room = self.budget.room(self.vmas, pages);
            if tried >= room {
                break;
            }
            tried += VMAS_PER_PAIR;
            self.deferred.remove_range(start..start + len);
            self.pending.insert_range(start..start + len);
            self.note_work(start..start + len);
        }
    }
}
