//! The mapping budget: how many VMAs the guests of this process may take.
//!
//! The kernel allows a process `vm.max_map_count` mappings, and an `mmap` beyond that fails, the
//! embedder's too. So the agents share a budget below it. Every run of merged pages may cost two
//! mappings, whether it saves one page or a thousand: as the budget runs short, ever longer runs
//! are demanded, so that what is left goes to those that save most.
//!
//! A page that is merged for a twin saves nothing before the twin is, too. So whoever creates a slot
//! *pledges* what the twin's side will need, and that is not there for anybody else until the twin
//! was merged, or the pass is over.
//!
//! Each VM has a share (`shares`), and what one does not use is lent to the others, nearly all of it.

pub(super) mod deferral;
pub(super) mod mappings;
mod pool;
pub(super) mod price;
pub(super) mod reclaim;
pub(super) mod retry;
mod shares;
pub(super) mod stale_extents;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::VmId;
use pool::{Pool, kernel_limit, refusal};
use shares::Holdings;
pub(super) use shares::{Entitlement, Lack};

/// The parts that the budget has in [`Steps`].
const PARTS: u64 = 64;

/// Up to which part of the budget runs of at least so many pages are merged.
type Steps = [(u64, u32); 5];

/// For a VM that holds no more than its share.
const WITHIN_SHARE: Steps = [(60, 1), (61, 2), (62, 4), (63, 8), (64, 32)];

/// For a VM that is lent something. It leaves little: what is lent comes back (`reclaim`) when another lacks it.
const BEYOND_SHARE: Steps = [(59, 1), (60, 2), (61, 4), (62, 8), (63, 32)];

/// For a VM that is lent something while another has not got its share, or that has half of its own while another
/// has not.
const OWED: Steps = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 32)];

/// The part of the budget that VMs may take for single pages, which is what they share.
const SHARED_PART: u64 = WITHIN_SHARE[0].0;

/// The part of the budget in use from which mappings are given back, and down to which. What is between them
/// is free for whoever has not got its share, as nobody else takes anything (`OWED`) before it has. Then
/// those beyond their shares take what is left of that, once, for it does not lack that any more.
const RECLAIM_FROM: u64 = SHARED_PART - 1;
const RECLAIM_TO: u64 = 57;

/// The part of the budget in use from which it is short: mappings that save nothing come back before anybody
/// has to do without, or to give back what saves something.
const SHORT_FROM: u64 = 52;

/// Mappings that a pair of runs takes on both sides, at most.
pub(super) const VMAS_PER_PAIR: u64 = 4;

/// One engine's part of a budget.
#[derive(Debug)]
pub(crate) struct MappingBudget {
    pool: Arc<Pool>,
    used: AtomicU64,
    pledged: AtomicU64,
    holdings: Mutex<Holdings>,
}

/// All that what a VM may take, or is to give back, depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BudgetState {
    limit: u64,
    committed: u64,
    steps: &'static Steps,
    share: u64,
    starved_vms: u64,
}

/// What a run demands of the budget.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    /// Mappings that its VM holds, with those that it is about to make.
    pub(super) held: u64,
    /// Those that it is about to make without this run (less, if negative).
    pub(super) planned: i64,
    /// What the run adds to them.
    pub(super) more: i64,
    /// What it has pledged.
    pub(super) pledge: u64,
}

impl MappingBudget {
    /// A budget of `limit` mappings.
    pub(crate) fn new(limit: u64) -> Self {
        Self::of(Arc::new(Pool { limit: AtomicU64::new(limit), ..Pool::default() }))
    }

    fn of(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            used: AtomicU64::new(0),
            pledged: AtomicU64::new(0),
            holdings: Mutex::default(),
        }
    }

    /// A part of the budget of the process, which all have that ask for it: what `vm.max_map_count`
    /// leaves after a reserve and the process's present mappings, but for those that are counted in
    /// this budget. O(mappings of the process).
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub(crate) fn of_process() -> io::Result<Self> {
        static PROCESS: OnceLock<Arc<Pool>> = OnceLock::new();
        let pool =
            PROCESS.get_or_init(|| Arc::new(Pool { is_of_process: true, ..Pool::default() }));
        pool.recount()?;
        Ok(Self::of(Arc::clone(pool)))
    }

    /// Takes note that the kernel has refused a mapping: there are fewer than was thought, and the limit
    /// is lowered to what there is. O(mappings of the process).
    pub(super) fn note_refusal(&self) {
        if let Err(error) = self.pool.recount() {
            log::warn!("cannot count the mappings of this process: {error}");
        }
        let count = self.pool.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        // Ever more rarely: where memory is short there is one for each run.
        let level = if count.is_power_of_two() { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "{}", refusal(self.limit(), self.pool.used.load(Ordering::Relaxed)));
    }

    /// Reads the kernel's limit again, which may have been changed, if the budget is short. O(1), or
    /// O(mappings of the process) if it has.
    pub(crate) fn reread_limit(&self) {
        let known = self.pool.kernel_limit.load(Ordering::Relaxed);
        if !self.pool.is_of_process || !self.is_short() {
            return;
        }
        let reread = kernel_limit()
            .and_then(|limit| if limit == known { Ok(()) } else { self.pool.recount() });
        if let Err(error) = reread {
            log::debug!("cannot find out how many mappings there may be: {error}");
        }
    }

    /// Mappings that may be used.
    pub(crate) fn limit(&self) -> u64 {
        self.pool.limit.load(Ordering::Relaxed)
    }

    /// Mappings that this engine uses.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so much is in use that mappings which save nothing are to come back.
    pub(crate) fn is_short(&self) -> bool {
        self.part(self.committed()) >= SHORT_FROM
    }

    /// Counts a VM among those that share the budget, or no more, by `is_folded`.
    pub(super) fn count_vm(&self, is_folded: bool) {
        if is_folded {
            self.pool.folded_vms.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pool.folded_vms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Replaces the count of a VM by its new one, of which `shared` are for pages that it shares. O(log VMs).
    pub(super) fn update(&self, vm: VmId, before: u64, after: u64, shared: u64) {
        self.holdings().set(vm, (after > 0).then_some(shared));
        for used in [&self.used, &self.pool.used] {
            used.fetch_add(after, Ordering::Relaxed);
            used.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// Pledges mappings for pages that are about to be merged: nobody else gets them.
    pub(super) fn pledge(&self, mappings: u64) {
        self.pledged.fetch_add(mappings, Ordering::Relaxed);
        self.pool.pledged.fetch_add(mappings, Ordering::Relaxed);
    }

    /// Whether anything is pledged.
    pub(super) fn has_pledged(&self) -> bool {
        self.pledged.load(Ordering::Relaxed) > 0
    }

    /// Takes back some of what was pledged, as it is used now, or never will be.
    pub(super) fn redeem(&self, mappings: u64) {
        let taken = mappings.min(self.pledged.load(Ordering::Relaxed));
        self.pledged.fetch_sub(taken, Ordering::Relaxed);
        self.pool.pledged.fetch_sub(taken, Ordering::Relaxed);
    }

    /// Takes all back that was pledged: nobody is about to be merged.
    pub(crate) fn redeem_all(&self) {
        self.redeem(u64::MAX);
    }

    /// What is in use or pledged.
    pub(super) fn committed(&self) -> u64 {
        let Pool { used, pledged, .. } = &*self.pool;
        used.load(Ordering::Relaxed).saturating_add(pledged.load(Ordering::Relaxed))
    }

    /// All that what a VM that holds `held` may take depends on.
    pub(super) fn state(&self, held: u64) -> BudgetState {
        BudgetState {
            limit: self.limit(),
            committed: self.committed(),
            steps: self.steps(held, held),
            share: self.share(),
            starved_vms: self.pool.starved_vms.load(Ordering::Relaxed),
        }
    }

    /// Whether a run that saves `worth` pages for each two mappings can be paid for.
    pub(super) fn allows(&self, worth: u32, demand: &Demand) -> bool {
        let before = self.committed().saturating_add_signed(demand.planned);
        // As if what is pledged were for its own pages, so that no VM goes beyond its share by a pair, gives
        // a half of it back, and takes it again.
        let with = demand.held.saturating_add_signed(demand.more).saturating_add(demand.pledge);
        let min_pages = min_pages(self.steps(demand.held, with), self.part(before));
        let after = before.saturating_add_signed(demand.more).saturating_add(demand.pledge);
        worth >= min_pages && after <= self.limit()
    }

    /// Whether a run can be paid for that mappings were pledged for, or that must be.
    pub(super) fn allows_at_all(&self, demand: &Demand) -> bool {
        let used = self.pool.used.load(Ordering::Relaxed);
        let after = used.saturating_add_signed(demand.planned).saturating_add_signed(demand.more);
        demand.more <= 0 || after <= self.limit()
    }

    /// How many mappings a VM that holds `held` may still make for runs of `pages` pages.
    pub(super) fn room(&self, held: u64, pages: u32) -> u64 {
        let steps = self.steps(held, held).iter().rev();
        let up_to = steps.copied().find(|&(_, min_pages)| pages >= min_pages);
        let up_to = up_to.map_or(0, |(part, _)| part_of(self.limit(), part));
        up_to.saturating_sub(self.committed())
    }

    /// What a VM may take that holds `held`, and would hold `with` then.
    fn steps(&self, held: u64, with: u64) -> &'static Steps {
        let is_beyond = self.beyond_share(with) > 0;
        match (is_beyond || self.is_to_leave_the_rest(held), self.is_anyone_held_back()) {
            (false, _) => &WITHIN_SHARE,
            (true, false) => &BEYOND_SHARE,
            (true, true) => &OWED,
        }
    }

    /// How many mappings are, of the budget, in [`PARTS`].
    fn part(&self, mappings: u64) -> u64 {
        mappings.saturating_mul(PARTS).checked_div(self.limit()).unwrap_or(u64::MAX)
    }
}

impl Drop for MappingBudget {
    fn drop(&mut self) {
        self.redeem_all();
    }
}

/// The shortest run that is merged when so much of the budget is spent; `u32::MAX` when none is.
fn min_pages(steps: &Steps, part: u64) -> u32 {
    steps.iter().find(|&&(up_to, _)| part < up_to).map_or(u32::MAX, |&(_, pages)| pages)
}

/// So many of [`PARTS`] of a limit.
fn part_of(limit: u64, part: u64) -> u64 {
    u64::try_from(u128::from(limit) * u128::from(part) / u128::from(PARTS)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
