//! The mapping budget: how many VMAs the guests of this process may take.
//!
//! The kernel allows a process `vm.max_map_count` mappings, and an `mmap` beyond that fails, the
//! embedder's too. So the agents share a budget below it. Every run of merged pages may cost two
//! mappings, whether it saves one page or a thousand: as the budget runs short, ever longer runs
//! are asked for, so that what is left goes to those that save most.
//!
//! A page that is merged for a twin saves nothing before the twin is, too. So whoever creates a slot
//! *pledges* what the twin's side will need, and that is not there for anybody else until the twin
//! was merged, or the pass is over.
//!
//! Each VM has a share (`shares`), and what one does not use is lent to the others, nearly all of it.

mod shares;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::VmId;
use shares::Holdings;
pub(super) use shares::{Entitlement, Lack};

/// Mappings kept free for the rest of the process, in parts of the kernel's limit.
const RESERVE_DIVISOR: u64 = 8;

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
pub struct MappingBudget {
    pool: Arc<Pool>,
    used: AtomicU64,
    pledged: AtomicU64,
    holdings: Mutex<Holdings>,
}

/// What all engines of a budget use together.
#[derive(Debug, Default)]
struct Pool {
    /// Whether the limit is what the kernel's leaves, and not one that somebody has set.
    is_of_process: bool,
    limit: AtomicU64,
    /// The kernel's limit that this one was found by.
    kernel_limit: AtomicU64,
    used: AtomicU64,
    pledged: AtomicU64,
    folded_vms: AtomicU64,
    /// VMs that have not got their share and put off runs.
    held_back_vms: AtomicU64,
    /// Those among them that have not got half of it.
    starved_vms: AtomicU64,
    /// How often mappings were given back for them.
    reclaims: AtomicU64,
    /// How often the kernel has refused a mapping.
    refusals: AtomicU64,
}

/// All that what a VM may take, or is to give back, depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BudgetState {
    limit: u64,
    committed: u64,
    steps: &'static Steps,
    is_anyone_starved: bool,
}

/// What a run asks of the budget.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask {
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
    pub fn new(limit: u64) -> Self {
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
    /// When `/proc` does not say.
    pub fn of_process() -> io::Result<Self> {
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

    /// Looks whether the kernel's limit has been changed, if the budget is short. O(1), or
    /// O(mappings of the process) if it has.
    pub(crate) fn follow_kernel(&self) {
        let known = self.pool.kernel_limit.load(Ordering::Relaxed);
        if !self.pool.is_of_process || !self.is_short() {
            return;
        }
        let followed = kernel_limit()
            .and_then(|limit| if limit == known { Ok(()) } else { self.pool.recount() });
        if let Err(error) = followed {
            log::debug!("cannot find out how many mappings there may be: {error}");
        }
    }

    /// Mappings that may be used.
    pub fn limit(&self) -> u64 {
        self.pool.limit.load(Ordering::Relaxed)
    }

    /// Mappings that this engine uses.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so much is in use that mappings which save nothing are to come back.
    pub(crate) fn is_short(&self) -> bool {
        self.part(self.committed()) >= SHORT_FROM
    }

    /// Counts a VM among those that share the budget, or no more, as `is_folded` says.
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

    /// Sets mappings aside for pages that are about to be merged.
    pub(super) fn pledge(&self, mappings: u64) {
        self.pledged.fetch_add(mappings, Ordering::Relaxed);
        self.pool.pledged.fetch_add(mappings, Ordering::Relaxed);
    }

    /// Takes back some of what was set aside, as it is used now, or never will be.
    pub(super) fn redeem(&self, mappings: u64) {
        let taken = mappings.min(self.pledged.load(Ordering::Relaxed));
        self.pledged.fetch_sub(taken, Ordering::Relaxed);
        self.pool.pledged.fetch_sub(taken, Ordering::Relaxed);
    }

    /// Takes all back that was set aside: nobody is about to be merged.
    pub(crate) fn redeem_all(&self) {
        self.redeem(u64::MAX);
    }

    /// What is in use or set aside.
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
            is_anyone_starved: self.is_anyone_starved(),
        }
    }

    /// Whether a run that saves `worth` pages for each two mappings can be paid for.
    pub(super) fn allows(&self, worth: u32, ask: &Ask) -> bool {
        let before = self.committed().saturating_add_signed(ask.planned);
        // As if what is set aside were for its own pages, so that no VM goes beyond its share by a pair, gives
        // a half of it back, and takes it again.
        let with = ask.held.saturating_add_signed(ask.more).saturating_add(ask.pledge);
        let min_pages = min_pages(self.steps(ask.held, with), self.part(before));
        let after = before.saturating_add_signed(ask.more).saturating_add(ask.pledge);
        worth >= min_pages && after <= self.limit()
    }

    /// Whether a run can be paid for that mappings were set aside for, or that must be.
    pub(super) fn allows_at_all(&self, ask: &Ask) -> bool {
        let used = self.pool.used.load(Ordering::Relaxed);
        let after = used.saturating_add_signed(ask.planned).saturating_add_signed(ask.more);
        ask.more <= 0 || after <= self.limit()
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

impl Pool {
    /// Sets the limit by the real number of mappings. One that was set by somebody is only lowered.
    fn recount(&self) -> io::Result<()> {
        let limit = kernel_limit()?;
        self.kernel_limit.store(limit, Ordering::Relaxed);
        let present = std::fs::read_to_string("/proc/self/maps")?.lines().count() as u64;
        let others = present.saturating_sub(self.used.load(Ordering::Relaxed));
        let limit = limit.saturating_sub(limit / RESERVE_DIVISOR).saturating_sub(others);
        if self.is_of_process {
            self.limit.store(limit, Ordering::Relaxed);
        } else {
            self.limit.fetch_min(limit, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What there is to say when the kernel has refused a mapping, and `limit` was found anew since: at
/// `vm.max_map_count` it is below what is used, as the mappings in reserve are used, too.
fn refusal(limit: u64, used: u64) -> String {
    let advice = if used < limit {
        "so it is memory or address space (ulimit -v) that is short"
    } else {
        "raise vm.max_map_count, or run fewer VMs in a process"
    };
    format!("the kernel refused a mapping: guest memory may use {limit} and uses {used}; {advice}")
}

/// `vm.max_map_count`.
fn kernel_limit() -> io::Result<u64> {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")?;
    limit.trim().parse().map_err(io::Error::other)
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
mod tests {
    use super::*;

    const VM: VmId = VmId(0);

    /// The shortest of some runs that can be paid for.
    fn shortest(budget: &MappingBudget, held: u64) -> Option<u32> {
        let ask = Ask { held, ..Ask::default() };
        [1, 2, 4, 8, 32].into_iter().find(|&pages| budget.allows(pages, &ask))
    }

    #[test]
    fn ever_longer_runs_are_asked_for_as_the_budget_runs_short() {
        let budget = MappingBudget::new(1600);
        (0..4).for_each(|_| budget.count_vm(true));
        let asked = |used, held| {
            budget.update(VM, 0, used, used);
            let shortest = shortest(&budget, held);
            budget.update(VM, used, 0, 0);
            shortest
        };
        let within = [0, 1499, 1500, 1525, 1550, 1575, 1600].map(|used| asked(used, 375));
        assert_eq!(within, [Some(1), Some(1), Some(2), Some(4), Some(8), Some(32), None]);
        let beyond = [0, 1474, 1475, 1500, 1525, 1550, 1575].map(|used| asked(used, 376));
        assert_eq!(beyond, [Some(1), Some(1), Some(2), Some(4), Some(8), Some(32), None]);
        assert_eq!(shortest(&MappingBudget::new(0), 0), None);
    }

    #[test]
    fn a_refused_mapping_is_blamed_on_the_limit_that_was_reached() {
        assert!(refusal(50, 60).contains("vm.max_map_count"));
        assert!(refusal(0, 0).contains("vm.max_map_count"));
        let other = refusal(60, 50);
        assert!(other.contains("ulimit -v") && !other.contains("max_map_count"), "{other}");
    }

    // The second page of a pair took its VM beyond its share, and the first was given back for that.
    #[test]
    fn a_pair_that_would_take_its_vm_beyond_its_share_is_not_begun_while_others_lack_theirs() {
        let budget = MappingBudget::new(1600);
        (0..4).for_each(|_| budget.count_vm(true));
        budget.count_lack(Lack::Nothing, Lack::Share);
        let pair = |held| budget.allows(1, &Ask { held, more: 2, pledge: 2, ..Ask::default() });
        assert_eq!([370, 371, 372, 373].map(pair), [true, true, false, false]);
        budget.count_lack(Lack::Share, Lack::Nothing);
        assert!(pair(373), "what nobody lacks is lent");
    }

    #[test]
    fn who_is_beyond_its_share_gives_back_what_another_lacks_in_any_engine_and_takes_nothing() {
        let pool = Arc::new(Pool { limit: AtomicU64::new(1600), ..Pool::default() });
        let [first, other] = [0, 1].map(|_| MappingBudget::of(Arc::clone(&pool)));
        first.count_vm(true);
        first.update(VM, 0, 1500, 1500);
        assert!(!first.is_owing() && other.lack(1, false) == Lack::Half);
        other.count_vm(true);
        other.count_lack(Lack::Nothing, Lack::Share);
        assert!(first.is_owing());
        // Down to what nobody beyond its share may take, and then to its share.
        assert_eq!([first.owed(1500), first.owed(760), first.owed(750)], [75, 10, 0]);
        first.update(VM, 1500, 1000, 1000);
        assert_eq!((first.is_owing(), first.owed(1000)), (false, 0));
        assert_eq!([shortest(&first, 1000), shortest(&first, 700)], [None, Some(1)]);
        assert_eq!((first.room(1000, 32), other.room(1, 1)), (0, 500));
        other.count_lack(Lack::Share, Lack::Nothing);
        assert_eq!(shortest(&first, 1000), Some(1));
        // What is left of a share is not worth taking anything from anybody.
        let lacks = [370, 371, 372, 704, 705].map(|held| other.lack(held, true));
        let [half, share, nothing] = [Lack::Half, Lack::Share, Lack::Nothing];
        assert_eq!(lacks, [half, half, share, share, nothing]);
    }

    #[test]
    fn a_limit_that_was_raised_meanwhile_holds_when_the_budget_is_short() {
        let pool = Pool { is_of_process: true, limit: AtomicU64::new(100), ..Pool::default() };
        let budget = MappingBudget::of(Arc::new(pool));
        budget.follow_kernel();
        assert_eq!(budget.limit(), 100);
        budget.update(VM, 0, 100, 100);
        let before = budget.state(0);
        budget.follow_kernel();
        assert!(budget.limit() > 100 && budget.state(0) != before, "{budget:?}");
        let set = MappingBudget::new(100);
        set.update(VM, 0, 100, 100);
        set.follow_kernel();
        assert_eq!(set.limit(), 100);
    }

    #[test]
    fn what_is_set_aside_is_not_there_for_anybody_else() {
        let budget = MappingBudget::new(64);
        budget.pledge(60);
        assert_eq!(shortest(&budget, 0), Some(2));
        assert!(budget.allows_at_all(&Ask { more: 60, ..Ask::default() }));
        assert!(!budget.allows_at_all(&Ask { more: 65, ..Ask::default() }));
        assert_eq!([budget.room(0, 1), budget.room(0, 2), budget.room(0, 40)], [0, 1, 4]);
        budget.redeem(20);
        assert_eq!(budget.room(0, 1), 20);
        budget.redeem_all();
        assert_eq!((budget.committed(), shortest(&budget, 0)), (0, Some(1)));
    }
}
