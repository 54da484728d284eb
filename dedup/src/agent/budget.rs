//! The mapping budget: how many VMAs the guests of this process may take.
//!
//! The kernel allows a process `vm.max_map_count` mappings, and an `mmap` beyond that fails, the
//! embedder's too. So the agents share a budget below it. Every run of merged pages may cost two
//! mappings, whether it saves one page or a thousand: as the budget runs short, ever longer runs
//! are asked for, so that what is left goes to those that save most.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mappings kept free for the rest of the process, in parts of the kernel's limit.
const RESERVE_DIVISOR: u64 = 8;

/// Up to which part of the budget (in 1/16) runs of at least so many pages are merged.
const STEPS: [(u64, u32); 6] = [(11, 1), (13, 2), (14, 4), (15, 8), (16, 32), (u64::MAX, u32::MAX)];

/// The budget of one process, shared by its agents.
#[derive(Debug)]
pub struct MappingBudget {
    limit: u64,
    used: AtomicU64,
}

impl MappingBudget {
    /// A budget of `limit` mappings.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// What `vm.max_map_count` leaves after the process's present mappings and a reserve.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say.
    pub fn of_process() -> io::Result<Self> {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")?;
        let limit: u64 = limit.trim().parse().map_err(io::Error::other)?;
        let present = std::fs::read_to_string("/proc/self/maps")?.lines().count() as u64;
        Ok(Self::new(limit.saturating_sub(limit / RESERVE_DIVISOR).saturating_sub(present)))
    }

    /// Mappings that may be used.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Mappings in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether some runs are too short to be worth their mappings.
    pub(super) fn is_short(&self) -> bool {
        self.min_run_pages(0) > 1
    }

    /// Replaces an agent's count by its new one.
    pub(super) fn update(&self, before: u64, after: u64) {
        self.used.fetch_add(after, Ordering::Relaxed);
        self.used.fetch_sub(before, Ordering::Relaxed);
    }

    /// The shortest run worth merging when `planned` more mappings are about to be made (less, if
    /// negative); `u32::MAX` when none is.
    pub(super) fn min_run_pages(&self, planned: i64) -> u32 {
        let used = self.used().saturating_add_signed(planned);
        let part = used.saturating_mul(16).checked_div(self.limit).unwrap_or(u64::MAX);
        STEPS.iter().find(|&&(up_to, _)| part < up_to).map_or(u32::MAX, |&(_, pages)| pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_longer_runs_are_asked_for_as_the_budget_runs_short() {
        let budget = MappingBudget::new(1600);
        let asked: Vec<u32> =
            [0, 1100, 1300, 1400, 1500, 1600].map(|used| budget.min_run_pages(used)).to_vec();
        assert_eq!(asked, [1, 2, 4, 8, 32, u32::MAX]);
        budget.update(0, 1400);
        assert_eq!(budget.min_run_pages(0), 8);
        budget.update(1400, 10);
        assert_eq!(budget.min_run_pages(0), 1);
        assert_eq!(MappingBudget::new(0).min_run_pages(0), u32::MAX);
    }
}
