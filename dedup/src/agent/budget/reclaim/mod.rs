//! Mappings given back for VMs that have not got their share: what saves least for each of them.
//!
//! A VM that was alone may have been lent nearly all mappings. When others come and are held back, it
//! gives back what it has beyond its share, a part of it each pass: extents that few pages share are unmerged
//! and become ordinary anonymous memory, one mapping with what is around them. A page is kept whose only twin
//! belongs to a VM within its share, which would lose what it is entitled to. When nobody finds anything else, and a VM
//! has not got half of its share, others are entitled to half of theirs: one VM whose twins are in many could leave it
//! nothing.
//!
//! The pages count as deferred, and a VM beyond its share takes nothing at a cost while others lack theirs, so
//! what was given back is not merged again to be given back once more.

mod search;

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use crate::agent::budget::mappings::more_vmas_with;
use crate::agent::budget::stale_extents::PASSED_PER_PAGE;
use crate::agent::budget::{BudgetState, Entitlement};
use crate::agent::merge::runs::Run;
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};
use crate::sys::PageMover;
use crate::{LinearIndex, VmId};
use search::Window;

/// The part of what a VM has beyond its share that it gives back in a pass at most, and what it may in any:
/// several VMs that are beyond theirs take turns.
const PASS_DIVISOR: u64 = 4;
const LEAST_PER_PASS: u64 = 64;

/// Passes for which somebody who waits for folding to settle waits at most only because a VM is to give mappings back.
const MOST_DUE: u32 = 128;

/// Mappings that making an extent anonymous gives back, at most.
const VMAS_PER_EXTENT: u64 = 2;

/// Where giving back stands.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Reclaim {
    /// The page from which the search goes on, if there is one.
    next: Option<LinearIndex>,
    /// Mappings that may still be given back by this pass.
    quota: u64,
    /// Pages that share their slots in an extent that is given back, at most.
    worth: u32,
    /// The fewest in an extent that was passed over because there are more.
    next_worth: Option<u32>,
    /// What others keep, whose pages share slots with those that are given back.
    entitlement: Entitlement,
    /// What this one keeps for the sake of each of them, as far as the search has come.
    kept: BTreeMap<VmId, u64>,
    /// How often mappings had been given back when the search began, and what the budget was, until this one has given
    /// something back.
    reclaims: u64,
    began_at: Option<BudgetState>,
    /// The last search of everything that came to nothing.
    vain: Option<Vain>,
}

/// A search of everything that has come to nothing.
#[derive(Debug, Clone, Copy)]
struct Vain {
    entitlement: Entitlement,
    /// How often mappings had been given back when it began, and what the budget was.
    reclaims: u64,
    began_at: BudgetState,
}

impl Reclaim {
    /// Whether there is more to give back.
    pub(in crate::agent) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    /// Gives nothing back for now.
    pub(in crate::agent) fn end(&mut self) {
        self.next = None;
    }

    /// Goes on with extents that save more, if any were found.
    fn next_round(&mut self) {
        self.next = self.next_worth.map(|_| LinearIndex(0));
        // Within a factor of two of the worst, so that there are few rounds.
        self.worth = self.next_worth.take().map_or(0, u32::next_power_of_two);
        self.kept.clear();
        if self.next.is_none() {
            let Self { entitlement, reclaims, .. } = *self;
            self.vain = self.began_at.map(|began_at| Vain { entitlement, reclaims, began_at });
        }
    }
}

impl Agent {
    /// Begins to give mappings back, if others lack theirs, the VM is beyond its share, and it `may_move`
    /// pages. O(1).
    pub(in crate::agent) fn begin_reclaim(&mut self, may_move: bool) {
        self.reclaim.end();
        let Some(entitlement) = self.next_entitlement().filter(|_| may_move) else { return };
        let (state, reclaims) = (self.budget.state(self.vmas), self.budget.reclaims());
        let owed = self.budget.owed(self.vmas);
        let some = self.budget.beyond_share(self.vmas) / PASS_DIVISOR;
        let quota = owed.min(some.max(LEAST_PER_PASS));
        let (next, began_at) = (Some(LinearIndex(0)), Some(state));
        self.reclaim =
            Reclaim { next, quota, entitlement, reclaims, began_at, ..Reclaim::default() };
    }

    /// What others keep if the VM begins to give mappings back; `None` if it gives none, as the budget is now.
    fn next_entitlement(&self) -> Option<Entitlement> {
        if !self.budget.is_owing()
            || self.budget.owed(self.vmas) < VMAS_PER_EXTENT
            || self.budget.beyond_share(self.vmas) <= self.budget.slack()
        {
            return None;
        }
        // Otherwise pages would be unmerged, and the mappings stay.
        if !self.process.page_mover().is_some_and(PageMover::joins_neighbours) {
            return None;
        }
        let (state, reclaims) = (self.budget.state(self.vmas), self.budget.reclaims());
        match self.reclaim.vain {
            // The last resort: nobody has found anything else since.
            Some(vain) if self.is_half_next(&vain) && vain.reclaims == reclaims => {
                Some(Entitlement::Half)
            }
            Some(vain) if vain.began_at == state && vain.reclaims == reclaims => None,
            _ => Some(self.budget.first_entitlement()),
        }
    }

    /// Takes note that the next pass is to give mappings back, if it is, for others that wait for them while
    /// somebody waits for folding to settle: [so often](MOST_DUE) at most, as guests that keep writing may have some be
    /// due for ever. O(1).
    pub(crate) fn note_due_reclaim(&mut self) {
        let is_scanned = self.mode != DedupMode::Off && self.can_map();
        let is_counted = is_scanned && self.backlog.due_reclaims < MOST_DUE;
        if is_counted && self.next_entitlement().is_some() {
            self.backlog.due_reclaims += 1;
            self.backlog.pages += 1;
        }
    }

    /// Whether others are to keep less now than when a search came to nothing.
    fn is_half_next(&self, vain: &Vain) -> bool {
        vain.entitlement != Entitlement::Half && self.budget.is_anyone_starved()
    }

    /// Goes on giving mappings back for others, if that is under way: extents of `limit_pages` pages at most,
    /// or one window. Returns how much of the limit that took; 0 when it is over.
    /// O(extents passed over · log extents + pages).
    ///
    /// # Errors
    ///
    /// When the kernel has no memory, the broker fails, or the page map cannot be read. What is known of every
    /// page is right, and nothing more is given back by this pass.
    pub(in crate::agent) fn reclaim(
        &mut self,
        broker: &mut dyn Broker,
        limit_pages: u32,
    ) -> Result<u32, AgentError> {
        let mut taken = 0;
        while let Some(from) = self.reclaim.next.filter(|_| taken < limit_pages) {
            let vmas = self.reclaim.quota.min(self.budget.owed(self.vmas));
            if vmas < VMAS_PER_EXTENT {
                self.reclaim.end();
                break;
            }
            let span = limit_pages.saturating_mul(PASSED_PER_PAGE);
            let (window, passed) = self.next_window_of_little_worth(broker, from, vmas, span)?;
            taken += passed.div_ceil(PASSED_PER_PAGE);
            self.work.searched_pages += u64::from(passed);
            match window {
                Window::Found(pages) => {
                    taken += pages.page_count();
                    let given = self.release_window(broker, &pages);
                    if !matches!(given, Ok(true)) {
                        self.reclaim.end();
                    }
                    given?;
                }
                Window::Further(next) => self.reclaim.next = Some(next),
                Window::None => {
                    self.reclaim.next_round();
                    if self.reclaim.vain.is_some_and(|vain| self.is_half_next(&vain)) {
                        // By the next pass.
                        self.backlog.pages += 1;
                    }
                }
            }
            if self.work.is_enough() {
                break;
            }
        }
        Ok(taken.min(limit_pages))
    }

    /// Unmerges pages and has them be anonymous memory. Returns whether that has given mappings back.
    fn release_window(
        &mut self,
        broker: &mut dyn Broker,
        pages: &Range<LinearIndex>,
    ) -> Result<bool, AgentError> {
        let run = Run::replacing(pages);
        self.reclaim.next = Some(run.end());
        let mut planned = self.extents.within(iter::once(run.with_neighbours()));
        if more_vmas_with(&self.space, &mut planned, &run) >= 0 {
            // It lies between extents that save more.
            return Ok(true);
        }
        let shared: Vec<Range<LinearIndex>> = self.shared.runs_within(pages.clone()).collect();
        self.work.mapped_runs += 1 + shared.len() as u64;
        self.work.mapped_pages += u64::from(run.page_count);
        for pages in shared {
            self.unmerge_run(broker, pages.clone(), |linear| Outcome::Yielded { linear })?;
            // Deferred, and not to be looked at: they are known to have twins.
            self.dirty.remove_range(pages.clone());
            self.deferred.insert_range(pages);
        }
        let before = self.vmas;
        if !self.make_anonymous(pages)? {
            return Ok(false);
        }
        self.report(broker, vec![Outcome::unbacked(pages)])?;
        let freed = before.saturating_sub(self.vmas);
        self.reclaim.quota = self.reclaim.quota.saturating_sub(freed);
        if freed > 0 {
            self.reclaim.began_at = None;
            self.budget.note_reclaim();
        }
        Ok(freed > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::VmId;
    use crate::agent::ProcessMemory;
    use crate::agent::budget::Lack;
    use crate::agent::tests::World;

    #[test]
    fn settling_waits_for_mappings_that_are_about_to_be_given_back_though_not_for_ever() {
        const OTHER: VmId = VmId(9);
        let process = Arc::new(ProcessMemory::open(true).unwrap());
        let mut world = World::new(&process, 256, 0..0);
        let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
        agent.budget.pool.limit.store(1600, Ordering::Relaxed);
        (0..2).for_each(|_| agent.budget.count_vm(true));
        agent.budget.update(VmId(0), 0, 1500, 1500);
        agent.vmas = 1500;
        agent.note_due_reclaim();
        assert_eq!(agent.backlog.pages, 0, "nobody waits for them");
        agent.budget.count_lack(OTHER, Lack::Nothing, Lack::Share);
        agent.mode = DedupMode::Off;
        agent.note_due_reclaim();
        assert_eq!(agent.backlog.pages, 0, "it gives none back");
        agent.mode = DedupMode::On;
        (0..2 * MOST_DUE).for_each(|_| agent.note_due_reclaim());
        assert_eq!(agent.backlog.pages, u64::from(MOST_DUE));
        agent.mark();
        agent.note_due_reclaim();
        assert_eq!(agent.backlog.pages, u64::from(MOST_DUE) + 1);
    }
}
