//! What there is to say of a VM that is not attached to an engine.

use std::io;
use std::sync::Arc;

use crate::stats::{DedupStats, Events, VmStats};
use crate::sys::{GuestMemory, PageKind, Pagemap, Space};
use crate::{DedupMode, PAGE_SIZE, VmId};

impl VmStats {
    /// The statistics of a VM that is not attached to an engine, in the words of one that is and whose
    /// mode is off: what memory it takes, and that none of it is folded. O(pages that are there).
    pub fn unfolded(vm: VmId, domain: &str, memory: &Arc<dyn GuestMemory>) -> Self {
        let regions = memory.regions();
        let own = own_memory(memory).ok();
        Self {
            id: vm.0,
            domain: domain.to_owned(),
            mode: DedupMode::Off.to_string(),
            pages: regions.iter().map(|region| u64::from(region.page_count)).sum(),
            merging_pages: 0,
            zero_pages: 0,
            rmap_items: 0,
            profit: 0,
            unshared_pages: 0,
            deferred_pages: 0,
            volatile_pages: 0,
            swapped_pages: own.map(|(_, swapped)| swapped),
            unmerging_pages: 0,
            extents: 0,
            vmas: regions.len() as u64,
            private_bytes: own.map(|(private, _)| private * PAGE_SIZE as u64),
            events: Events::default(),
        }
    }
}

impl DedupStats {
    /// Adds a VM that is not attached to the engine: to the VMs, and to the memory that is held for all.
    pub fn add_unfolded(&mut self, vm: VmStats) {
        let resident = self.resident_bytes.zip(vm.private_bytes);
        self.resident_bytes = resident.map(|(others, its)| others + its);
        let place = self.vms.partition_point(|other| other.id < vm.id);
        self.vms.insert(place, vm);
    }
}

/// Pages of a memory that are there, and pages in swap.
fn own_memory(memory: &Arc<dyn GuestMemory>) -> io::Result<(u64, u64)> {
    let space = Space::new(Arc::clone(memory)).map_err(io::Error::other)?;
    let pagemap = Pagemap::open()?;
    let (mut private, mut swapped) = (0, 0);
    for piece in space.pieces() {
        pagemap.scan(space.whole(piece), |_, page_count, kind| match kind {
            PageKind::Private => private += u64::from(page_count),
            PageKind::Swapped => swapped += u64::from(page_count),
            PageKind::Slot | PageKind::ZeroPage => {}
        })?;
    }
    Ok((private, swapped))
}
