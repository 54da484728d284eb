//! VMs of one size, and what keeps this process from running them.

use pagefold::limits::room::{Needs, VmShape, lacking};
use pagefold::limits::{RoomError, Tree};
use pagefold_dedup::{DedupMode, EngineConfig};

/// VMs that are to run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) count: u32,
    /// What each has besides memory.
    pub(super) shape: VmShape,
    /// Memory of each.
    pub(super) memory_bytes: u64,
    pub(super) dedup: DedupMode,
}

impl Demand {
    /// Memory of all VMs together, in bytes.
    pub(super) fn all_memory_bytes(&self) -> u64 {
        // At most 4096 VMs of a few GiB.
        u64::from(self.count) * self.memory_bytes
    }

    /// All that there is too little of, memory and mappings apart. Asked before anything is made: what this process
    /// has by then counts as used.
    pub(super) fn lacking(&self) -> Vec<RoomError> {
        let store_bytes = match self.dedup {
            DedupMode::Off => 0,
            // Without /proc, which is what the host's error will name.
            _ => EngineConfig::default().store_bytes().unwrap_or(0),
        };
        let needs = Needs::of_vms(self.count, self.shape, self.all_memory_bytes(), store_bytes);
        lacking(&Tree::real(), &needs)
    }
}
