//! Pages that would be shared were there mappings to spare.
//!
//! They are tried again when what is in use has changed (`retry`). While nothing changes, they cost nothing.

use super::mappings::BudgetShare;
use super::retry::Retry;
use super::{BudgetState, Lack};
use crate::LinearIndex;
use crate::agent::Agent;
use crate::agent::merge::runs::Run;
use crate::mode::DedupMode;
use crate::page_range::PageRange;

/// What is known of pages that were deferred.
#[derive(Debug, Default)]
pub(in crate::agent) struct Deferral {
    /// What pages have been deferred for want of, although others have more than their share.
    pub(super) lack: Lack,
    /// How often mappings had been given back for such VMs when it was last looked at.
    reclaims_seen: u64,
    /// Whether it is lacked by pages that have not changed since somebody began to wait for folding to settle.
    is_unchanged: bool,
    /// What the budget was when they were last tried.
    pub(super) tried_at: Option<BudgetState>,
    /// The most that was committed when some were deferred since, be it pledged by others only.
    pub(super) deferred_at: u64,
    /// Whether some were tried again since it was last looked at.
    pub(super) has_tried: bool,
    /// How many times as many runs were to be tried as there were mappings for when some were last.
    pub(super) factor: u32,
    /// How many pages were to be tried at most when some were last.
    pub(super) most_pages: u32,
    /// The page from which the search for some goes on; the first one, if it is over.
    pub(super) next: LinearIndex,
    /// Those that this visit tries again, if it does any.
    pub(super) retry: Option<Box<Retry>>,
}

impl Agent {
    /// Defers a run until it is affordable, which it is not with `planned` mappings more. Pages that share a
    /// slot, and were to share another, stay where they are.
    pub(in crate::agent) fn defer(&mut self, run: &Run, planned: i64) {
        let committed = self.budget.committed().saturating_add_signed(planned);
        self.deferral.deferred_at = self.deferral.deferred_at.max(committed);
        let mut has_deferred = false;
        for page in run.range().pages().filter(|&page| !self.shared.contains(page)) {
            self.deferred.insert(page);
            has_deferred = true;
        }
        self.events.budget_skips += u64::from(run.page_count);
        if has_deferred && self.deferral.lack == Lack::Nothing && self.lack() != Lack::Nothing {
            // The next pass has others know, which it does of pages that wait and not of those that stay.
            self.note_work(run.range());
        }
    }

    /// What the VM lacks of its share, if it defers runs.
    fn lack(&self) -> Lack {
        self.budget.lack(self.vmas, self.share == BudgetShare::Counted)
    }

    /// Has the budget know whether runs have been deferred although the VM has not got its share, while it
    /// `is_scanning`. O(pages / 64) where some are deferred.
    pub(in crate::agent) fn note_held_back(&mut self, is_scanning: bool) {
        let defers = is_scanning && self.mode == DedupMode::On && !self.deferred.is_empty();
        let lack = if defers { self.lack() } else { Lack::Nothing };
        let reclaims = self.budget.reclaims();
        let is_progress = reclaims != self.deferral.reclaims_seen || lack != self.deferral.lack;
        self.deferral.reclaims_seen = reclaims;
        self.deferral.is_unchanged =
            lack != Lack::Nothing && !self.deferred.is_subset(&self.backlog.changed_since_mark);
        if self.deferral.is_unchanged && is_progress {
            // Others may give back what its pages are deferred for want of.
            self.backlog.pages += 1;
        }
        self.set_lack(lack);
    }

    /// Whether others are to give back what pages lack that have not changed since the mark.
    pub(crate) fn is_held_back(&self) -> bool {
        self.deferral.lack != Lack::Nothing && self.deferral.is_unchanged
    }

    pub(in crate::agent) fn set_lack(&mut self, lack: Lack) {
        let before = std::mem::replace(&mut self.deferral.lack, lack);
        if before != lack {
            self.budget.count_lack(self.vm, before, lack);
            self.count_mappings(self.vmas);
        }
    }
}
