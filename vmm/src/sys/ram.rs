//! Giving guest memory to folding.

use std::sync::Arc;

use pagefold_dedup::{GuestMemory, Region};

use crate::memory::{GuestRam, RamRegion};

/// A VM's RAM with its regions as folding takes them.
#[derive(Debug)]
pub(crate) struct FoldableRam {
    /// Keeps the mappings.
    _ram: Arc<GuestRam>,
    regions: Vec<Region>,
}

impl FoldableRam {
    pub(crate) fn new(ram: Arc<GuestRam>) -> Self {
        let region = |region: &RamRegion| Region {
            linear: region.first,
            page_count: region.page_count,
            gpa: region.gpa.0,
            host_addr: region.host_addr,
        };
        let regions = ram.regions().iter().map(region).collect();
        Self { _ram: ram, regions }
    }
}

// SAFETY: the regions are vm-memory's own private anonymous mappings, disjoint, page-aligned and
// unmapped only when `_ram` is dropped. vm-memory hands out raw pointers and volatile copies, and
// nothing in this crate makes references of them. KVM reaches the pages through the mapping and is
// notified of every replacement by the kernel's MMU notifier. No device pins pages.
unsafe impl GuestMemory for FoldableRam {
    fn regions(&self) -> &[Region] {
        &self.regions
    }
}
