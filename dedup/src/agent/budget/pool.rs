//! What all engines of a budget have together: its limit, what is in use, and who lacks some.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mappings kept free for the rest of the process, in parts of the kernel's limit.
const RESERVE_DIVISOR: u64 = 8;

/// What all engines of a budget use together.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Whether the limit is what the kernel's leaves, and not one that somebody has set.
    pub(super) is_of_process: bool,
    pub(super) limit: AtomicU64,
    /// The kernel's limit that this one was found by.
    pub(super) kernel_limit: AtomicU64,
    pub(super) used: AtomicU64,
    pub(super) pledged: AtomicU64,
    pub(super) folded_vms: AtomicU64,
    /// VMs that have not got their share and defer runs.
    pub(super) held_back_vms: AtomicU64,
    /// Those among them that have not got half of it.
    pub(super) starved_vms: AtomicU64,
    /// How often mappings were given back for them.
    pub(super) reclaims: AtomicU64,
    /// How often the kernel has refused a mapping.
    pub(super) refusals: AtomicU64,
}

impl Pool {
    /// Sets the limit by the real number of mappings. One that was set by somebody is only lowered.
    pub(super) fn recount(&self) -> io::Result<()> {
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

/// The message for a mapping that the kernel has refused, if `limit` was found anew since: at
/// `vm.max_map_count` it is below what is used, as the mappings in reserve are used, too.
pub(super) fn refusal(limit: u64, used: u64) -> String {
    let advice = if used < limit {
        "so it is memory or address space (ulimit -v) that is short"
    } else {
        "raise vm.max_map_count, or run fewer VMs in a process"
    };
    format!("the kernel refused a mapping: guest memory may use {limit} and uses {used}; {advice}")
}

/// `vm.max_map_count`.
pub(super) fn kernel_limit() -> io::Result<u64> {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")?;
    limit.trim().parse().map_err(io::Error::other)
}
